//! One mapping: of a file that the other side handed over, or of a file of our own.

use super::fault::Watch;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::ptr::NonNull;

/// Mapped memory, shared and writable. Unmapped when the last owner goes.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    watch: Watch,
}

// SAFETY: a mapping is a range of addresses; it may be used and unmapped from any thread. What is read through it may
// change at any time, which every reader is prepared for.
unsafe impl Send for Mapping {}
// SAFETY: as above: shared access is by raw copies and atomics only, never by references to the content.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of a file.
    ///
    /// # Errors
    /// The file is shorter, or the kernel refused.
    pub fn of_file(file: impl AsFd, bytes: usize) -> io::Result<Self> {
        let about = rustix::fs::fstat(&file)?;
        let long_enough = u64::try_from(about.st_size)
            .is_ok_and(|size| u64::try_from(bytes).is_ok_and(|bytes| bytes <= size));
        if bytes == 0 || !long_enough {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the file is shorter than the memory that it is said to hold",
            ));
        }
        // Huge pages are mapped and unmapped whole.
        let unit = usize::try_from(about.st_blksize)
            .unwrap_or(4096)
            .clamp(4096, 1 << 30);
        let bytes = bytes
            .checked_next_multiple_of(unit)
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Self::map(file, 0, bytes)
    }

    /// Maps one of an AF_XDP socket's rings, by its offset (XDP_PGOFF_RX_RING and so on).
    ///
    /// # Errors
    /// The socket has no such ring, or the kernel refused.
    pub fn of_socket(socket: impl AsFd, offset: u64, bytes: usize) -> io::Result<Self> {
        Self::map(socket, offset, bytes)
    }

    fn map(file: impl AsFd, offset: u64, bytes: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses the address, so nothing that exists is mapped over; the file is open.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                file,
                offset,
            )?
        };
        let base: NonNull<u8> =
            NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        match Watch::new(base.as_ptr().addr(), bytes) {
            Ok(watch) => Ok(Self { base, bytes, watch }),
            Err(error) => {
                unmap(base, bytes);
                Err(error)
            }
        }
    }

    /// A file of our own, mapped: to be handed to the other side, or to play it in tests.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn with_file(name: &str, bytes: usize) -> io::Result<(Self, OwnedFd)> {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
        let length = u64::try_from(bytes).map_err(io::Error::other)?;
        rustix::fs::ftruncate(&file, length)?;
        Ok((Self::of_file(&file, bytes)?, file))
    }

    /// Whether its content was lost, because the file became shorter.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.watch.is_lost()
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where it is, for a kernel that wants to know.
    #[must_use]
    pub fn address(&self) -> usize {
        self.base.as_ptr().addr()
    }

    /// The address of a byte, if so many bytes from there on are inside.
    pub(super) fn at(&self, offset: usize, bytes: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(bytes)?;
        if end > self.bytes {
            return None;
        }
        // SAFETY: offset ≤ end ≤ bytes, and the mapping spans that many bytes from its base.
        Some(unsafe { self.base.add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before the addresses are anybody else's.
        self.watch.end();
        unmap(self.base, self.bytes);
    }
}

/// Unmaps what was mapped with this length and is used by nobody any more.
fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: mapped by us with this length, and whatever reaches into it holds the mapping alive.
    let unmapped = unsafe { rustix::mm::munmap(base.as_ptr().cast(), bytes) };
    debug_assert!(unmapped.is_ok(), "what was mapped can be unmapped");
}

#[cfg(test)]
mod tests {
    use super::super::{Window, lost_count};
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let (_kept, file) = Mapping::with_file("weft-test", 8192).unwrap();
        assert!(Mapping::of_file(&file, 8192).is_ok());
        assert!(Mapping::of_file(&file, 8193).is_err());
        assert!(Mapping::of_file(&file, 0).is_err());
        assert!(Mapping::of_file(&file, usize::MAX).is_err());
    }

    #[test]
    fn a_truncated_file_is_a_lost_mapping_and_no_end() {
        let (mapping, file) = Mapping::with_file("weft-test", 8192).unwrap();
        let (other, _file) = Mapping::with_file("weft-test", 4096).unwrap();
        let [mapping, other] = [mapping, other].map(Arc::new);
        let window = Window::new(&mapping, 4096, 8).unwrap();
        window.u64_put(0, 7, Ordering::Relaxed);
        assert!(!mapping.is_lost());
        let before = lost_count();
        rustix::fs::ftruncate(&file, 0).unwrap();
        assert_eq!(window.u64(0, Ordering::Relaxed), 0);
        window.u64_put(0, 9, Ordering::Relaxed);
        assert_eq!(window.u64(0, Ordering::Relaxed), 9, "memory of our own");
        assert!(mapping.is_lost() && !other.is_lost());
        assert!(lost_count() > before);
    }

    #[test]
    fn no_address_outside_is_given() {
        let (mapping, _file) = Mapping::with_file("weft-test", 4096).unwrap();
        assert!(mapping.at(0, 4096).is_some());
        assert!(mapping.at(4095, 1).is_some());
        assert!(mapping.at(4096, 1).is_none());
        assert!(mapping.at(1, 4096).is_none());
        assert!(mapping.at(usize::MAX, 2).is_none());
    }
}
