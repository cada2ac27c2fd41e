//! Keeps the agents that the API shows: the first report of a host makes them, every further one shows that they are
//! alive, and a host that does not report for [`limits::FEED_REPORT_MISSED_MS`] has dead ones.
//!
//! One writer's turn every few seconds serves all hosts, so that what is shown may be that much old. Several servers
//! each write of the hosts that report to them; all of them look for the dead.

use super::hub::Hub;
use crate::app::agent::TYPES;
use crate::store::agent::{AgentRow, agent_list_hosts, agents_alive, agents_dead, agents_missing};
use crate::store::{self, Store, StoreError};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_model::limits;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// Keeps them until `shutdown` is cancelled.
pub(crate) async fn run(store: Store, hub: &Hub, shutdown: CancellationToken) {
    let mut since = None;
    loop {
        let now = Instant::now();
        match look(&store, hub.living(since)).await {
            Ok(()) => since = Some(now),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "the agents' signs of life are not stored; trying again"
                );
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = hub.appeared() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Writes what has changed.
async fn look(store: &Store, living: Vec<String>) -> Result<(), StoreError> {
    let missed = i64::try_from(limits::FEED_REPORT_MISSED_MS * 1_000).unwrap_or(i64::MAX);
    let then = store.now() - missed;
    let mut read = store.read().await?;
    let missing = agents_missing(read.conn(), then).await?;
    drop(read);
    if living.is_empty() && !missing {
        return Ok(());
    }
    let mut tx = store.write().await?;
    let now = tx.now();
    let hosts: Vec<&str> = living.iter().map(String::as_str).collect();
    let known = agent_list_hosts(tx.conn(), &hosts).await?;
    let known = known.into_iter().map(|row| (row.host, row.agent_type));
    let known: HashSet<(String, String)> = known.collect();
    let mut new: Vec<(String, String)> = Vec::new();
    for host in &living {
        new.extend(TYPES.iter().map(|kind| (host.clone(), (*kind).to_owned())));
    }
    new.retain(|key| !known.contains(key));
    for (host, agent_type) in new {
        let mut row = AgentRow {
            id: Uuid::new_v4().to_string(),
            host,
            agent_type,
            admin_state_up: true,
            alive: true,
            started_at: now,
            heartbeat_at: now,
            ..AgentRow::default()
        };
        store::insert(&mut tx, &mut row).await?;
    }
    agents_alive(&mut tx, &hosts, now).await?;
    if missing {
        agents_dead(&mut tx, then).await?;
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Durability;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    /// Whether all agents of the host are alive, since when, and when they were heard of last; in microseconds.
    async fn shown(store: &Store) -> Vec<(bool, i64, i64)> {
        let mut read = store.read().await.unwrap();
        let rows = agent_list_hosts(read.conn(), &["h1"]).await.unwrap();
        assert_eq!(rows.len(), TYPES.len());
        let mut said: Vec<_> = rows
            .iter()
            .map(|row| (row.alive, row.started_at, row.heartbeat_at))
            .collect();
        said.dedup();
        said
    }

    #[tokio::test]
    async fn an_agent_is_dead_after_75_seconds_without_a_report() {
        const MISSED_US: i64 = 75_000_000;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weft.sqlite");
        let time = Arc::new(AtomicI64::new(1_000));
        let clock = time.clone();
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let store = Store::open(&file, Durability::Process, clock)
            .await
            .unwrap();
        let living = vec!["h1".to_owned()];
        look(&store, living.clone()).await.unwrap();
        assert_eq!(shown(&store).await, [(true, 1_000, 1_000)]);
        time.store(1_000 + MISSED_US, Ordering::Relaxed);
        look(&store, Vec::new()).await.unwrap();
        assert_eq!(shown(&store).await, [(true, 1_000, 1_000)]);
        time.store(1_001 + MISSED_US, Ordering::Relaxed);
        look(&store, Vec::new()).await.unwrap();
        assert_eq!(shown(&store).await, [(false, 1_000, 1_000)]);
        // It is heard of again.
        let back = 2 * MISSED_US;
        time.store(back, Ordering::Relaxed);
        look(&store, living).await.unwrap();
        assert_eq!(shown(&store).await, [(true, back, back)]);
    }
}
