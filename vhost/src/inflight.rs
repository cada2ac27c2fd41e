//! Memory in which a back-end notes for its successor how far it is in each ring (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD): the front-end
//! keeps it, and hands it to the back-end that comes after one that was killed.
//!
//! Guarantees: at every moment it says what is true or was true before the chain that is under way, whenever the back-end is
//! killed: so no chain is given back twice, and none is forgotten. Layouts are those of QEMU's docs/interop/vhost-user.rst. Chains
//! are given back in the order in which they were taken, and lie untouched in the ring until then: none is ever noted as in
//! flight, for the successor finds it in the ring again. What another kind of back-end has left in flight is refused.

use crate::memory::{Mapping, Window};
use crate::ring::SetupError;
use rustix::fd::OwnedFd;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The version of the layouts.
const VERSION: u16 = 1;
/// Each queue's part begins at a multiple of this.
const ALIGNMENT: usize = 64;
/// Where each queue's part has its version and its number of descriptors.
const VERSION_AT: usize = 8;
const COUNT_AT: usize = 10;
/// In a split ring's part: the used index, and where descriptors begin, of so many bytes.
const SPLIT_USED_AT: usize = 14;
const SPLIT_BYTES: usize = 16;
/// In a packed ring's part: used index, the same before the chain under way, both wrap counters; then descriptors.
const PACKED_USED_AT: usize = 16;
const PACKED_HEADER_BYTES: usize = 32;
const PACKED_BYTES: usize = 32;
/// In a packed ring's descriptor: the next free one.
const PACKED_NEXT_AT: usize = 2;

/// An area as both sides name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflightArea {
    /// Its length.
    pub bytes: u64,
    /// Where it begins in its file.
    pub offset: u64,
    /// Rings.
    pub queues: u16,
    /// Descriptors of each.
    pub ring_size: u16,
}

fn part_bytes(packed: bool, ring_size: u16) -> usize {
    let size = usize::from(ring_size);
    let bytes = if packed {
        PACKED_HEADER_BYTES + PACKED_BYTES * size
    } else {
        SPLIT_BYTES + SPLIT_BYTES * size
    };
    bytes.next_multiple_of(ALIGNMENT)
}

/// An area.
#[derive(Clone, Debug)]
pub struct Inflight {
    mapping: Arc<Mapping>,
    offset: usize,
    area: InflightArea,
    packed: bool,
}

impl Inflight {
    /// Makes an area for so many rings.
    ///
    /// # Errors
    /// The kernel gave no memory.
    pub fn make(queues: u16, ring_size: u16, packed: bool) -> io::Result<(InflightArea, OwnedFd)> {
        let bytes = usize::from(queues) * part_bytes(packed, ring_size);
        let (_mapped, file) = Mapping::with_file("weft-inflight", bytes.max(1))?;
        let area = InflightArea {
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            offset: 0,
            queues,
            ring_size,
        };
        Ok((area, file))
    }

    /// Uses an area that the front-end has kept.
    ///
    /// # Errors
    /// It is too short for what it is said to hold.
    pub fn new(file: &OwnedFd, area: InflightArea, packed: bool) -> io::Result<Self> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
        let bytes = usize::try_from(area.bytes).map_err(|_wide| wrong())?;
        let offset = usize::try_from(area.offset).map_err(|_wide| wrong())?;
        let needed = usize::from(area.queues) * part_bytes(packed, area.ring_size);
        let end = offset.checked_add(bytes).ok_or_else(wrong)?;
        if bytes < needed || !offset.is_multiple_of(ALIGNMENT) {
            return Err(wrong());
        }
        Ok(Self {
            mapping: Arc::new(Mapping::of_file(file, end)?),
            offset,
            area,
            packed,
        })
    }

    /// The notes of a ring; none if the area has none of this number, or for a ring of this kind and size.
    #[must_use]
    pub fn notes(&self, queue: u32, packed: bool, ring_size: u16) -> Option<Notes> {
        let queue = u16::try_from(queue).ok()?;
        let fits = packed == self.packed && ring_size <= self.area.ring_size;
        if queue >= self.area.queues || !fits {
            return None;
        }
        let bytes = part_bytes(packed, self.area.ring_size);
        let start = self.offset + usize::from(queue) * bytes;
        Some(Notes {
            window: Window::new(&self.mapping, start, bytes)?,
            count: self.area.ring_size,
            packed,
        })
    }
}

