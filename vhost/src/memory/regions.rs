//! A guest's memory: the regions that its frontend announced, found by guest address or by the frontend's own address.

use super::{Mapping, Span, Window};
use rustix::fd::OwnedFd;
use std::cell::Cell;
use std::sync::Arc;

/// Regions of one guest.
pub const REGIONS_MAX: usize = 32;

/// A region as the frontend tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where the guest sees it.
    pub guest_address: u64,
    /// Its length.
    pub bytes: u64,
    /// Where the frontend sees it: rings are named by such addresses.
    pub user_address: u64,
    /// Where it starts in its file.
    pub file_offset: u64,
}

/// Why memory was refused.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Its numbers wrap around, or it is empty.
    #[error("memory region {0:x?} wraps around or is empty")]
    Range(Region),
    /// Two regions are at one guest address.
    #[error("memory regions overlap at guest address {0:#x}")]
    Overlap(u64),
    /// Too many.
    #[error("more than {REGIONS_MAX} memory regions")]
    TooMany,
    /// The file cannot be mapped.
    #[error("cannot map a memory region")]
    Map(#[source] std::io::Error),
}

/// A piece of a guest's memory by numbers, so that it can be kept while nothing is borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    region: u32,
    /// Its length.
    pub bytes: u32,
    offset: usize,
}

impl Piece {
    /// The same without its first bytes; empty if there are not so many.
    #[inline]
    #[must_use]
    pub fn behind(self, bytes: u32) -> Self {
        let skipped = bytes.min(self.bytes);
        Self {
            bytes: self.bytes - skipped,
            offset: self.offset + usize::try_from(skipped).unwrap_or(0),
            ..self
        }
    }
}

#[derive(Clone, Debug)]
struct Mapped {
    region: Region,
    offset: usize,
    mapping: Arc<Mapping>,
}

/// A guest's memory.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    mapped: Vec<Mapped>,
}

impl Regions {
    /// Adds a region.
    ///
    /// # Errors
    /// It is none, meets another one, is one too many, or cannot be mapped.
    pub fn add(&mut self, region: Region, file: &OwnedFd) -> Result<(), MemoryError> {
        let range = || MemoryError::Range(region);
        let end = region
            .guest_address
            .checked_add(region.bytes)
            .ok_or_else(range)?;
        let fits = region.bytes > 0
            && region.user_address.checked_add(region.bytes).is_some()
            && self.mapped.len() < REGIONS_MAX;
        if !fits {
            return Err(if self.mapped.len() >= REGIONS_MAX {
                MemoryError::TooMany
            } else {
                range()
            });
        }
        let overlaps = |other: &Mapped| {
            other.region.guest_address < end
                && region.guest_address < other.region.guest_address + other.region.bytes
        };
        if self.mapped.iter().any(overlaps) {
            return Err(MemoryError::Overlap(region.guest_address));
        }
        let bytes = region
            .file_offset
            .checked_add(region.bytes)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or_else(range)?;
        let offset = usize::try_from(region.file_offset).map_err(|_wide| range())?;
        let mapping = Mapping::of_file(file, bytes).map_err(MemoryError::Map)?;
        self.mapped.push(Mapped {
            region,
            offset,
            mapping: Arc::new(mapping),
        });
        Ok(())
    }

    /// Whether there is one of exactly these numbers.
    #[must_use]
    pub fn has(&self, region: &Region) -> bool {
        self.mapped.iter().any(|mapped| mapped.region == *region)
    }

    /// Takes a region away, if there is one with these numbers; what still reaches into it keeps it mapped.
    pub fn remove(&mut self, region: &Region) {
        self.mapped.retain(|mapped| {
            mapped.region.guest_address != region.guest_address
                || mapped.region.user_address != region.user_address
                || mapped.region.bytes != region.bytes
        });
    }

