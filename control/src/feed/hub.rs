//! What the feed knows of each host: the snapshots it may be sent, and what its agent says it enforces.
//!
//! Guarantees: everything is bounded (hosts, history, streams); a snapshot's revision moves only when the host's
//! duty changes; nobody waits for a slow reader, because readers ask for what is new when they are ready: the deltas
//! since, merged into one, or the snapshot if those are forgotten. A host's snapshot is changed in place, under its own
//! lock.
//!
//! It computes no snapshot (that is `realize`) and writes nothing to the store (that is `report`). What it knows of
//! agents is lost with the process: they say it again when they reconnect.

use super::host::{Host, Subscription, lock};
use super::latency::Latency;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use weft_model::{
    Epoch, HostName, HostReport, HostSnapshot, Revision, SnapshotDelta, Unsupported, limits,
};

/// Rounds of realize whose cost is remembered.
const ROUNDS_MAX: usize = 1_024;

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

/// What one round of realize cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// To read what changed.
    pub read: Duration,
    /// To bring the hosts' duties up to date.
    pub made: Duration,
}

/// All hosts. Shared by the feed's server, realize and the API.
#[derive(Debug)]
pub struct Hub {
    epoch: Epoch,
    hosts: Mutex<BTreeMap<HostName, Arc<Mutex<Host>>>>,
    /// The newest revision that any snapshot may be at.
    newest: AtomicU64,
    /// The revision up to which every known host's snapshot is computed.
    realized: watch::Sender<Revision>,
    wanted: Notify,
    appeared: Notify,
    latency: Mutex<Latency>,
    /// How many rounds of realize there were, and the last ones, oldest first.
    rounds: Mutex<(u64, VecDeque<Round>)>,
    /// Bytes that streams were sent.
    sent: Arc<AtomicU64>,
    /// Oldest first.
    published: Mutex<VecDeque<Published>>,
}

/// What was told of at once.
#[derive(Debug)]
struct Published {
    /// Everything up to it.
    upto: Revision,
    /// The hosts whose duty changed.
    changed: Vec<HostName>,
    /// The hosts, of other servers' too, whose duty may have changed; none for any.
    may_concern: Option<BTreeSet<HostName>>,
}