/// A ring's notes.
#[derive(Clone, Debug)]
pub struct Notes {
    window: Window,
    /// Descriptors.
    count: u16,
    packed: bool,
}

/// Where a packed ring is used up to: a descriptor, and how often it was round.
pub(crate) type PackedUsed = (u16, bool);

impl Notes {
    fn begin(&self) {
        self.window.u16_put(COUNT_AT, self.count, Relaxed);
        self.window.u16_put(VERSION_AT, VERSION, Release);
    }

    /// Whether a predecessor has written here.
    ///
    /// # Errors
    /// It was one of another kind, or it has left chains in flight.
    fn is_used(&self) -> Result<bool, SetupError> {
        match self.window.u16(VERSION_AT, Acquire) {
            0 => return Ok(false),
            VERSION => {}
            _ => return Err(SetupError::Inflight("of another version")),
        }
        if self.window.u16(COUNT_AT, Relaxed) != self.count {
            return Err(SetupError::Inflight("of another number of descriptors"));
        }
        let (first, each) = if self.packed {
            (PACKED_HEADER_BYTES, PACKED_BYTES)
        } else {
            (SPLIT_BYTES, SPLIT_BYTES)
        };
        let flag = |at: u16| self.window.u16(first + each * usize::from(at), Relaxed) & 0xff;
        if (0..self.count).any(|at| flag(at) != 0) {
            return Err(SetupError::Inflight(
                "with chains in flight of another back-end",
            ));
        }
        Ok(true)
    }

    /// Whether a split ring goes on where its used index is; notes that.
    pub(crate) fn split_begin(&self, used: u16, recover: bool) -> Result<bool, SetupError> {
        let goes_on = recover && self.is_used()?;
        self.split_used(used);
        self.begin();
        Ok(goes_on)
    }

    /// Notes a split ring's used index.
    #[inline]
    pub(crate) fn split_used(&self, used: u16) {
        self.window.u16_put(SPLIT_USED_AT, used, Release);
    }

    /// Where a packed ring goes on: what is noted, or `told`; notes that. `is_given` says whether a chain was given back at a place.
    pub(crate) fn packed_begin(
        &self,
        told: PackedUsed,
        recover: bool,
        is_given: impl Fn(PackedUsed) -> bool,
    ) -> Result<PackedUsed, SetupError> {
        let goes_on = recover && self.is_used()?;
        let used = if goes_on {
            let word = self.window.u64(PACKED_USED_AT, Acquire).to_le_bytes();
            let [a, b, c, d, wrap, old_wrap, _, _] = word;
            let new = (u16::from_le_bytes([a, b]), wrap != 0);
            let old = (u16::from_le_bytes([c, d]), old_wrap != 0);
            if old.0 >= self.count || new.0 >= self.count {
                return Err(SetupError::Inflight(
                    "with a used index outside of the ring",
                ));
            }
            // Killed while it gave one back: that was shown to the driver, or not.
            if is_given(old) { new } else { old }
        } else {
            for at in 0..self.count {
                let place = PACKED_HEADER_BYTES + PACKED_BYTES * usize::from(at);
                self.window
                    .u16_put(place + PACKED_NEXT_AT, at.wrapping_add(1), Relaxed);
            }
            told
        };
        self.packed_used(used, used);
        self.begin();
        Ok(used)
    }

