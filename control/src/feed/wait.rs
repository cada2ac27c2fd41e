//! Waiting until hosts enforce a write, whichever API server their agents follow.
//!
//! A server that waits asks the others, who answer of the hosts that follow them: a word each way, over the database, and
//! nothing while nobody waits. Hosts that a write cannot concern are not waited for, whoever they follow. What is not heard of until the deadline counts as not enforced: a word that is lost
//! makes a wait longer, and never an answer wrong.

use super::hub::Hub;
use crate::store::agent::agent_hosts_alive;
use crate::store::{Store, StoreError};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_model::{HostName, Revision};

/// Waits of other servers that are answered at a time; of one more nothing is said.
const ANSWERED_MAX: usize = 256;
/// Hosts of one word: they are at most so long that it fits into PostgreSQL's 8,000 bytes.
const HOSTS_MAX: usize = 24;
/// How long others are heard of that enforce it meanwhile, before it is said of them together.
const GATHER: Duration = Duration::from_millis(5);

/// What servers say to each other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// Who of yours enforces all that was committed up to `revision`?
    Who {
        wait: Uuid,
        revision: Revision,
        ms: u64,
    },
    /// These do, or have nothing to do for it.
    These { wait: Uuid, hosts: Vec<HostName> },
}

/// Those of the hosts that a write concerns, and of `bound`, that have not said until `deadline` that they enforce it;
/// `revision` is the write's.
///
/// # Errors
/// [`StoreError`]; then nothing is known.
pub(crate) async fn late(
    hub: &Arc<Hub>,
    store: &Store,
    revision: Revision,
    bound: BTreeSet<HostName>,
    deadline: Instant,
) -> Result<BTreeSet<HostName>, StoreError> {
    let mut late = bound.clone();
    let mut words = store.words();
    let wait = Uuid::new_v4();
    let mut others = BTreeSet::new();
    if words.is_some() {
        others = hosts_of_others(hub, store).await?;
        let ms = deadline.saturating_duration_since(Instant::now());
        let ms = u64::try_from(ms.as_millis()).unwrap_or(u64::MAX);
        say(store, &Word::Who { wait, revision, ms }).await?;
    }
    let realized = hub.realized(revision);
    if tokio::time::timeout_at(deadline, realized).await.is_err() {
        // Nobody knows yet whom it concerns.
        late.extend(hub.hosts_wanted().into_iter().chain(others));
        return Ok(late);
    }
    if let Some(may) = hub.may_concern(revision) {
        others.retain(|host| may.contains(host));
    }
    late.extend(others);
    let concerned: BTreeSet<HostName> = hub.concerned(revision).into_iter().chain(bound).collect();
    let mut own: FuturesUnordered<_> = concerned
        .iter()
        .filter_map(|host| hub.enforced(host, revision).ok().map(|done| (host, done)))
        .map(async |(host, done)| {
            done.await;
            host
        })
        .collect();
    late.extend(concerned.iter().cloned());
    while !late.is_empty() {
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => break,
            Some(host) = own.next() => drop(late.remove(host)),
            hosts = these(&mut words, wait) => late.retain(|host| !hosts.contains(host)),
        }
    }
    Ok(late)
}

/// What the others say next of a wait. Never resolves if there are none.
async fn these(words: &mut Option<crate::store::Words>, wait: Uuid) -> Vec<HostName> {
    while let Some(heard) = words {
        match heard.next().await.map(|word| serde_json::from_str(&word)) {
            Some(Ok(Word::These { wait: of, hosts })) if of == wait => return hosts,
            Some(_) => {}
            None => *words = None,
        }
    }
    std::future::pending().await
}

/// The hosts whose agents are alive and follow other servers.
async fn hosts_of_others(hub: &Hub, store: &Store) -> Result<BTreeSet<HostName>, StoreError> {
    let own = hub.hosts_wanted();
    let alive = agent_hosts_alive(store.read().await?.conn()).await?;
    let alive = alive.iter().filter_map(|host| host.parse().ok());
    Ok(alive.filter(|host| !own.contains(host)).collect())
}

async fn say(store: &Store, word: &Word) -> Result<(), StoreError> {
    let word = serde_json::to_string(word).map_err(|error| StoreError::Database(error.into()))?;
    store.say_word(&word).await
}

/// Answers other servers' waits, until `shutdown` is cancelled.
pub(crate) async fn answer(store: Store, hub: &Arc<Hub>, shutdown: CancellationToken) {
    let Some(mut words) = store.words() else {
        return;
    };
    let places = Arc::new(Semaphore::new(ANSWERED_MAX));
    loop {
        let word = tokio::select! {
            () = shutdown.cancelled() => return,
            word = words.next() => word,
        };
        let Some(word) = word else {
            return;
        };
        let Ok(Word::Who { wait, revision, ms }) = serde_json::from_str(&word) else {
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let deadline = Instant::now() + Duration::from_millis(ms);
        let (hub, store, stop) = (hub.clone(), store.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _place = place;
            let told = tokio::select! {
                () = stop.cancelled() => return,
                told = tokio::time::timeout_at(deadline, tell(&hub, &store, wait, revision)) => told,
            };
            if let Ok(Err(error)) = told {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "another server waits for this one's hosts in vain");
            }
        });
    }
}

/// Says of each host that follows this server that it enforces a revision, once it does.
async fn tell(
    hub: &Arc<Hub>,
    store: &Store,
    wait: Uuid,
    revision: Revision,
) -> Result<(), StoreError> {
    hub.realized(revision).await;
    let concerned: BTreeSet<HostName> = hub.concerned(revision).into_iter().collect();
    // A host that follows another server by now, or none, is not spoken for.
    let mut ready: Vec<HostName> = hub
        .hosts_followed()
        .into_iter()
        .filter(|host| !concerned.contains(host))
        .collect();
    // Of those that follow a server that has just died nobody else speaks.
    if let Some(may) = hub.may_concern(revision) {
        let others = hosts_of_others(hub, store).await?;
        ready.extend(others.into_iter().filter(|host| !may.contains(host)));
    }
    let mut others: FuturesUnordered<_> = concerned
        .iter()
        .filter_map(|host| hub.enforced(host, revision).ok().map(|done| (host, done)))
        .map(async |(host, done)| {
            done.await;
            host.clone()
        })
        .collect();
    loop {
        for hosts in ready.chunks(HOSTS_MAX) {
            let hosts = hosts.to_vec();
            say(store, &Word::These { wait, hosts }).await?;
        }
        ready.clear();
        let Some(host) = others.next().await else {
            return Ok(());
        };
        ready.push(host);
        let together = tokio::time::sleep(GATHER);
        tokio::pin!(together);
        loop {
            tokio::select! {
                () = &mut together => break,
                Some(host) = others.next() => ready.push(host),
                else => break,
            }
        }
    }
}
