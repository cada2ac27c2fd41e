//! What the protocol's thread and the workers share of a port: its queues, each behind a lock of its own.
//!
//! Guarantees: a ring is taken away only while no worker is inside, so that GET_VRING_BASE tells the truth. A worker holds
//! the lock of one queue to read from and, inside of it, of one to write to, and never two of a kind: no circle.

use crate::dirty::QueueLog;
use crate::memory::Regions;
use crate::protocol::feature::Accepts;
use crate::ring::Ring;
use rustix::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Queue pairs of one port.
pub const QUEUE_PAIRS_MAX: usize = 8;

/// One virtqueue.
#[derive(Debug, Default)]
pub struct Queue {
    /// The ring, while it runs.
    pub ring: Option<Ring>,
    /// Whether packets may pass.
    pub enabled: bool,
    /// The guest's memory.
    pub memory: Arc<Regions>,
    /// Tells the guest.
    pub call: Option<OwnedFd>,
    /// The guest tells us.
    pub kick: Option<Arc<OwnedFd>>,
    /// Bytes of the header before each frame.
    pub header_bytes: u8,
    /// Whether a frame may take several buffers (VIRTIO_NET_F_MRG_RXBUF).
    pub mergeable: bool,
    /// Whether the guest may leave work on frames undone: if not, what it says of that is not looked at.
    pub loads: bool,
    /// Work on frames that the guest takes upon itself.
    pub accepts: Accepts,
    /// Where it is told which pages are written, while the guest is moved.
    pub log: Option<QueueLog>,
}

impl Queue {
    /// Asks the guest to tell of what it sends, or not to, and says whether something is there already.
    pub fn kicks_ask(&mut self, wanted: bool) -> bool {
        let Some(ring) = &mut self.ring else {
            return false;
        };
        ring.kicks_ask(wanted);
        if let Some(log) = &self.log {
            log.ring_written();
        }
        ring.has_available()
    }
}

/// A port's queues.
#[derive(Debug)]
pub struct PortQueues {
    queues: Vec<Mutex<Queue>>,
    changes: AtomicU64,
    broken: Mutex<Option<String>>,
    /// Wake whoever polls.
    bells: OnceLock<Vec<Arc<OwnedFd>>>,
}

impl Default for PortQueues {
    fn default() -> Self {
        Self {
            queues: (0..2 * QUEUE_PAIRS_MAX).map(|_| Mutex::default()).collect(),
            changes: AtomicU64::new(0),
            broken: Mutex::new(None),
            bells: OnceLock::new(),
        }
    }
}

impl PortQueues {
    /// How many there are: pairs of one that the guest receives from, and one that it sends to.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// Whether there are none: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// A queue, locked; none if there is none of this number. Even ones go to the guest, odd ones come from it.
    pub fn lock(&self, index: usize) -> Option<MutexGuard<'_, Queue>> {
        // Whoever panicked left a queue as it was before or after one chain: it can go on.
        let queue = self.queues.get(index)?;
        Some(queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number that is another one after every change of what runs.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Says that something has changed, and wakes whoever polls: it does not wait for a kick of a ring that it has not seen.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        for bell in self.bells.get().into_iter().flatten() {
            // A counter that is full has told already.
            let _full = rustix::io::write(&**bell, &1u64.to_ne_bytes());
        }
    }

    /// From now on every change wakes whoever waits for these; the first ones count.
    pub(crate) fn bells_use(&self, bells: &[Arc<OwnedFd>]) {
        self.bells.get_or_init(|| bells.to_vec());
    }

    /// Shuts the port down, because its guest broke the rules.
    pub fn shut(&self, reason: String) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.is_none() {
            *broken = Some(reason);
        }
        self.changed();
    }

    /// Why the port is shut down, if it is.
    #[must_use]
    pub fn shut_reason(&self) -> Option<String> {
        (self.broken.lock().unwrap_or_else(PoisonError::into_inner)).clone()
    }

    /// A new front-end starts from nothing.
    pub fn reset(&self) {
        for queue in &self.queues {
            *queue.lock().unwrap_or_else(PoisonError::into_inner) = Queue::default();
        }
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.changed();
    }
}