    /// Whether the file of one was truncated behind our back.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.mapped.iter().any(|mapped| mapped.mapping.is_lost())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mapped.is_empty()
    }

    /// The bytes from a guest address on, as many of `bytes` as lie in one region; none if the first one lies nowhere.
    /// `hint` remembers the region, which the next address most likely lies in too.
    #[inline]
    #[must_use]
    pub fn piece(&self, address: u64, bytes: usize, hint: &Cell<usize>) -> Option<Piece> {
        let inside = |mapped: &Mapped| {
            let offset = address.wrapping_sub(mapped.region.guest_address);
            (offset < mapped.region.bytes).then_some(offset)
        };
        let at = hint.get();
        let (at, offset) = match self.mapped.get(at).and_then(inside) {
            Some(offset) => (at, offset),
            None => {
                let found = |(at, mapped)| Some((at, inside(mapped)?));
                let (at, offset) = self.mapped.iter().enumerate().find_map(found)?;
                hint.set(at);
                (at, offset)
            }
        };
        let mapped = self.mapped.get(at)?;
        let left = usize::try_from(mapped.region.bytes - offset).unwrap_or(usize::MAX);
        Some(Piece {
            region: u32::try_from(at).ok()?,
            bytes: u32::try_from(left.min(bytes)).ok()?,
            offset: mapped.offset.checked_add(usize::try_from(offset).ok()?)?,
        })
    }

    /// The memory of a piece; none if it is of other regions.
    #[inline]
    #[must_use]
    pub fn span(&self, piece: &Piece) -> Option<Span<'_>> {
        let mapped = self.mapped.get(usize::try_from(piece.region).ok()?)?;
        let bytes = usize::try_from(piece.bytes).ok()?;
        let base = mapped.mapping.at(piece.offset, bytes)?;
        Some(Span::new(base, bytes))
    }

    /// The guest address of a piece; none if it is of other regions.
    #[must_use]
    pub fn piece_address(&self, piece: &Piece) -> Option<u64> {
        let mapped = self.mapped.get(usize::try_from(piece.region).ok()?)?;
        let inside = piece.offset.checked_sub(mapped.offset)?;
        mapped
            .region
            .guest_address
            .checked_add(u64::try_from(inside).ok()?)
    }

    /// A window at a guest address; it must lie in one region.
    #[must_use]
    pub fn window_at_guest(&self, address: u64, bytes: usize) -> Option<Window> {
        self.window(address, bytes, |region| region.guest_address)
    }

    /// A window at an address of the frontend's; it must lie in one region.
    #[must_use]
    pub fn window_at_user(&self, address: u64, bytes: usize) -> Option<Window> {
        self.window(address, bytes, |region| region.user_address)
    }

    /// The guest address of an address of the frontend's.
    #[must_use]
    pub fn guest_address(&self, user_address: u64) -> Option<u64> {
        self.mapped.iter().find_map(|mapped| {
            let offset = user_address.checked_sub(mapped.region.user_address)?;
            (offset < mapped.region.bytes).then(|| mapped.region.guest_address + offset)
        })
    }

    fn window(&self, address: u64, bytes: usize, start: fn(&Region) -> u64) -> Option<Window> {
        let length = u64::try_from(bytes).ok()?;
        self.mapped.iter().find_map(|mapped| {
            let offset = address.checked_sub(start(&mapped.region))?;
            if offset.checked_add(length)? > mapped.region.bytes {
                return None;
            }
            let offset = mapped.offset.checked_add(usize::try_from(offset).ok()?)?;
            Window::new(&mapped.mapping, offset, bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(guest_address: u64, bytes: u64, file_offset: u64) -> Region {
        Region {
            guest_address,
            bytes,
            user_address: guest_address.wrapping_add(0x7000_0000_0000),
            file_offset,
        }
    }

    #[test]
    fn addresses_are_found_in_their_region_and_nowhere_else() {
        let (_mapping, file) = Mapping::with_file("weft-test", 0x4000).unwrap();
        let mut regions = Regions::default();
        regions.add(region(0x1000, 0x1000, 0x1000), &file).unwrap();
        regions.add(region(0x8000, 0x1000, 0x2000), &file).unwrap();
        let hint = Cell::new(0);
        let span = |address, bytes| {
            let piece = regions.piece(address, bytes, &hint)?;
            regions.span(&piece)
        };
        let bytes = |address, bytes| span(address, bytes).map(|s| s.bytes());
        assert_eq!(bytes(0x1000, 0x1000), Some(0x1000));
        assert_eq!(bytes(0x1fff, 2), Some(1), "the rest lies elsewhere");
        assert_eq!(bytes(0x2000, 1), None);
        assert_eq!(bytes(0xfff, 1), None);
        assert_eq!(bytes(0x8ff0, 0x10), Some(0x10));
        assert_eq!(bytes(u64::MAX, 1), None);
        assert!(regions.window_at_user(0x7000_0000_8000, 0x1000).is_some());
        assert!(regions.window_at_user(0x7000_0000_8000, 0x1001).is_none());
        assert!(regions.window_at_guest(0x1000, 8).is_some());
        span(0x1000, 4).unwrap().write(&[1, 2, 3, 4, 5]);
        let mut back = [0; 8];
        assert_eq!(span(0x1001, 8).unwrap().read(&mut back), 8);
        assert_eq!(back, [2, 3, 4, 0, 0, 0, 0, 0], "a write ends with its span");
    }

    #[test]
    fn nonsense_is_refused() {
        let (_mapping, file) = Mapping::with_file("weft-test", 0x4000).unwrap();
        let mut regions = Regions::default();
        regions.add(region(0x1000, 0x1000, 0), &file).unwrap();
        for wrong in [
            region(0x1fff, 0x1000, 0),
            region(0x3000, 0, 0),
            region(u64::MAX - 10, 0x1000, 0),
            region(0x3000, 0x1000, 0x3001),
            region(0x3000, 0x1000, u64::MAX - 1),
        ] {
            assert!(regions.add(wrong, &file).is_err(), "{wrong:x?}");
        }
        for at in 1..REGIONS_MAX as u64 {
            regions
                .add(region(0x1000 + (at << 16), 0x1000, 0), &file)
                .unwrap();
        }
        let one_more = region(1 << 40, 0x1000, 0);
        assert!(matches!(
            regions.add(one_more, &file),
            Err(MemoryError::TooMany)
        ));
        assert!(regions.has(&region(0x1000, 0x1000, 0)));
        regions.remove(&region(0x1000, 0x1000, 0));
        assert!(!regions.has(&region(0x1000, 0x1000, 0)));
    }
}
