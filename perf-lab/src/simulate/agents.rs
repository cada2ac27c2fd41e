//! Agents whose engines stop before the kernel: the agent's own client of the feed takes snapshots and deltas, checks
//! them and reports; what would enforce them says at once that it does.

use super::cloud;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weft_agent::feed::{self, FeedConfig};
use weft_model::{HostReport, HostSnapshot, PortId, PortReport, PortStatus};

/// Reports of one agent that wait.
const REPORTS_WAITING: usize = 16;

/// Running agents; they end with this value.
pub(crate) struct Agents {
    runtime: Runtime,
    enforcing: Arc<AtomicU64>,
    count: u64,
    shutdown: CancellationToken,
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Agents {
    /// Starts an agent for every name, and does not wait for them.
    pub(crate) fn start(feed: &str, hosts: &[String]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let agents = Self {
            runtime,
            enforcing: Arc::default(),
            count: hosts.len() as u64,
            shutdown: CancellationToken::new(),
        };
        for (n, host) in (0..).zip(hosts) {
            let name = host.parse().with_context(|| host.clone())?;
            let mut config = FeedConfig::new(format!("http://{feed}"), name);
            config.tunnel_ip = Some(cloud::tunnel_ip(n));
            let snapshots = watch::Sender::new(None);
            let (reports, received) = mpsc::channel(REPORTS_WAITING);
            let newest = snapshots.subscribe();
            let shutdown = agents.shutdown.clone();
            agents
                .runtime
                .spawn(feed::run(config, snapshots, received, shutdown));
            agents
                .runtime
                .spawn(enforce(newest, reports, agents.enforcing.clone()));
        }
        Ok(agents)
    }

    /// Waits until all enforce something, telling `progress` how many do.
    pub(crate) fn all_enforce(&self, mut progress: impl FnMut(u64, u64)) {
        loop {
            let now = self.enforcing.load(Ordering::Relaxed);
            progress(now, self.count);
            if now >= self.count {
                return;
            }
            self.runtime
                .block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
        }
    }
}

/// The engine's place.
async fn enforce(
    mut snapshots: watch::Receiver<Option<Arc<HostSnapshot>>>,
    reports: mpsc::Sender<HostReport>,
    enforcing: Arc<AtomicU64>,
) {
    let mut known: Option<BTreeSet<PortId>> = None;
    while snapshots.changed().await.is_ok() {
        let Some(snapshot) = snapshots.borrow_and_update().clone() else {
            continue;
        };
        let full = known.is_none();
        let before = known.take().unwrap_or_default();
        let ports: BTreeSet<PortId> = snapshot.ports.keys().copied().collect();
        let new = ports.difference(&before).map(|id| PortReport {
            port_id: *id,
            status: PortStatus::Active,
            message: String::new(),
        });
        let report = HostReport {
            host: snapshot.host.clone(),
            epoch: snapshot.epoch,
            revision: snapshot.revision,
            ports: new.collect(),
            full,
            refused: None,
            unsupported: Vec::new(),
            vhost_user: None,
            physical_networks: Vec::new(),
            unreachable: None,
            // The feed's client says it.
            tunnel_ip: None,
            claims: Vec::new(),
        };
        known = Some(ports);
        if full {
            enforcing.fetch_add(1, Ordering::Relaxed);
        }
        if reports.send(report).await.is_err() {
            return;
        }
    }
}