    /// Notes how far a packed ring is used once the chain under way is given back, and how far before.
    #[inline]
    pub(crate) fn packed_used(&self, new: PackedUsed, old: PackedUsed) {
        let ([a, b], [c, d]) = (new.0.to_le_bytes(), old.0.to_le_bytes());
        // In one store: nobody is killed in the middle of it.
        let word = [a, b, c, d, u8::from(new.1), u8::from(old.1), 0, 0];
        self.window
            .u64_put(PACKED_USED_AT, u64::from_le_bytes(word), Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes_of(packed: bool) -> (Notes, OwnedFd, InflightArea) {
        let (area, file) = Inflight::make(4, 8, packed).unwrap();
        let inflight = Inflight::new(&file, area, packed).unwrap();
        (inflight.notes(3, packed, 8).unwrap(), file, area)
    }

    #[test]
    fn areas_are_as_long_as_they_must_be() {
        for packed in [false, true] {
            let (area, file) = Inflight::make(4, 8, packed).unwrap();
            let each = if packed { 320 } else { 192 };
            assert_eq!(area.bytes, 4 * each);
            let with = |area| Inflight::new(&file, area, packed);
            let longer = InflightArea { queues: 5, ..area };
            assert!(with(area).is_ok() && with(longer).is_err());
            let behind = InflightArea { offset: 64, ..area };
            assert!(with(InflightArea { offset: 8, ..area }).is_err());
            // The file has whole pages.
            assert!(with(behind).is_err() || area.bytes + 64 <= 4096);
            let inflight = with(area).unwrap();
            assert!(inflight.notes(4, packed, 8).is_none());
            assert!(inflight.notes(0, !packed, 8).is_none());
            assert!(inflight.notes(0, packed, 16).is_none());
        }
    }

    #[test]
    fn a_successor_goes_on_where_its_predecessor_was() {
        let (notes, _file, _) = notes_of(false);
        assert_eq!(notes.split_begin(7, true), Ok(false), "nobody was here");
        assert_eq!(notes.split_begin(9, true), Ok(true));
        assert_eq!(notes.split_begin(9, false), Ok(false), "begun anew");
        let (notes, _file, _) = notes_of(true);
        let told = (0, true);
        assert_eq!(notes.packed_begin(told, true, |_| false), Ok(told));
        notes.packed_used((5, true), (3, true));
        let seen = |given| {
            let clone = notes.clone();
            clone.packed_begin(told, true, |at| {
                assert_eq!(at, (3, true));
                given
            })
        };
        assert_eq!(seen(true), Ok((5, true)), "it was shown");
        notes.packed_used((5, true), (3, true));
        assert_eq!(seen(false), Ok((3, true)), "it was not");
        notes.packed_used((1, false), (1, false));
        assert_eq!(notes.packed_begin(told, true, |_| false), Ok((1, false)));
        assert_eq!(notes.packed_begin(told, false, |_| false), Ok(told));
    }

    #[test]
    fn what_others_left_is_refused() {
        for packed in [false, true] {
            let (notes, _file, _) = notes_of(packed);
            let first = if packed { 32 } else { 16 };
            let begin = || match packed {
                false => notes.split_begin(0, true).map(|_| ()),
                true => notes.packed_begin((0, true), true, |_| false).map(|_| ()),
            };
            begin().unwrap();
            type Spoil = fn(&Notes, usize);
            let cases: [Spoil; 3] = [
                |notes, _| notes.window.u16_put(VERSION_AT, 2, Relaxed),
                |notes, _| notes.window.u16_put(COUNT_AT, 9, Relaxed),
                |notes, first| notes.window.u16_put(first, 1, Relaxed),
            ];
            for spoil in cases {
                spoil(&notes, first);
                assert!(matches!(begin(), Err(SetupError::Inflight(_))));
                notes.window.u16_put(first, 0, Relaxed);
                notes.begin();
                begin().unwrap();
            }
        }
        let (notes, _file, _) = notes_of(true);
        notes.packed_begin((0, true), true, |_| false).unwrap();
        notes.packed_used((8, true), (0, true));
        assert!(notes.packed_begin((0, true), true, |_| false).is_err());
    }
}
