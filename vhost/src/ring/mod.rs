//! Rings: the device's side of virtio queues, polled. Split and packed (virtio 1.2, 2.7 and 2.8). An interface's queue is one too
//! ([`xdp`]): its kernel stands for the driver.
//!
//! Guarantees: whatever a driver writes, nothing outside of its memory is touched, no loop is longer than the ring (or
//! [`CHAIN_DESCRIPTORS_MAX`] for an indirect table), and what is used of a descriptor was read once. What breaks the rules is a
//! [`RingError`]: the ring is then not to be used any more. Buffers are given back in the order in which they were taken,
//! so that VIRTIO_F_IN_ORDER holds always, and what was taken and not given back is offered again after a restart.
//!
//! It knows no packets, and waits for nothing.

mod packed;
mod split;
pub mod xdp;

pub use packed::PackedRing;
pub use split::SplitRing;

use crate::inflight::Notes;
use crate::memory::{Piece, Regions, Window};
use std::cell::Cell;

/// Descriptors of one ring.
pub const RING_SIZE_MAX: u16 = 32_768;
/// Descriptors of one chain.
pub const CHAIN_DESCRIPTORS_MAX: u16 = 1_024;
/// Bytes of one chain.
pub const CHAIN_BYTES_MAX: u32 = 1 << 20;

const DESCRIPTOR_BYTES: usize = 16;
const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;

/// What a driver did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The available index is further ahead than the ring is long.
    #[error("the available index went from {from} to {to} in a ring of {size}")]
    AvailableIndex {
        /// Where the device is.
        from: u16,
        /// What the driver says.
        to: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// A descriptor outside of the ring or table.
    #[error("descriptor {0} is outside of its table")]
    DescriptorIndex(u16),
    /// A chain longer than allowed: most likely a loop.
    #[error("a chain of more than {0} descriptors")]
    ChainLength(u16),
    /// More bytes than any frame has.
    #[error("a chain of more than {CHAIN_BYTES_MAX} bytes")]
    ChainBytes,
    /// An address that is in none of the guest's memory regions.
    #[error("a buffer at guest address {0:#x}, where the guest has no memory")]
    Address(u64),
    /// A buffer to read from in a queue to write to, or the other way round.
    #[error("a buffer of the wrong direction")]
    Direction,
    /// An indirect table where none may be, or of a length that is none.
    #[error("an indirect table that is nested, not negotiated, or not of whole descriptors")]
    Indirect,
}

/// Why a ring cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Its size.
    #[error("a ring of {0} descriptors: expected 1 to {RING_SIZE_MAX}, a power of two if split")]
    Size(u16),
    /// Its place.
    #[error("the ring's {0} is not aligned, or too short")]
    Place(&'static str),
    /// What a predecessor has noted.
    #[error("memory of what is in flight {0}")]
    Inflight(&'static str),
}

/// What was negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// VIRTIO_F_INDIRECT_DESC
    pub indirect: bool,
    /// VIRTIO_F_EVENT_IDX
    pub event_index: bool,
}

/// The parts of a ring.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The descriptors.
    pub descriptors: Window,
    /// What the driver writes: the available ring, or its event suppression.
    pub driver: Window,
    /// What the device writes: the used ring, or its event suppression.
    pub device: Window,
}

/// Bytes of a ring's parts, as [`Parts`] names them.
#[must_use]
pub fn part_bytes(packed: bool, size: u16) -> [usize; 3] {
    let size = usize::from(size);
    if packed {
        [size * DESCRIPTOR_BYTES, 4, 4]
    } else {
        [size * DESCRIPTOR_BYTES, 6 + 2 * size, 6 + 8 * size]
    }
}

/// Which way a queue's buffers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads them: what a guest sends.
    Read,
    /// The device writes them: what a guest receives.
    Write,
}

/// A chain that was taken. Its pieces are in the caller's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What the driver knows it by.
    pub id: u16,
    /// Descriptors that it takes in the ring (packed rings count them).
    pub slots: u16,
    /// Where its pieces start in the caller's list.
    pub first: u32,
    /// How many pieces.
    pub pieces: u32,
    /// Their bytes.
    pub bytes: u32,
}

