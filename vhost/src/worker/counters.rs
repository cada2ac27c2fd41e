//! What is counted of a port. One thread counts, any may read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use weft_model::DropReason;
use weft_model::limits::DROP_REASONS_MAX;

/// Counters of one port.
#[derive(Debug)]
pub struct PortCounters {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    drops: [AtomicU64; DROP_REASONS_MAX],
}

impl Default for PortCounters {
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

impl PortCounters {
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

    /// All of them now.
    #[must_use]
    pub fn totals(&self) -> PortTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let reason = |number: usize| DropReason::from_number(u8::try_from(number).ok()?);
        let drops = self.drops.iter().enumerate();
        PortTotals {
            rx_packets: read(&self.rx_packets),
            rx_bytes: read(&self.rx_bytes),
            tx_packets: read(&self.tx_packets),
            tx_bytes: read(&self.tx_bytes),
            drops: drops
                .filter_map(|(number, counter)| Some((reason(number)?, read(counter))))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}