impl Hub {
    /// A hub for the database `epoch`, which knows no host yet.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            hosts: Mutex::new(BTreeMap::new()),
            newest: AtomicU64::new(0),
            realized: watch::Sender::new(Revision(0)),
            wanted: Notify::new(),
            appeared: Notify::new(),
            latency: Mutex::new(Latency::default()),
            rounds: Mutex::default(),
            sent: Arc::default(),
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
        lock(&self.hosts).keys().cloned().collect()
    }

    /// Those of them whose agents are connected to this server.
    pub(super) fn hosts_followed(&self) -> BTreeSet<HostName> {
        let hosts = lock(&self.hosts).clone();
        let followed = hosts
            .into_iter()
            .filter(|(_, host)| lock(host).streams.receiver_count() > 0);
        followed.map(|(name, _)| name).collect()
    }

    /// How many those are.
    #[must_use]
    pub fn hosts_count(&self) -> usize {
        lock(&self.hosts).len()
    }

    /// Resolves when a host without a snapshot was asked for since the last call.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Begins to tell of changes up to `revision`; [`Hub::finish`] ends it.
    pub(crate) fn begin(&self, revision: Revision) {
        self.newest.fetch_max(revision.0, Ordering::AcqRel);
    }

    /// Changes a host's snapshot by `change`, which answers what it changed, or none if it left everything as it was.
    /// That is the duty as of `revision`, which was committed at `committed`. None too if there is no snapshot.
    pub(crate) fn update(
        &self,
        host: &HostName,
        revision: Revision,
        committed: Instant,
        change: impl FnOnce(&mut HostSnapshot) -> Option<SnapshotDelta>,
    ) -> Option<Arc<SnapshotDelta>> {
        let host = lock(&self.hosts).get(host)?.clone();
        let mut host = lock(&host);
        let snapshot = host.snapshot.as_mut()?;
        let mut delta = change(snapshot)?;
        delta.from = snapshot.revision;
        delta.to = revision;
        snapshot.revision = revision;
        let delta = Arc::new(delta);
        host.changed(&delta, committed);
        Some(delta)
    }

    /// Whether a host has a snapshot.
    pub(crate) fn has_snapshot(&self, host: &HostName) -> bool {
        let host = lock(&self.hosts).get(host).cloned();
        host.is_some_and(|host| lock(&host).snapshot.is_some())
    }

    /// Looks at a host's snapshot, which may be changed while `look` does and is again what it was when that ends. None if
    /// there is none.
    pub(crate) fn look<T>(
        &self,
        host: &HostName,
        look: impl FnOnce(&mut HostSnapshot) -> T,
    ) -> Option<T> {
        let host = lock(&self.hosts).get(host)?.clone();
        let mut host = lock(&host);
        host.snapshot.as_mut().map(look)
    }

    /// Puts a snapshot, whose revision was committed at `committed`, in the place of the host's. Answers what became
    /// different, or none if that is nothing or nobody asked for the host.
    pub(crate) fn replace(
        &self,
        mut snapshot: HostSnapshot,
        committed: Instant,
    ) -> Option<Arc<SnapshotDelta>> {
        let host = lock(&self.hosts).get(&snapshot.host)?.clone();
        let mut host = lock(&host);
        let Some(last) = &host.snapshot else {
            let none = HostSnapshot::empty(snapshot.host.clone(), snapshot.epoch);
            let all = SnapshotDelta::between(&none, &snapshot);
            host.revision.send_replace(Some(snapshot.revision));
            host.snapshot = Some(snapshot);
            return Some(Arc::new(all));
        };
        let delta = SnapshotDelta::between(last, &snapshot);
        if delta.is_empty() {
            return None;
        }
        std::mem::swap(
            host.snapshot.get_or_insert_with(|| snapshot.clone()),
            &mut snapshot,
        );
        let delta = Arc::new(delta);
        host.changed(&delta, committed);
        Some(delta)
    }

    /// Tells that all hosts' duties are known as of `revision`, whose changed, and whose may have, with those that follow
    /// other servers; none for any.
    pub(crate) fn finish(
        &self,
        revision: Revision,
        changed: Vec<HostName>,
        may_concern: Option<BTreeSet<HostName>>,
    ) {
        let mut published = self.published_lock();
        // Of a revision that was told of already, what it concerned is known.
        if published.back().is_none_or(|last| last.upto < revision) {
            if published.len() == PUBLISHED_MAX {
                published.pop_front();
            }
            published.push_back(Published {
                upto: revision,
                changed,
                may_concern,
            });
        }
        drop(published);
        self.realized.send_if_modified(|realized| {
            let newer = *realized < revision;
            *realized = revision.max(*realized);
            newer
        });
    }

    /// Notes what a round of realize cost.
    pub(crate) fn round(&self, round: Round) {
        let mut rounds = lock(&self.rounds);
        rounds.0 += 1;
        if rounds.1.len() == ROUNDS_MAX {
            rounds.1.pop_front();
        }
        rounds.1.push_back(round);
    }

    /// How many rounds of realize there were, and what the last ones cost, oldest first.
    #[must_use]
    pub fn rounds(&self) -> (u64, Vec<Round>) {
        let rounds = lock(&self.rounds);
        (rounds.0, rounds.1.iter().copied().collect())
    }

    /// Bytes that all streams were sent since the start.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// A host's snapshot as it is.
    #[cfg(test)]
    pub(crate) fn snapshot(&self, host: &HostName) -> Option<HostSnapshot> {
        let host = lock(&self.hosts).get(host)?.clone();
        let host = lock(&host);
        host.snapshot.clone()
    }

    /// Opens a stream; `have` is what the agent says it has.
    pub(crate) fn subscribe(
        &self,
        name: &HostName,
        have: Option<(Epoch, Revision)>,
    ) -> Result<Subscription, HubError> {
        let entry = self.host(name)?;
        let host = lock(&entry);
        let sent = have
            .filter(|(epoch, _)| *epoch == self.epoch)
            .and_then(|(_, revision)| host.changes_at(revision));
        let mut number = 0;
        host.streams.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        Ok(Subscription {
            host: entry.clone(),
            revision: host.revision.subscribe(),
            realized: self.realized.subscribe(),
            sent,
            greeted: false,
            streams: host.streams.subscribe(),
            number,
            bytes: self.sent.clone(),
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
        let newest = Revision(self.newest.load(Ordering::Acquire));
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
        let host = self.host(&report.host)?;
        let mut host = lock(&host);
        if host.reported.replace(now).is_none() {
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
            lock(&self.latency).record(now.saturating_duration_since(committed));
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
        let host = self.host(host)?;
        let mut said = lock(&host).enforced.subscribe();
        let hub = self.clone();
        Ok(async move {
            hub.realized(revision).await;
            loop {
                // The two locks are taken one after the other: `report` holds them nested the other way round.
                let enforced = *said.borrow_and_update();
                let change = lock(&host).change_at(revision);
                if enforced.is_some_and(|enforced| enforced >= change) {
                    return;
                }
                // An error means that the sender is gone, which `host` rules out.
                drop(said.changed().await);
            }
        })
    }

    /// Resolves once all hosts' duties are known as of `revision`.
    pub(super) async fn realized(&self, revision: Revision) {
        let mut realized = self.realized.subscribe();
        // An error means that the sender is gone, which `self` rules out.
        drop(realized.wait_for(|realized| *realized >= revision).await);
    }

    /// The hosts whose duty changed when everything up to `revision` was realized; all if that is forgotten.
    pub(crate) fn concerned(&self, revision: Revision) -> Vec<HostName> {
        let changed = self.published(revision, |published| published.changed.clone());
        changed.unwrap_or_else(|| self.hosts_wanted().into_iter().collect())
    }

    /// The hosts, of other servers' too, whose duty may have changed then; none if any may.
    pub(super) fn may_concern(&self, revision: Revision) -> Option<BTreeSet<HostName>> {
        self.published(revision, |published| published.may_concern.clone())?
    }

    /// What was told when everything up to `revision` was realized; none if that is forgotten.
    fn published<T>(&self, revision: Revision, look: impl FnOnce(&Published) -> T) -> Option<T> {
        let published = self.published_lock();
        let place = published.iter().position(|told| told.upto >= revision)?;
        // The first one that is remembered may hide an earlier one.
        if place == 0 && published.len() == PUBLISHED_MAX {
            return None;
        }
        published.get(place).map(look)
    }

    fn published_lock(&self) -> MutexGuard<'_, VecDeque<Published>> {
        lock(&self.published)
    }

    /// What is known of all hosts, at `now`, in order of their names.
    #[must_use]
    pub fn hosts(&self, now: Instant) -> Vec<HostState> {
        let hosts = lock(&self.hosts).clone();
        let state = |(name, host): (HostName, Arc<Mutex<Host>>)| {
            let host = lock(&host);
            HostState {
                host: name,
                streams: host.streams.receiver_count() as u64,
                revision: *host.revision.borrow(),
                enforced: *host.enforced.borrow(),
                refused: host.refused.clone(),
                unsupported: host.unsupported.clone(),
                reported_ms_ago: host
                    .reported
                    .map(|at| now.saturating_duration_since(at).as_millis()),
            }
        };
        hosts.into_iter().map(state).collect()
    }

    /// The hosts that have reported after `since`, or ever.
    pub(super) fn living(&self, since: Option<Instant>) -> Vec<String> {
        let hosts = lock(&self.hosts).clone();
        let living = hosts.iter().filter_map(|(name, host)| {
            let host = lock(host);
            let reported = host.reported?;
            since
                .is_none_or(|since| reported >= since)
                .then(|| name.to_string())
        });
        living.collect()
    }

    /// Resolves when a host has reported for the first time since the last call.
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
        lock(&self.latency).clone()
    }

    /// The host's entry, made if there is room for one more.
    fn host(&self, name: &HostName) -> Result<Arc<Mutex<Host>>, HubError> {
        let mut hosts = lock(&self.hosts);
        if let Some(host) = hosts.get(name) {
            return Ok(host.clone());
        }
        if hosts.len() >= limits::FEED_HOSTS_MAX {
            return Err(HubError::HostsMax { host: name.clone() });
        }
        self.wanted.notify_one();
        let host = Arc::new(Mutex::new(Host::new()));
        hosts.insert(name.clone(), host.clone());
        Ok(host)
    }
}
