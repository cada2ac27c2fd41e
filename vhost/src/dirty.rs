//! The log of dirty pages: which pages of a guest's memory we wrote, for the front-end that moves the guest to another host while
//! it runs.
//!
//! Guarantees: a page is marked after it was written, so that whoever clears the mark and copies the page then misses nothing. More
//! pages than were written may be marked; what lies outside of the log is not.

use crate::memory::{Mapping, Piece, Regions, Window};
use rustix::fd::OwnedFd;
use std::io;
use std::sync::Arc;

/// Bytes of a page, as the log counts.
const PAGE_BYTES: u64 = 4_096;

/// A front-end's log: a bit for each page of guest addresses.
#[derive(Debug)]
pub struct DirtyLog(Window);

impl DirtyLog {
    /// So many bytes of a file, from an offset on.
    ///
    /// # Errors
    /// The file is shorter, or cannot be mapped.
    pub fn new(file: &OwnedFd, offset: u64, bytes: u64) -> io::Result<Self> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
        let number = |wide: u64| usize::try_from(wide).map_err(|_wide| wrong());
        let (offset, bytes) = (number(offset)?, number(bytes)?);
        let end = offset.checked_add(bytes).ok_or_else(wrong)?;
        let mapping = Arc::new(Mapping::of_file(file, end)?);
        Window::new(&mapping, offset, bytes)
            .map(Self)
            .ok_or_else(wrong)
    }

    /// Marks what was written from a guest address on.
    pub fn mark(&self, address: u64, bytes: u64) {
        let Some(last) = bytes.checked_sub(1) else {
            return;
        };
        let end = address.saturating_add(last) / PAGE_BYTES;
        for page in address / PAGE_BYTES..=end {
            let Ok(at) = usize::try_from(page / 8) else {
                return;
            };
            self.0.u8_or(at, 1 << (page % 8));
        }
    }
}

/// The log of one queue.
#[derive(Clone, Debug)]
pub struct QueueLog {
    /// Where it is written.
    pub log: Arc<DirtyLog>,
    /// The parts of the ring that we write: guest addresses and lengths.
    pub ring: Vec<(u64, u64)>,
}

impl QueueLog {
    /// The ring was written.
    pub fn ring_written(&self) {
        for (address, bytes) in &self.ring {
            self.log.mark(*address, *bytes);
        }
    }

    /// Buffers were written.
    pub fn pieces_written(&self, memory: &Regions, pieces: &[Piece]) {
        for piece in pieces {
            if let Some(address) = memory.piece_address(piece) {
                self.log.mark(address, piece.bytes.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn pages_are_marked_and_none_beside() {
        let (mapping, file) = Mapping::with_file("weft-log", 8_192).unwrap();
        let seen = Window::new(&Arc::new(mapping), 4_096, 8).unwrap();
        let log = DirtyLog::new(&file, 4_096, 8).unwrap();
        log.mark(0, 0);
        assert_eq!(seen.u64(0, Relaxed), 0);
        log.mark(4_095, 2);
        log.mark(3 * 4_096, 1);
        log.mark(62 * 4_096 + 7, 3 * 4_096);
        assert_eq!(seen.u64(0, Relaxed), 0b1011 | 0b11 << 62);
        log.mark(u64::MAX - 1, 100);
        assert!(DirtyLog::new(&file, 4_096, 4_097).is_err());
        assert!(DirtyLog::new(&file, u64::MAX, 8).is_err());
    }
}
