//! What is counted of a port. Each worker counts for itself, any thread may read the sum.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use weft_model::DropReason;
use weft_model::limits::DROP_REASONS_MAX;

/// Counters of one port.
#[derive(Debug)]
pub struct PortCounters {
    /// By worker.
    counted: Box<[Counted]>,
}

/// What one worker has counted, on lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Counted {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    drops: [AtomicU64; DROP_REASONS_MAX],
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            rx_packets: AtomicU64::new(0),
            rx_bytes: AtomicU64::new(0),
            tx_packets: AtomicU64::new(0),
            tx_bytes: AtomicU64::new(0),
            drops: [const { AtomicU64::new(0) }; DROP_REASONS_MAX],
        }
    }
}

/// Counters of one port, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortTotals {
    /// Packets that came from it.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets that were sent to it.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// What came from it and was dropped, by reason; only what was seen.
    pub drops: BTreeMap<DropReason, u64>,
}

/// Only one thread counts, so that no locked instruction is needed.
fn add(counter: &AtomicU64, count: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(count);
    counter.store(sum, Ordering::Relaxed);
}

impl Counted {
    pub(super) fn received(&self, packets: u64, bytes: u64) {
        add(&self.rx_packets, packets);
        add(&self.rx_bytes, bytes);
    }

    pub(super) fn sent(&self, packets: u64, bytes: u64) {
        add(&self.tx_packets, packets);
        add(&self.tx_bytes, bytes);
    }

    pub(super) fn dropped(&self, reason: DropReason, count: u64) {
        if let Some(counter) = self.drops.get(usize::from(reason.number())) {
            add(counter, count);
        }
    }
}

impl PortCounters {
    /// For so many workers.
    #[must_use]
    pub(super) fn new(workers: usize) -> Self {
        Self {
            counted: (0..workers).map(|_| Counted::default()).collect(),
        }
    }

    /// What a worker counts in; there is one for each.
    #[inline]
    pub(super) fn of(&self, worker: usize) -> Option<&Counted> {
        self.counted.get(worker)
    }

    /// All of them now.
    #[must_use]
    pub fn totals(&self) -> PortTotals {
        let sum = |of: &dyn Fn(&Counted) -> Option<&AtomicU64>| {
            let all = self.counted.iter().filter_map(of);
            all.map(|counter| counter.load(Ordering::Relaxed)).sum()
        };
        let dropped = |number: u8| {
            let count: u64 = sum(&|counted| counted.drops.get(usize::from(number)));
            Some((DropReason::from_number(number)?, count))
        };
        PortTotals {
            rx_packets: sum(&|counted| Some(&counted.rx_packets)),
            rx_bytes: sum(&|counted| Some(&counted.rx_bytes)),
            tx_packets: sum(&|counted| Some(&counted.tx_packets)),
            tx_bytes: sum(&|counted| Some(&counted.tx_bytes)),
            drops: (0..=u8::MAX)
                .take(DROP_REASONS_MAX)
                .filter_map(dropped)
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}
