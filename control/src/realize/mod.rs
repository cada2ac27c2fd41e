//! Rows to every host's duty, kept up to date.
//!
//! Guarantees: woken by a commit, never by a poll; what was written while it worked is one round more, however much
//! it was; every snapshot that it publishes passes `HostSnapshot::validate`, and one that would not is kept back, so
//! that the host goes on under its last one. A change costs what it concerns: hosts that it does not concern cost
//! nothing, those that it concerns cost the entries that it may change, and where no agent ever came nothing is read. [`snapshot`] makes a host's duty from
//! scratch, and is the oracle of that.
//!
//! `rows`, `decode`, `floating_ip`, `qos_policy`, `metering` and `log` read, `change` and `index` keep what was read by what it hangs on, `mark` says what may be
//! different, `duties` brings that to the hosts, `duty` brings one host up to date, `shared` keeps one copy of what several are told.
//!
//! `trial` does the same for a write that is only tried, and takes it back.
//!
//! It writes nothing to the store but hosts' ports of gateways' addresses (`gateway`), and knows nothing of how hosts are reached (`feed`).

mod change;
mod claim;
mod concern;
mod decode;
mod duties;
mod duty;
mod external;
mod floating_ip;
mod gateway;
#[cfg(test)]
mod history_tests;
mod index;
mod interface;
mod log;
mod mark;
mod metering;
mod policy_limits;
mod qos_policy;
mod rows;
mod shared;
mod snapshot;
#[cfg(test)]
mod tests;
mod trial;

pub use decode::RowError;
pub use trial::{Trial, TrialRequests, Trials, trials};

use crate::feed::{Hub, Round};
use crate::store::{self, Store, StoreError};
use duties::Duties;
use mark::Marks;
use rows::Rows;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trial::Ask;
use weft_model::Revision;

/// Between two tries while the store does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Revisions whose changes stay on record: enough for any reconciler that is alive. Older ones are forgotten, as many
/// at a time.
const CHANGES_KEPT: u64 = 10_000;

/// Publishes to `hub` what its hosts must do, and says what writes that are tried would change, until `shutdown` is cancelled.
pub async fn run(store: Store, hub: &Hub, mut trials: TrialRequests, shutdown: CancellationToken) {
    let mut nudges = store.subscribe();
    let mut kept: Option<Kept> = None;
    let mut pruned = Revision(0);
    while !shutdown.is_cancelled() {
        // Marked as seen before anything is read: what is committed from here on is another round.
        nudges.borrow_and_update();
        if let Err(error) = round(&store, hub, &mut kept, Instant::now()).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the hosts' duties cannot be read; trying again"
            );
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => continue,
            }
        }
        if let Err(error) = prune(&store, hub.revision(), &mut pruned).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "old changes stay on record for now"
            );
        }
        let waiting = kept.as_ref().is_some_and(Kept::waits);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = std::future::ready(()), if waiting => {}
            ask = trials.asked() => answer(&store, hub, &mut kept, ask).await,
            () = hub.wanted() => {}
            nudge = nudges.changed() => {
                if nudge.is_err() {
                    return;
                }
            }
        }
    }
}

/// Forgets old changes once there are enough of them. `pruned` is up to where that was done.
async fn prune(store: &Store, now: Revision, pruned: &mut Revision) -> Result<(), StoreError> {
    if now.0 < pruned.0 + 2 * CHANGES_KEPT {
        return Ok(());
    }
    let up_to = Revision(now.0 - CHANGES_KEPT);
    let mut tx = store.write().await?;
    store::changes_prune(tx.conn(), up_to).await?;
    tx.commit().await?;
    *pruned = up_to;
    Ok(())
}

/// The rows, and what is kept of the hosts' duties that were made of them.
struct Kept {
    rows: Rows,
    duties: Duties,
}

impl Kept {
    /// Whether hosts wait for their duty.
    fn waits(&self) -> bool {
        self.duties.are_waiting()
    }
}