/// One virtqueue's ring.
#[derive(Clone, Debug)]
pub enum Ring {
    /// A split ring.
    Split(SplitRing),
    /// A packed ring.
    Packed(PackedRing),
    /// A way of an AF_XDP socket.
    Xdp(Box<xdp::XdpRing>),
}

impl Ring {
    /// Takes a chain that the driver made available, if there is one; its pieces go behind those in `pieces`.
    ///
    /// # Errors
    /// The driver broke the rules.
    #[inline]
    pub fn take(
        &mut self,
        direction: Direction,
        memory: &Regions,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Taken>, RingError> {
        match self {
            Self::Split(ring) => ring.take(direction, memory, pieces),
            Self::Packed(ring) => ring.take(direction, memory, pieces),
            Self::Xdp(ring) => ring.take(direction, memory, pieces),
        }
    }

    /// Takes as many chains as there are, at most `count`, and says what the driver did wrong behind them, if anything.
    #[inline]
    pub fn take_many(
        &mut self,
        direction: Direction,
        memory: &Regions,
        count: usize,
        pieces: &mut Vec<Piece>,
        taken: &mut Vec<Taken>,
    ) -> Option<RingError> {
        match self {
            Self::Split(ring) => ring.take_many(direction, memory, count, pieces, taken),
            Self::Packed(_) | Self::Xdp(_) => {
                for _ in 0..count {
                    match self.take(direction, memory, pieces) {
                        Ok(Some(chain)) => taken.push(chain),
                        Ok(None) => break,
                        Err(error) => return Some(error),
                    }
                }
                None
            }
        }
    }

    /// Takes back the last `chains` (the newest first in `taken`), which the driver then offers again.
    pub fn untake(&mut self, taken: &[Taken]) {
        match self {
            Self::Split(ring) => ring.untake(taken.len()),
            Self::Packed(ring) => ring.untake(taken),
            Self::Xdp(ring) => ring.untake(taken),
        }
    }

    /// Tells the processor that so many chains will be given back soon.
    #[inline]
    pub fn give_soon(&self, chains: usize) {
        match self {
            Self::Split(ring) => ring.give_soon(chains),
            // What is given back was read just before.
            Self::Packed(_) | Self::Xdp(_) => {}
        }
    }

    /// Gives the oldest taken chain back, with so many bytes written.
    #[inline]
    pub fn give(&mut self, taken: &Taken, written: u32) {
        match self {
            Self::Split(ring) => ring.give(taken, written),
            Self::Packed(ring) => ring.give(taken, written),
            Self::Xdp(ring) => ring.give(taken, written),
        }
    }

    /// Shows the driver what was given since the last time, and says whether it wants to be notified.
    #[inline]
    pub fn publish(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.publish(),
            Self::Packed(ring) => ring.publish(),
            Self::Xdp(ring) => ring.publish(),
        }
    }

    /// Asks the driver to notify of new chains, or not to. After asking, look once more before you wait.
    pub fn kicks_ask(&mut self, wanted: bool) {
        match self {
            Self::Split(ring) => ring.kicks_ask(wanted),
            Self::Packed(ring) => ring.kicks_ask(wanted),
            // Who waits for a socket is always woken, and by waiting lets the kernel go on with what is to be sent.
            Self::Xdp(_) => {}
        }
    }

    /// Whether something is available.
    #[must_use]
    pub fn has_available(&self) -> bool {
        match self {
            Self::Split(ring) => ring.has_available(),
            Self::Packed(ring) => ring.has_available(),
            Self::Xdp(ring) => ring.has_available(),
        }
    }

    /// Notes from now on how far it is; with `recover`, it goes on where a predecessor has noted to be, if one was there.
    ///
    /// # Errors
    /// What is noted cannot be gone on with.
    pub fn note_in(&mut self, notes: Notes, recover: bool) -> Result<(), SetupError> {
        match self {
            Self::Split(ring) => ring.note_in(notes, recover),
            Self::Packed(ring) => ring.note_in(notes, recover),
            Self::Xdp(_) => Err(SetupError::Inflight("is for rings of guests")),
        }
    }

    /// Where the device is, as GET_VRING_BASE tells it.
    #[must_use]
    pub fn base(&self) -> u32 {
        match self {
            Self::Split(ring) => ring.base(),
            Self::Packed(ring) => ring.base(),
            // Nobody goes on where a socket has ended.
            Self::Xdp(_) => 0,
        }
    }
}

