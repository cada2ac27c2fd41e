//! Split rings (virtio 1.2, 2.7).

use super::{
    CHAIN_BYTES_MAX, CHAIN_DESCRIPTORS_MAX, Chain, DESCRIPTOR_BYTES, Descriptor, Direction,
    FLAG_INDIRECT, FLAG_NEXT, FLAG_WRITE, Parts, RING_SIZE_MAX, RingError, RingFeatures,
    SetupError, Taken, part_bytes,
};
use crate::inflight::Notes;
use crate::memory::{Piece, Regions, fence};
use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// In the available ring: the driver wants no notification.
const NO_INTERRUPT: u16 = 1;
/// In the used ring: the device wants none.
const NO_NOTIFY: u16 = 1;
/// Where indices and elements are.
const INDEX: usize = 2;
const ELEMENTS: usize = 4;
/// Bytes of a line of the processor's cache.
const LINE_BYTES: usize = 64;
/// Chains that are taken at once at most.
const BATCH_MAX: usize = 64;

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
    notes: Option<Box<Notes>>,
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
            notes: None,
        })
    }

    pub(super) fn note_in(&mut self, notes: Notes, recover: bool) -> Result<(), SetupError> {
        if notes.split_begin(self.used, recover)? {
            // Whatever was taken and not given back is taken again.
            (self.next, self.available) = (self.used, self.used);
        }
        self.notes = Some(Box::new(notes));
        Ok(())
    }

    #[inline]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    #[inline]
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

    /// How many chains are available, at least `wanted` if there are so many: the driver's index is read only if those
    /// that are known do not suffice, for reading it takes its line away from the driver.
    #[inline]
    fn look(&mut self, wanted: u16) -> Result<u16, RingError> {
        let known = self.available.wrapping_sub(self.next);
        if known >= wanted {
            return Ok(known);
        }
        let to = self.parts.driver.u16(INDEX, Acquire);
        let there = to.wrapping_sub(self.next);
        if there > self.size {
            return Err(RingError::AvailableIndex {
                from: self.next,
                to,
                size: self.size,
            });
        }
        self.available = to;
        Ok(there)
    }

    #[inline]
    pub(super) fn take(
        &mut self,
        direction: Direction,
        memory: &Regions,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Taken>, RingError> {
        if self.look(1)? == 0 {
            return Ok(None);
        }
        let head = (self.parts.driver).u16(ELEMENTS + 2 * self.slot(self.next), Relaxed);
        let taken = self.chain(head, direction, memory, pieces)?;
        self.next = self.next.wrapping_add(1);
        Ok(Some(taken))
    }

    /// The chain that starts at `head`.
    fn chain(
        &self,
        head: u16,
        direction: Direction,
        memory: &Regions,
        pieces: &mut Vec<Piece>,
    ) -> Result<Taken, RingError> {
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
        Ok(chain.taken)
    }

    #[inline]
    pub(super) fn take_many(
        &mut self,
        direction: Direction,
        memory: &Regions,
        count: usize,
        pieces: &mut Vec<Piece>,
        taken: &mut Vec<Taken>,
    ) -> Option<RingError> {
        let wanted = u16::try_from(count.min(BATCH_MAX)).unwrap_or(0);
        let there = match self.look(wanted) {
            Ok(there) => usize::from(there.min(wanted)),
            Err(error) => return Some(error),
        };
        // All heads first, so that their descriptors are on the way when the first one is looked at.
        let elements = self.parts.driver.u16s().get(ELEMENTS / 2..);
        let elements = elements.unwrap_or_default();
        let mut heads = [0u16; BATCH_MAX];
        for (n, head) in (0..).zip(heads.iter_mut().take(there)) {
            let at = self.slot(self.next.wrapping_add(n));
            *head = elements
                .get(at)
                .map_or(0, |head| u16::from_le(head.load(Relaxed)));
            (self.parts.descriptors).prefetch(usize::from(*head) * DESCRIPTOR_BYTES);
        }
        for head in heads.iter().take(there) {
            let head = *head;
            // Built where it stays: a copy of what was just written by parts would wait for all of them.
            if let Some(piece) = self.single(head, direction, memory) {
                taken.push(Taken {
                    id: head,
                    slots: 1,
                    first: u32::try_from(pieces.len()).unwrap_or(u32::MAX),
                    pieces: 1,
                    bytes: piece.bytes,
                });
                pieces.push(piece);
            } else {
                match self.chain(head, direction, memory, pieces) {
                    Ok(chain) => taken.push(chain),
                    Err(error) => return Some(error),
                }
            }
            self.next = self.next.wrapping_add(1);
        }
        None
    }

    /// The buffer of a chain of one descriptor in one region, which most are; none for any other, right or wrong.
    #[inline]
    fn single(&self, head: u16, direction: Direction, memory: &Regions) -> Option<Piece> {
        if head >= self.size {
            return None;
        }
        let at = usize::from(head) * 2;
        let [address, word] = self.parts.descriptors.u64s().get(at..at + 2)? else {
            return None;
        };
        let descriptor = Descriptor::new(
            u64::from_le(address.load(Relaxed)),
            u64::from_le(word.load(Relaxed)),
        );
        let expected = match direction {
            Direction::Read => 0,
            Direction::Write => FLAG_WRITE,
        };
        let plain = descriptor.low & (FLAG_NEXT | FLAG_INDIRECT | FLAG_WRITE) == expected
            && (1..=CHAIN_BYTES_MAX).contains(&descriptor.bytes);
        let bytes = usize::try_from(descriptor.bytes).ok()?;
        plain
            .then(|| memory.piece(descriptor.address, bytes, &self.hint))?
            .filter(|piece| piece.bytes == descriptor.bytes)
    }

    pub(super) fn untake(&mut self, chains: usize) {
        let chains = u16::try_from(chains).unwrap_or(self.size);
        self.next = self.next.wrapping_sub(chains);
    }

    #[inline]
    pub(super) fn give_soon(&self, chains: usize) {
        let start = ELEMENTS + 8 * self.slot(self.used);
        for line in (start..start + 8 * chains).step_by(LINE_BYTES) {
            self.parts.device.prefetch_write(line);
        }
    }

    #[inline]
    pub(super) fn give(&mut self, taken: &Taken, written: u32) {
        let at = ELEMENTS / 4 + 2 * self.slot(self.used);
        if let Some([id, bytes]) = self.parts.device.u32s().get(at..at + 2) {
            id.store(u32::from(taken.id).to_le(), Relaxed);
            bytes.store(written.to_le(), Relaxed);
        }
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
        if let Some(notes) = &self.notes {
            notes.split_used(new);
        }
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
