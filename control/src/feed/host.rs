//! What is kept of one host: its snapshot, the changes that led there, what its agent says, and what a stream needs of that.
//!
//! Guarantees: history and what is awaited are bounded; a stream is told what changed since it was told last, merged into one
//! change, or the snapshot if that is forgotten.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_model::{FeedMessage, HostSnapshot, Revision, SnapshotDelta, Unsupported, limits};

/// Changes of one host whose enforcement is awaited; beyond it the oldest is forgotten (and not measured).
const AWAITED_MAX: usize = 256;

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) snapshot: Option<HostSnapshot>,
    /// Oldest first, without a gap; the last one leads to `snapshot`.
    pub(super) history: VecDeque<Arc<SnapshotDelta>>,
    /// Entries of all deltas in `history`.
    pub(super) history_entries: usize,
    /// Changes that `snapshot` has had. A revision does not number them: a host that joins may change another's duty.
    pub(super) changes: u64,
    /// The revision of `snapshot`.
    pub(super) revision: watch::Sender<Option<Revision>>,
    pub(super) enforced: watch::Sender<Option<Revision>>,
    pub(super) refused: Option<(Revision, String)>,
    pub(super) unsupported: Vec<Unsupported>,
    pub(super) reported: Option<Instant>,
    /// Changes that are not enforced yet, and when they were committed.
    pub(super) awaited: VecDeque<(Revision, Instant)>,
    /// The number of the newest stream. A stream whose number is too old ends.
    pub(super) streams: watch::Sender<u64>,
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            snapshot: None,
            history: VecDeque::new(),
            history_entries: 0,
            changes: 0,
            revision: watch::Sender::new(None),
            enforced: watch::Sender::new(None),
            refused: None,
            unsupported: Vec::new(),
            reported: None,
            awaited: VecDeque::new(),
            streams: watch::Sender::new(0),
        }
    }

    /// The revision that must be enforced for all of `revision` to be: the last change up to it.
    pub(super) fn change_at(&self, revision: Revision) -> Revision {
        let mut known = self.history.iter().rev().map(|delta| delta.to);
        let oldest = self.history.front().map(|delta| delta.from);
        let oldest = oldest.or(*self.revision.borrow());
        known
            .find(|at| *at <= revision)
            .or(oldest.filter(|at| *at <= revision))
            .unwrap_or(revision)
    }

    /// Notes a change that `snapshot` has had.
    pub(super) fn changed(&mut self, delta: &Arc<SnapshotDelta>, committed: Instant) {
        self.changes += 1;
        self.history_entries += delta.len();
        self.history.push_back(delta.clone());
        while self.history.len() > limits::FEED_HISTORY_MAX
            || self.history_entries > limits::FEED_HISTORY_ENTRIES_MAX
        {
            let Some(oldest) = self.history.pop_front() else {
                break;
            };
            self.history_entries -= oldest.len();
        }
        if self.awaited.len() == AWAITED_MAX {
            self.awaited.pop_front();
        }
        self.awaited.push_back((delta.to, committed));
        self.revision.send_replace(Some(delta.to));
    }

    /// The deltas after so many changes; none if they are forgotten.
    pub(super) fn deltas_after(&self, changes: u64) -> Option<Vec<Arc<SnapshotDelta>>> {
        let first = self.place_after(changes)?;
        Some(self.history.range(first..).cloned().collect())
    }

    /// Where in `history` the first of them is.
    fn place_after(&self, changes: u64) -> Option<usize> {
        let missing = usize::try_from(self.changes.checked_sub(changes)?).ok()?;
        self.history.len().checked_sub(missing)
    }

    /// After how many changes the snapshot had a revision; none if that is forgotten, or not certain.
    pub(super) fn changes_at(&self, revision: Revision) -> Option<u64> {
        let stays = |delta: &Arc<SnapshotDelta>| delta.from == revision && delta.to == revision;
        if self.history.iter().any(stays) {
            return None;
        }
        if self.snapshot.as_ref()?.revision == revision {
            return Some(self.changes);
        }
        let first = self
            .history
            .iter()
            .position(|delta| delta.from == revision)?;
        Some(self.changes - (self.history.len() - first) as u64)
    }
}

/// What a stream needs of its host.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(super) host: Arc<Mutex<Host>>,
    /// The revision of the newest snapshot.
    pub(crate) revision: watch::Receiver<Option<Revision>>,
    /// The revision up to which snapshots are computed.
    pub(super) realized: watch::Receiver<Revision>,
    /// After how many changes the agent is.
    pub(super) sent: Option<u64>,
    /// Whether the agent was told that it is up to date.
    pub(super) greeted: bool,
    pub(super) streams: watch::Receiver<u64>,
    pub(super) number: u64,
    /// The hub's count.
    pub(super) bytes: Arc<AtomicU64>,
}

impl Subscription {
    /// Counts what is sent.
    pub(super) fn sending(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Resolves when newer streams of the same host have taken this one's place.
    pub(super) async fn superseded(&mut self) {
        let oldest = self.number + limits::FEED_STREAMS_PER_HOST_MAX;
        // An error means that the hub is gone: the stream ends as well.
        drop(self.streams.wait_for(|newest| *newest >= oldest).await);
    }

    /// Whether what the agent must be told now is the whole snapshot.
    pub(super) fn whole_is_due(&self) -> bool {
        let host = lock(&self.host);
        let place = self.sent.and_then(|sent| host.place_after(sent));
        host.snapshot.is_some() && place.is_none()
    }

    /// What the agent must be told now, if anything; it will have been told.
    pub(crate) fn message(&mut self) -> Option<FeedMessage> {
        self.revision.borrow_and_update();
        let host = lock(&self.host);
        let snapshot = host.snapshot.as_ref()?;
        let deltas = self.sent.and_then(|sent| host.deltas_after(sent));
        self.sent = Some(host.changes);
        let message = match deltas {
            None => FeedMessage::Snapshot(Box::new(snapshot.clone())),
            Some(deltas) => {
                drop(host);
                let mut deltas = deltas.into_iter();
                match deltas.next() {
                    None if self.greeted => return None,
                    None => FeedMessage::Heartbeat {
                        revision: *self.realized.borrow(),
                    },
                    Some(first) => {
                        let mut all = Arc::unwrap_or_clone(first);
                        deltas.for_each(|later| all.merge(&later));
                        FeedMessage::Delta(Box::new(all))
                    }
                }
            }
        };
        self.greeted = true;
        Some(message)
    }
}

/// A panic cannot leave a host half-written but for its snapshot, and an agent checks what it is sent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
