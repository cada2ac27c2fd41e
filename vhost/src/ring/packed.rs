//! Packed rings (virtio 1.2, 2.8).

use super::{
    CHAIN_DESCRIPTORS_MAX, Chain, DESCRIPTOR_BYTES, Descriptor, Direction, FLAG_INDIRECT,
    FLAG_NEXT, FLAG_WRITE, Parts, RING_SIZE_MAX, RingError, RingFeatures, SetupError, Taken,
    part_bytes,
};
use crate::inflight::Notes;
use crate::memory::{Piece, Regions, fence};
use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

const FLAG_AVAILABLE: u16 = 1 << 7;
const FLAG_USED: u16 = 1 << 15;
/// Event suppression: always, never, at one descriptor.
const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESCRIPTOR: u16 = 2;

/// A place in the ring, and how often it was round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    at: u16,
    wrap: bool,
}

impl Place {
    fn from_bits(bits: u16) -> Self {
        Self {
            at: bits & 0x7fff,
            wrap: bits & 0x8000 != 0,
        }
    }

    fn bits(self) -> u16 {
        self.at | u16::from(self.wrap) << 15
    }

    fn ahead(self, slots: u16, size: u16) -> Self {
        let at = u32::from(self.at) + u32::from(slots);
        let round = at >= u32::from(size);
        let at = if round { at - u32::from(size) } else { at };
        Self {
            at: u16::try_from(at).unwrap_or(0),
            wrap: self.wrap != round,
        }
    }

    fn back(self, slots: u16, size: u16) -> Self {
        let round = self.at < slots;
        let at = u32::from(self.at) + if round { u32::from(size) } else { 0 };
        Self {
            at: u16::try_from(at.saturating_sub(u32::from(slots))).unwrap_or(0),
            wrap: self.wrap != round,
        }
    }
}

/// A packed ring.
#[derive(Clone, Debug)]
pub struct PackedRing {
    size: u16,
    features: RingFeatures,
    parts: Parts,
    hint: Cell<usize>,
    next: Place,
    used: Place,
    published: Place,
    notes: Option<Box<Notes>>,
}

impl PackedRing {
    /// A ring that goes on at `base`: the next chain in the lower half, the next used descriptor in the upper.
    ///
    /// # Errors
    /// It cannot be one.
    pub fn new(
        size: u16,
        features: RingFeatures,
        parts: Parts,
        base: u32,
    ) -> Result<Self, SetupError> {
        let [a, b, c, d] = base.to_le_bytes();
        let next = Place::from_bits(u16::from_le_bytes([a, b]));
        let used = Place::from_bits(u16::from_le_bytes([c, d]));
        if size == 0 || size > RING_SIZE_MAX || next.at >= size || used.at >= size {
            return Err(SetupError::Size(size));
        }
        let [descriptors, driver, device] = part_bytes(true, size);
        let checks = [
            ("descriptor ring", &parts.descriptors, descriptors, 16),
            ("driver's event suppression", &parts.driver, driver, 4),
            ("device's event suppression", &parts.device, device, 4),
        ];
        for (name, window, bytes, alignment) in checks {
            if window.bytes() < bytes || !window.is_aligned(alignment) {
                return Err(SetupError::Place(name));
            }
        }
        Ok(Self {
            size,
            features,
            parts,
            hint: Cell::new(0),
            next,
            used,
            published: used,
            notes: None,
        })
    }

    pub(super) fn note_in(&mut self, notes: Notes, recover: bool) -> Result<(), SetupError> {
        let told = (self.used.at, self.used.wrap);
        let is_given = |(at, wrap): (u16, bool)| {
            // The driver may have offered it anew: it leaves this bit as the device has written it.
            let flags = self.parts.descriptors.u16(Self::flags_at(at), Acquire);
            (flags & FLAG_USED != 0) == wrap
        };
        let (at, wrap) = notes.packed_begin(told, recover, is_given)?;
        let used = Place { at, wrap };
        if used.at >= self.size {
            return Err(SetupError::Inflight(
                "with a used index outside of the ring",
            ));
        }
        if used != self.used {
            // Whatever was taken and not given back is taken again.
            (self.next, self.used, self.published) = (used, used, used);
        }
        self.notes = Some(Box::new(notes));
        Ok(())
    }

    fn flags_at(at: u16) -> usize {
        usize::from(at) * DESCRIPTOR_BYTES + 14
    }

    fn is_available(&self, place: Place) -> bool {
        let flags = self
            .parts
            .descriptors
            .u16(Self::flags_at(place.at), Acquire);
        (flags & FLAG_AVAILABLE != 0) == place.wrap && (flags & FLAG_USED != 0) != place.wrap
    }

