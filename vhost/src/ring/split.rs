//! Split rings (virtio 1.2, 2.7).

use super::{
    CHAIN_DESCRIPTORS_MAX, Chain, DESCRIPTOR_BYTES, Descriptor, Direction, FLAG_INDIRECT,
    FLAG_NEXT, Parts, RING_SIZE_MAX, RingError, RingFeatures, SetupError, Taken, part_bytes,
};
use crate::memory::{Piece, Regions};
use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

/// In the available ring: the driver wants no notification.
const NO_INTERRUPT: u16 = 1;
/// In the used ring: the device wants none.
const NO_NOTIFY: u16 = 1;
/// Where indices and elements are.
const INDEX: usize = 2;
const ELEMENTS: usize = 4;

/// A split ring.
#[derive(Clone, Debug)]
pub struct SplitRing {
    size: u16,
    features: RingFeatures,
    parts: Parts,
    hint: Cell<usize>,
    /// The next chain to take; the driver has made available what is before `available`.
    next: u16,
    available: u16,
    /// The next used element; what is before `published` was shown.
    used: u16,
    published: u16,
}

impl SplitRing {
    /// A ring whose next chain is the one at `base`.
    ///
    /// # Errors
    /// It cannot be one.
    pub fn new(
        size: u16,
        features: RingFeatures,
        parts: Parts,
        base: u16,
    ) -> Result<Self, SetupError> {
        if !size.is_power_of_two() || size > RING_SIZE_MAX {
            return Err(SetupError::Size(size));
        }
        let [descriptors, driver, device] = part_bytes(false, size);
        let checks = [
            ("descriptor table", &parts.descriptors, descriptors, 16),
            ("available ring", &parts.driver, driver, 2),
            ("used ring", &parts.device, device, 4),
        ];
        for (name, window, bytes, alignment) in checks {
            if window.bytes() < bytes || !window.is_aligned(alignment) {
                return Err(SetupError::Place(name));
            }
        }
        // What was taken and not given back before a restart is between the used index and the base: it is offered again
        // because the frontend then starts at the used index.
        let used = parts.device.u16(INDEX, Relaxed);
        Ok(Self {
            size,
            features,
            parts,
            hint: Cell::new(0),
            next: base,
            available: base,
            used,
            published: used,
        })
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    fn descriptor(&self, at: u16) -> Result<Descriptor, RingError> {
        if at >= self.size {
            return Err(RingError::DescriptorIndex(at));
        }
        let offset = usize::from(at) * DESCRIPTOR_BYTES;
        let table = &self.parts.descriptors;
        Ok(Descriptor::new(
            table.u64(offset, Relaxed),
            table.u64(offset + 8, Relaxed),
        ))
    }

    #[inline]
    pub(super) fn take(
        &mut self,
        direction: Direction,
        memory: &Regions,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Taken>, RingError> {
        if self.next == self.available {
            let to = self.parts.driver.u16(INDEX, Acquire);
            if to == self.next {
                return Ok(None);
            }
            if to.wrapping_sub(self.next) > self.size {
                return Err(RingError::AvailableIndex {
                    from: self.next,
                    to,
                    size: self.size,
                });
            }
            self.available = to;
        }
        let head = (self.parts.driver).u16(ELEMENTS + 2 * self.slot(self.next), Relaxed);
        let mut chain = Chain::new(direction, memory, &self.hint, pieces);
        chain.taken.id = head;
        chain.taken.slots = 1;
        let limit = self.size.min(CHAIN_DESCRIPTORS_MAX);
        let mut at = head;
        loop {
            let descriptor = self.descriptor(at)?;
            let (flags, next) = (descriptor.low, descriptor.high);
            if flags & FLAG_INDIRECT != 0 {
                if !self.features.indirect || flags & FLAG_NEXT != 0 {
                    return Err(RingError::Indirect);
                }
                chain.add_table(&descriptor, true)?;
                break;
            }
            chain.add(&descriptor, flags, limit)?;
            if flags & FLAG_NEXT == 0 {
                break;
            }
            at = next;
        }
        self.next = self.next.wrapping_add(1);
        Ok(Some(chain.taken))
    }

    pub(super) fn untake(&mut self, chains: usize) {
        let chains = u16::try_from(chains).unwrap_or(self.size);
        self.next = self.next.wrapping_sub(chains);
    }

    #[inline]
    pub(super) fn give(&mut self, taken: &Taken, written: u32) {
        let at = ELEMENTS + 8 * self.slot(self.used);
        self.parts.device.u32_put(at, u32::from(taken.id), Relaxed);
        self.parts.device.u32_put(at + 4, written, Relaxed);
        self.used = self.used.wrapping_add(1);
    }

    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.used);
        if old == new {
            return false;
        }
        self.parts.device.u16_put(INDEX, new, Release);
        self.published = new;
        // The index must be seen before we look at what the driver wants: it looks in the other order.
        fence(SeqCst);
        if self.features.event_index {
            let event = (self.parts.driver).u16(ELEMENTS + 2 * usize::from(self.size), Relaxed);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.parts.driver.u16(0, Relaxed) & NO_INTERRUPT == 0
        }
    }

    pub(super) fn kicks_ask(&mut self, wanted: bool) {
        if self.features.event_index {
            // An event in the past comes once in 65,536 chains: as good as never.
            let event = if wanted {
                self.next
            } else {
                self.next.wrapping_sub(1)
            };
            let at = ELEMENTS + 8 * usize::from(self.size);
            self.parts.device.u16_put(at, event, Relaxed);
        } else {
            let flags = if wanted { 0 } else { NO_NOTIFY };
            self.parts.device.u16_put(0, flags, Relaxed);
        }
        fence(SeqCst);
    }

    pub(super) fn has_available(&self) -> bool {
        self.next != self.available || self.parts.driver.u16(INDEX, Acquire) != self.next
    }

    pub(super) fn base(&self) -> u32 {
        u32::from(self.next)
    }
}
