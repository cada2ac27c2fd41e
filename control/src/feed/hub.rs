//! What the feed knows of each host: the snapshots it may be sent, and what its agent says it enforces.
//!
//! Guarantees: everything is bounded (hosts, history, streams); a snapshot's revision moves only when the host's
//! duty changes; nobody waits for a slow reader, because readers look at the newest snapshot when they are ready.
//!
//! It computes no snapshot (that is `realize`) and writes nothing to the store (that is `report`). What it knows of
//! agents is lost with the process: they say it again when they reconnect.

use super::agent::Living;
use super::latency::Latency;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use weft_model::{Epoch, HostName, HostReport, HostSnapshot, Revision, Unsupported, limits};

/// Changes of one host whose enforcement is awaited; beyond it the oldest is forgotten (and not measured).
const AWAITED_MAX: usize = 256;

/// Publications of which it is remembered whose duty they changed.
const PUBLISHED_MAX: usize = 1_024;

/// Why the hub refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// One host too many.
    #[error(
        "this server knows {} hosts already, its limit: host {host} is refused",
        limits::FEED_HOSTS_MAX
    )]
    HostsMax {
        /// Who asked.
        host: HostName,
    },
    /// A report that speaks of another database.
    #[error("a report for epoch {said}, but this database is epoch {ours}: watch the feed again")]
    Epoch {
        /// The report's.
        said: Epoch,
        /// The server's.
        ours: Epoch,
    },
    /// A report of a revision that was never sent.
    #[error("a report for revision {said}, newer than the newest, {newest}: watch the feed again")]
    Revision {
        /// The report's.
        said: Revision,
        /// The server's newest.
        newest: Revision,
    },
}

/// What is known of a host's agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostState {
    /// The host.
    pub host: HostName,
    /// Streams open at the moment; 0 means that its agent is not connected.
    pub streams: u64,
    /// The revision at which its duty changed last, none before it was first computed.
    pub revision: Option<Revision>,
    /// The revision that all its engines enforce, none before its first report.
    pub enforced: Option<Revision>,
    /// The last snapshot or delta that the agent refused, and why; none once it enforces that revision or a later one.
    pub refused: Option<(Revision, String)>,
    /// What its engines do not enforce.
    pub unsupported: Vec<Unsupported>,
    /// Milliseconds since its last report.
    pub reported_ms_ago: Option<u128>,
}

/// All hosts. Shared by the feed's server, realize and the API.
#[derive(Debug)]
pub struct Hub {
    epoch: Epoch,
    hosts: Mutex<BTreeMap<HostName, Host>>,
    /// The revision up to which every known host's snapshot is computed.
    realized: watch::Sender<Revision>,
    wanted: Notify,
    appeared: Notify,
    latency: Mutex<Latency>,
    /// Oldest first: up to which revision, and the hosts whose duty changed.
    published: Mutex<VecDeque<(Revision, Vec<HostName>)>>,
}

/// One host.
#[derive(Debug)]
struct Host {
    snapshot: watch::Sender<Option<Arc<HostSnapshot>>>,
    /// Oldest first; the last one is `snapshot`.
    history: VecDeque<Arc<HostSnapshot>>,
    enforced: watch::Sender<Option<Revision>>,
    refused: Option<(Revision, String)>,
    unsupported: Vec<Unsupported>,
    reported: Option<Instant>,
    physical_networks: Vec<String>,
    /// Changes that are not enforced yet, and when they were committed.
    awaited: VecDeque<(Revision, Instant)>,
    /// The number of the newest stream. A stream whose number is too old ends.
    streams: watch::Sender<u64>,
}

impl Host {
    fn new() -> Self {
        Self {
            snapshot: watch::Sender::new(None),
            history: VecDeque::new(),
            enforced: watch::Sender::new(None),
            refused: None,
            unsupported: Vec::new(),
            reported: None,
            physical_networks: Vec::new(),
            awaited: VecDeque::new(),
            streams: watch::Sender::new(0),
        }
    }

    /// The revision that must be enforced for all of `revision` to be: the last change up to it.
    fn change_at(&self, revision: Revision) -> Revision {
        let known = self.history.iter().rev().map(|snapshot| snapshot.revision);
        known
            .into_iter()
            .find(|at| *at <= revision)
            .unwrap_or(revision)
    }
}

/// What a stream needs of its host.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The newest snapshot.
    pub(crate) snapshot: watch::Receiver<Option<Arc<HostSnapshot>>>,
    /// The revision up to which snapshots are computed.
    pub(super) realized: watch::Receiver<Revision>,
    /// What the agent has, if it can resume.
    pub(super) sent: Option<Arc<HostSnapshot>>,
    streams: watch::Receiver<u64>,
    number: u64,
}

impl Subscription {
    /// Resolves when newer streams of the same host have taken this one's place.
    pub(super) async fn superseded(&mut self) {
        let oldest = self.number + limits::FEED_STREAMS_PER_HOST_MAX;
        // An error means that the hub is gone: the stream ends as well.
        drop(self.streams.wait_for(|newest| *newest >= oldest).await);
    }
}