    fn descriptor(&self, at: u16) -> Descriptor {
        let offset = usize::from(at) * DESCRIPTOR_BYTES;
        let table = &self.parts.descriptors;
        Descriptor::new(table.u64(offset, Relaxed), table.u64(offset + 8, Relaxed))
    }

    #[inline]
    pub(super) fn take(
        &mut self,
        direction: Direction,
        memory: &Regions,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Taken>, RingError> {
        if !self.is_available(self.next) {
            return Ok(None);
        }
        let mut chain = Chain::new(direction, memory, &self.hint, pieces);
        let limit = self.size.min(CHAIN_DESCRIPTORS_MAX);
        let mut place = self.next;
        let mut slots: u16 = 0;
        loop {
            let descriptor = self.descriptor(place.at);
            let (id, flags) = (descriptor.low, descriptor.high);
            place = place.ahead(1, self.size);
            slots += 1;
            let last = flags & FLAG_NEXT == 0;
            if flags & FLAG_INDIRECT != 0 {
                if !self.features.indirect || !last || slots > 1 {
                    return Err(RingError::Indirect);
                }
                chain.add_table(&descriptor, false)?;
            } else {
                chain.add(&descriptor, flags, limit)?;
            }
            if last {
                // The last descriptor of a chain has its id.
                chain.taken.id = id;
                break;
            }
        }
        chain.taken.slots = slots;
        self.next = place;
        Ok(Some(chain.taken))
    }

    pub(super) fn untake(&mut self, taken: &[Taken]) {
        for chain in taken {
            self.next = self.next.back(chain.slots, self.size);
        }
    }

    #[inline]
    pub(super) fn give(&mut self, taken: &Taken, written: u32) {
        let offset = usize::from(self.used.at) * DESCRIPTOR_BYTES;
        let table = &self.parts.descriptors;
        table.u32_put(offset + 8, written, Relaxed);
        table.u16_put(offset + 12, taken.id, Relaxed);
        let mut flags = if written > 0 { FLAG_WRITE } else { 0 };
        if self.used.wrap {
            flags |= FLAG_AVAILABLE | FLAG_USED;
        }
        let (old, new) = (self.used, self.used.ahead(taken.slots, self.size));
        if let Some(notes) = &self.notes {
            notes.packed_used((new.at, new.wrap), (old.at, old.wrap));
        }
        table.u16_put(offset + 14, flags, Release);
        if let Some(notes) = &self.notes {
            notes.packed_used((new.at, new.wrap), (new.at, new.wrap));
        }
        self.used = new;
    }

    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        if self.published == self.used {
            return false;
        }
        let (old, new) = (self.published, self.used);
        self.published = new;
        fence(SeqCst);
        let event = Place::from_bits(self.parts.driver.u16(0, Relaxed));
        match self.parts.driver.u16(2, Relaxed) {
            EVENT_DISABLE => false,
            EVENT_DESCRIPTOR if self.features.event_index => self.passed(old, new, event),
            _ => true,
        }
    }

    /// Whether `event` is between `old` (included) and `new` (excluded), counted round the ring.
    fn passed(&self, old: Place, new: Place, event: Place) -> bool {
        let size = u32::from(self.size);
        let distance = |to: Place| {
            let round = if to.wrap == old.wrap { 0 } else { size };
            (u32::from(to.at) + round).wrapping_sub(u32::from(old.at)) % (2 * size)
        };
        distance(event) < distance(new)
    }

    pub(super) fn kicks_ask(&mut self, wanted: bool) {
        let flags = if wanted { EVENT_ENABLE } else { EVENT_DISABLE };
        self.parts.device.u16_put(2, flags, Relaxed);
        fence(SeqCst);
    }

    pub(super) fn has_available(&self) -> bool {
        self.is_available(self.next)
    }

    pub(super) fn base(&self) -> u32 {
        u32::from(self.next.bits()) | u32::from(self.used.bits()) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_round_and_back() {
        let place = Place { at: 6, wrap: true };
        let ahead = place.ahead(3, 8);
        assert_eq!(ahead, Place { at: 1, wrap: false });
        assert_eq!(ahead.back(3, 8), place);
        assert_eq!(Place::from_bits(ahead.bits()), ahead);
        assert_eq!(Place::from_bits(place.bits()), place);
        assert_eq!(
            Place { at: 0, wrap: true }.ahead(8, 8),
            Place { at: 0, wrap: false }
        );
    }
}