/// Says which hosts a write would concern.
async fn answer(store: &Store, hub: &Hub, kept: &mut Option<Kept>, ask: Ask) {
    if let Err(error) = look_now(store, hub, kept).await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the rows cannot be read"
        );
        return;
    }
    if let Some(Kept { rows, duties }) = kept {
        let hosts = ask.tried.hosts(rows, duties, hub);
        // Whoever asked may have gone.
        drop(ask.answer.send(hosts));
    }
}

/// Sees to it that rows are kept, as they are now.
async fn look_now(store: &Store, hub: &Hub, kept: &mut Option<Kept>) -> Result<(), StoreError> {
    let now = store::revision(store.read().await?.conn()).await?;
    let known = |kept: &Kept| kept.rows.revision == now && !kept.waits();
    if kept.as_ref().is_some_and(known) {
        return Ok(());
    }
    if hub.hosts_count() > 0 {
        round(store, hub, kept, Instant::now()).await?;
        while kept.as_ref().is_some_and(Kept::waits) {
            round(store, hub, kept, Instant::now()).await?;
        }
        return Ok(());
    }
    // No host has a duty here that would have to be brought up to date with them.
    let mut have = match kept.take() {
        Some(have) => have,
        None => Kept {
            rows: Rows::load(store).await?,
            duties: Duties::new(store.words().is_some()),
        },
    };
    have.rows.update(store).await?;
    *kept = Some(have);
    Ok(())
}

/// Brings the rows and every wanted host's duty up to date.
async fn round(
    store: &Store,
    hub: &Hub,
    kept: &mut Option<Kept>,
    committed: Instant,
) -> Result<(), StoreError> {
    if hub.hosts_count() == 0 {
        // Nobody has anything to do: nothing is read, and no memory taken but for who tries writes.
        let revision = store::revision(store.read().await?.conn()).await?;
        hub.begin(revision);
        hub.finish(revision, Vec::new(), None);
        return Ok(());
    }
    // Rows that an error left half-updated are not used again.
    let (mut now, marks) = match kept.take() {
        None => {
            let rows = Rows::load(store).await?;
            let duties = Duties::new(store.words().is_some());
            (Kept { rows, duties }, Marks::everything())
        }
        Some(mut have) => {
            let marks = have.rows.update(store).await?;
            (have, marks)
        }
    };
    let marks = ports_given(store, &mut now.rows, marks).await?;
    let read = Instant::now();
    now.duties.update(&now.rows, &marks, hub, committed);
    hub.round(Round {
        read: read - committed,
        made: read.elapsed(),
    });
    *kept = Some(now);
    Ok(())
}

/// How often in one round hosts are given ports of gateways' addresses: more only if others come behind a router meanwhile.
const GIVING_ROUNDS_MAX: u32 = 4;

/// Sees to it that hosts which have come behind a router have ports of its gateway's address, before they are told of the
/// router; also those that come while others are given theirs. Answers all marks, with those of what that changed.
async fn ports_given(
    store: &Store,
    rows: &mut Rows,
    mut marks: Marks,
) -> Result<Marks, StoreError> {
    let mut asked = BTreeSet::new();
    for _ in 0..GIVING_ROUNDS_MAX {
        let mut missing = rows.blocks_missing(&rows.translating(&marks));
        // For whom there were none there are none.
        missing.retain(|router, hosts| {
            hosts.retain(|host| !asked.contains(&(*router, host.clone())));
            !hosts.is_empty()
        });
        if missing.is_empty() {
            return Ok(marks);
        }
        match rows.blocks_assign(store, &missing).await {
            Ok(()) => {
                let pairs = missing
                    .into_iter()
                    .flat_map(|(router, hosts)| hosts.into_iter().map(move |host| (router, host)));
                asked.extend(pairs);
            }
            // Another server may have been quicker: then its ports are among what is read now.
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "hosts did not get their ports of a gateway's address; trying again"
            ),
        }
        rows.marks = marks;
        let everything = rows.marks.everything;
        marks = rows.update(store).await?;
        marks.everything |= everything;
    }
    // The next round looks again.
    rows.marks.routers.extend(rows.translating(&marks));
    Ok(marks)
}