impl Hub {
    /// A hub for the database `epoch`, which knows no host yet.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            hosts: Mutex::new(BTreeMap::new()),
            realized: watch::Sender::new(Revision(0)),
            wanted: Notify::new(),
            appeared: Notify::new(),
            latency: Mutex::new(Latency::default()),
            published: Mutex::new(VecDeque::new()),
        }
    }

    /// The database that this hub speaks of.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The hosts that snapshots are wanted for: all whose agents ever asked this server.
    #[must_use]
    pub fn hosts_wanted(&self) -> BTreeSet<HostName> {
        self.lock().keys().cloned().collect()
    }

    /// Resolves when a host without a snapshot was asked for since the last call.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Tells that the host's duty is known for the first time or again: all `snapshots` were computed at `revision`,
    /// which was committed at `committed`. Hosts whose duty is as before keep their revision. Snapshots of hosts
    /// that nobody asked for are ignored.
    pub fn publish(&self, revision: Revision, snapshots: Vec<HostSnapshot>, committed: Instant) {
        let mut changed = Vec::new();
        let mut hosts = self.lock();
        for mut snapshot in snapshots {
            let Some(host) = hosts.get_mut(&snapshot.host) else {
                continue;
            };
            if let Some(last) = host.history.back() {
                snapshot.revision = last.revision;
                if **last == snapshot {
                    continue;
                }
                if host.awaited.len() == AWAITED_MAX {
                    host.awaited.pop_front();
                }
                host.awaited.push_back((revision, committed));
            }
            changed.push(snapshot.host.clone());
            snapshot.revision = revision;
            let snapshot = Arc::new(snapshot);
            if host.history.len() == limits::FEED_HISTORY_MAX {
                host.history.pop_front();
            }
            host.history.push_back(snapshot.clone());
            host.snapshot.send_replace(Some(snapshot));
        }
        drop(hosts);
        let mut published = self.published_lock();
        if published.len() == PUBLISHED_MAX {
            published.pop_front();
        }
        published.push_back((revision, changed));
        drop(published);
        self.realized.send_if_modified(|realized| {
            let newer = *realized < revision;
            *realized = revision.max(*realized);
            newer
        });
    }

    /// Opens a stream; `have` is what the agent says it has.
    pub(crate) fn subscribe(
        &self,
        name: &HostName,
        have: Option<(Epoch, Revision)>,
    ) -> Result<Subscription, HubError> {
        let mut hosts = self.lock();
        let host = self.host(&mut hosts, name)?;
        let sent = have
            .filter(|(epoch, _)| *epoch == self.epoch)
            .and_then(|(_, revision)| {
                host.history
                    .iter()
                    .find(|snapshot| snapshot.revision == revision)
                    .cloned()
            });
        let mut number = 0;
        host.streams.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        Ok(Subscription {
            snapshot: host.snapshot.subscribe(),
            realized: self.realized.subscribe(),
            sent,
            streams: host.streams.subscribe(),
            number,
        })
    }

    /// Whether a report can be believed.
    ///
    /// # Errors
    /// The agent speaks of another database or of a revision that this server never had.
    pub(super) fn report_check(&self, report: &HostReport) -> Result<(), HubError> {
        if report.epoch != self.epoch {
            return Err(HubError::Epoch {
                said: report.epoch,
                ours: self.epoch,
            });
        }
        let newest = *self.realized.borrow();
        if report.revision > newest {
            return Err(HubError::Revision {
                said: report.revision,
                newest,
            });
        }
        Ok(())
    }

    /// Notes what an agent says, at `now`, after [`Hub::report_check`].
    ///
    /// # Errors
    /// One host too many.
    pub(super) fn report(&self, report: &HostReport, now: Instant) -> Result<(), HubError> {
        let mut hosts = self.lock();
        let host = self.host(&mut hosts, &report.host)?;
        if host.reported.replace(now).is_none()
            || host.physical_networks != report.physical_networks
        {
            host.physical_networks.clone_from(&report.physical_networks);
            self.appeared.notify_one();
        }
        host.unsupported.clone_from(&report.unsupported);
        host.refused = match (&report.refused, host.refused.take()) {
            (Some(refused), _) => Some(refused.clone()),
            (None, old) => old.filter(|(revision, _)| *revision > report.revision),
        };
        while let Some((_, committed)) = host
            .awaited
            .pop_front_if(|(revision, _)| *revision <= report.revision)
        {
            let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
            latency.record(now.saturating_duration_since(committed));
        }
        host.enforced.send_replace(Some(report.revision));
        Ok(())
    }

    /// Resolves once `host` enforces all that was committed up to `revision`. It never resolves for a host that
    /// has no agent: the caller brings the deadline.
    ///
    /// # Errors
    /// One host too many.
    pub fn enforced(
        self: &Arc<Self>,
        host: &HostName,
        revision: Revision,
    ) -> Result<impl Future<Output = ()> + Send + use<>, HubError> {
        let mut said = self.host(&mut self.lock(), host)?.enforced.subscribe();
        let (hub, host) = (self.clone(), host.clone());
        Ok(async move {
            let mut realized = hub.realized.subscribe();
            // Errors mean that a sender is gone, which `hub` rules out.
            drop(realized.wait_for(|realized| *realized >= revision).await);
            loop {
                // The two locks are taken one after the other: `report` holds them nested the other way round.
                let enforced = *said.borrow_and_update();
                let change = hub.lock().get(&host).map(|host| host.change_at(revision));
                if enforced.is_some_and(|enforced| change.is_some_and(|change| enforced >= change))
                {
                    return;
                }
                drop(said.changed().await);
            }
        })
    }

    /// Those of the hosts that a write concerns, and of `bound`, that have not said until `deadline` that they enforce
    /// it; `revision` is the write's.
    pub async fn late(
        self: &Arc<Self>,
        revision: Revision,
        bound: BTreeSet<HostName>,
        deadline: Instant,
    ) -> BTreeSet<HostName> {
        let mut realized = self.realized.subscribe();
        let known = realized.wait_for(|realized| *realized >= revision);
        if tokio::time::timeout_at(deadline, known).await.is_err() {
            // Nobody knows yet whom it concerns.
            return self.hosts_wanted().into_iter().chain(bound).collect();
        }
        let concerned = bound.into_iter().chain(self.concerned(revision));
        let concerned: BTreeSet<HostName> = concerned.collect();
        let waits = concerned.into_iter().map(|host| async {
            let done = match self.enforced(&host, revision) {
                Ok(enforced) => tokio::time::timeout_at(deadline, enforced).await.is_ok(),
                Err(_one_host_too_many) => false,
            };
            (!done).then_some(host)
        });
        let late = futures_util::future::join_all(waits).await;
        late.into_iter().flatten().collect()
    }

    /// The hosts whose duty changed when everything up to `revision` was realized; all if that is forgotten.
    fn concerned(&self, revision: Revision) -> Vec<HostName> {
        let published = self.published_lock();
        let found = published.iter().position(|(upto, _)| *upto >= revision);
        match found {
            // The first one that is remembered may hide an earlier one.
            Some(0) if published.len() == PUBLISHED_MAX => {}
            Some(place) => {
                let entry = published.get(place);
                return entry.map(|(_, hosts)| hosts.clone()).unwrap_or_default();
            }
            None => {}
        }
        drop(published);
        self.hosts_wanted().into_iter().collect()
    }

    fn published_lock(&self) -> MutexGuard<'_, VecDeque<(Revision, Vec<HostName>)>> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of all hosts, at `now`, in order of their names.
    #[must_use]
    pub fn hosts(&self, now: Instant) -> Vec<HostState> {
        let state = |(name, host): (&HostName, &Host)| HostState {
            host: name.clone(),
            streams: host.streams.receiver_count() as u64,
            revision: host.history.back().map(|snapshot| snapshot.revision),
            enforced: *host.enforced.borrow(),
            refused: host.refused.clone(),
            unsupported: host.unsupported.clone(),
            reported_ms_ago: host
                .reported
                .map(|at| now.saturating_duration_since(at).as_millis()),
        };
        self.lock().iter().map(state).collect()
    }

    /// The hosts that have reported after `since`, or ever.
    pub(super) fn living(&self, since: Option<Instant>) -> Vec<Living> {
        let hosts = self.lock();
        let living = hosts.iter().filter(|(_, host)| match since {
            Some(since) => host.reported.is_some_and(|at| at >= since),
            None => host.reported.is_some(),
        });
        living
            .map(|(name, host)| Living {
                host: name.to_string(),
                physical_networks: host.physical_networks.clone(),
            })
            .collect()
    }

    /// Resolves when a host has reported for the first time, or something else of itself, since the last call.
    pub(super) async fn appeared(&self) {
        self.appeared.notified().await;
    }

    /// The newest revision that all snapshots are computed up to.
    #[must_use]
    pub fn revision(&self) -> Revision {
        *self.realized.borrow()
    }

    /// How long it took from a commit to the report that it is enforced.
    #[must_use]
    pub fn latency(&self) -> Latency {
        self.latency
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The host's entry, made if there is room for one more.
    fn host<'a>(
        &self,
        hosts: &'a mut BTreeMap<HostName, Host>,
        name: &HostName,
    ) -> Result<&'a mut Host, HubError> {
        if !hosts.contains_key(name) {
            if hosts.len() >= limits::FEED_HOSTS_MAX {
                return Err(HubError::HostsMax { host: name.clone() });
            }
            self.wanted.notify_one();
        }
        Ok(hosts.entry(name.clone()).or_insert_with(Host::new))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostName, Host>> {
        // A panic cannot leave the map half-written: every change is one assignment.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