/// One descriptor, copied.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    address: u64,
    bytes: u32,
    /// Split: flags and next. Packed: id and flags.
    low: u16,
    high: u16,
}

impl Descriptor {
    #[inline]
    fn new(address: u64, word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        Self {
            address,
            bytes: u32::from_le_bytes([a, b, c, d]),
            low: u16::from_le_bytes([e, f]),
            high: u16::from_le_bytes([g, h]),
        }
    }

    /// From an indirect table.
    fn read(memory: &Regions, table: u64, at: u16, hint: &Cell<usize>) -> Result<Self, RingError> {
        let wrong = RingError::Address(table);
        let address = table.checked_add(u64::from(at) * 16).ok_or(wrong)?;
        let mut bytes = [0; DESCRIPTOR_BYTES];
        let piece = memory.piece(address, DESCRIPTOR_BYTES, hint).ok_or(wrong)?;
        let read = memory.span(&piece).map_or(0, |span| span.read(&mut bytes));
        if read < DESCRIPTOR_BYTES {
            return Err(wrong);
        }
        let [low, high] = [&bytes[..8], &bytes[8..]].map(|half| {
            let mut word = [0; 8];
            word.copy_from_slice(half);
            u64::from_le_bytes(word)
        });
        Ok(Self::new(low, high))
    }
}

/// A chain while it is being read.
struct Chain<'a> {
    memory: &'a Regions,
    hint: &'a Cell<usize>,
    direction: Direction,
    pieces: &'a mut Vec<Piece>,
    taken: Taken,
    descriptors: u16,
}

impl<'a> Chain<'a> {
    #[inline]
    fn new(
        direction: Direction,
        memory: &'a Regions,
        hint: &'a Cell<usize>,
        pieces: &'a mut Vec<Piece>,
    ) -> Self {
        let first = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        Self {
            memory,
            hint,
            direction,
            pieces,
            taken: Taken {
                first,
                ..Taken::default()
            },
            descriptors: 0,
        }
    }

    /// Adds a buffer.
    #[inline]
    fn add(&mut self, descriptor: &Descriptor, flags: u16, limit: u16) -> Result<(), RingError> {
        self.descriptors += 1;
        if self.descriptors > limit {
            return Err(RingError::ChainLength(limit));
        }
        if (flags & FLAG_WRITE != 0) != (self.direction == Direction::Write) {
            return Err(RingError::Direction);
        }
        if descriptor.bytes > CHAIN_BYTES_MAX - self.taken.bytes.min(CHAIN_BYTES_MAX) {
            return Err(RingError::ChainBytes);
        }
        self.taken.bytes += descriptor.bytes;
        let (mut address, mut left) = (descriptor.address, descriptor.bytes);
        while left > 0 {
            let wrong = RingError::Address(address);
            let bytes = usize::try_from(left).map_err(|_wide| wrong)?;
            let piece = self.memory.piece(address, bytes, self.hint).ok_or(wrong)?;
            self.pieces.push(piece);
            self.taken.pieces += 1;
            left -= piece.bytes;
            address = address
                .checked_add(u64::from(piece.bytes))
                .filter(|_| piece.bytes > 0)
                .ok_or(wrong)?;
        }
        Ok(())
    }

    /// Adds what an indirect table holds. `linked`: by next fields, as in split rings, or all of it in order.
    fn add_table(&mut self, table: &Descriptor, linked: bool) -> Result<(), RingError> {
        let count = u16::try_from(table.bytes / 16).map_err(|_wide| RingError::Indirect)?;
        if count == 0 || !table.bytes.is_multiple_of(16) || count > CHAIN_DESCRIPTORS_MAX {
            return Err(RingError::Indirect);
        }
        let mut at = 0;
        loop {
            if at >= count {
                return Err(RingError::DescriptorIndex(at));
            }
            let descriptor = Descriptor::read(self.memory, table.address, at, self.hint)?;
            let flags = if linked {
                descriptor.low
            } else {
                descriptor.high
            };
            if flags & FLAG_INDIRECT != 0 {
                return Err(RingError::Indirect);
            }
            self.add(&descriptor, flags, count)?;
            if linked && flags & FLAG_NEXT == 0 || !linked && at + 1 == count {
                return Ok(());
            }
            at = if linked { descriptor.high } else { at + 1 };
        }
    }
}
