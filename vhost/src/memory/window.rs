//! A part of shared memory that is read and written in words: a ring.
//!
//! Accesses outside read as zero and write nowhere; a ring checks its length once, when it is set up.

use super::Mapping;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A part of a mapping, kept alive by it.
#[derive(Clone, Debug)]
pub struct Window {
    base: NonNull<u8>,
    bytes: usize,
    /// Held, not read: it keeps the addresses mapped.
    _mapping: Arc<Mapping>,
}

// SAFETY: all access is by atomics; see `Mapping`.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// A part of a mapping; none if it is not inside.
    #[must_use]
    pub fn new(mapping: &Arc<Mapping>, offset: usize, bytes: usize) -> Option<Self> {
        let base = mapping.at(offset, bytes)?;
        Some(Self {
            base,
            bytes,
            _mapping: Arc::clone(mapping),
        })
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it starts at a multiple of so many bytes.
    #[must_use]
    pub fn is_aligned(&self, bytes: usize) -> bool {
        self.base.as_ptr().addr().is_multiple_of(bytes)
    }

    /// The address of a word that is inside and aligned.
    #[inline]
    fn word<T>(&self, at: usize) -> Option<&T> {
        let end = at.checked_add(size_of::<T>())?;
        if end > self.bytes {
            return None;
        }
        // SAFETY: at ≤ end ≤ bytes, which are inside of the mapping.
        let address = unsafe { self.base.add(at) }.cast::<T>();
        if !address.is_aligned() {
            return None;
        }
        // SAFETY: inside, aligned, mapped as long as we are; T is one of the atomics below, for which every bit pattern
        // is valid and which others may change meanwhile.
        Some(unsafe { address.as_ref() })
    }

    /// All of it as aligned words; none if it is not aligned to them.
    #[inline]
    fn words<T>(&self) -> &[T] {
        let base = self.base.cast::<T>();
        if !base.is_aligned() {
            return &[];
        }
        // SAFETY: so many whole words are inside, aligned, and mapped as long as we are; T is one of the atomics below,
        // for which every bit pattern is valid and which others may change meanwhile.
        unsafe { std::slice::from_raw_parts(base.as_ptr(), self.bytes / size_of::<T>()) }
    }

    /// All of it as 16-bit words (little-endian, as they stand), for loops over a ring: its bounds are looked up once.
    #[inline]
    #[must_use]
    pub fn u16s(&self) -> &[AtomicU16] {
        self.words()
    }

    /// All of it as 32-bit words, likewise.
    #[inline]
    #[must_use]
    pub fn u32s(&self) -> &[AtomicU32] {
        self.words()
    }

    /// All of it as 64-bit words, likewise.
    #[inline]
    #[must_use]
    pub fn u64s(&self) -> &[AtomicU64] {
        self.words()
    }

    /// A 16-bit word.
    #[inline]
    #[must_use]
    pub fn u16(&self, at: usize, order: Ordering) -> u16 {
        self.word::<AtomicU16>(at)
            .map_or(0, |word| u16::from_le(word.load(order)))
    }

    /// Writes a 16-bit word.
    #[inline]
    pub fn u16_put(&self, at: usize, value: u16, order: Ordering) {
        if let Some(word) = self.word::<AtomicU16>(at) {
            word.store(value.to_le(), order);
        }
    }

    /// A 32-bit word.
    #[inline]
    #[must_use]
    pub fn u32(&self, at: usize, order: Ordering) -> u32 {
        self.word::<AtomicU32>(at)
            .map_or(0, |word| u32::from_le(word.load(order)))
    }

    /// Writes a 32-bit word.
    #[inline]
    pub fn u32_put(&self, at: usize, value: u32, order: Ordering) {
        if let Some(word) = self.word::<AtomicU32>(at) {
            word.store(value.to_le(), order);
        }
    }

    /// A 64-bit word.
    #[inline]
    #[must_use]
    pub fn u64(&self, at: usize, order: Ordering) -> u64 {
        self.word::<AtomicU64>(at)
            .map_or(0, |word| u64::from_le(word.load(order)))
    }

    /// Writes a 64-bit word.
    #[inline]
    pub fn u64_put(&self, at: usize, value: u64, order: Ordering) {
        if let Some(word) = self.word::<AtomicU64>(at) {
            word.store(value.to_le(), order);
        }
    }

    /// Sets bits of a byte; whoever sees them sees what was written before.
    #[inline]
    pub fn u8_or(&self, at: usize, bits: u8) {
        if let Some(byte) = self.word::<AtomicU8>(at) {
            byte.fetch_or(bits, Ordering::Release);
        }
    }

    /// Tells the processor that the words at `at` will be written soon.
    #[inline]
    pub fn prefetch_write(&self, at: usize) {
        // A prefetch may name any address.
        super::hint::fetch_to_write(self.base.as_ptr().wrapping_add(at.min(self.bytes)));
    }

    /// Tells the processor that the words at `at` will be read soon.
    #[inline]
    pub fn prefetch(&self, at: usize) {
        // A prefetch may name any address.
        super::hint::fetch(self.base.as_ptr().wrapping_add(at.min(self.bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_outside_are_zero_and_writes_go_nowhere() {
        let (mapping, _file) = Mapping::with_file("weft-test", 4096).unwrap();
        let mapping = Arc::new(mapping);
        assert!(Window::new(&mapping, 4090, 7).is_none());
        let window = Window::new(&mapping, 4080, 16).unwrap();
        window.u64_put(8, u64::MAX, Ordering::Relaxed);
        assert_eq!(window.u64(8, Ordering::Relaxed), u64::MAX);
        assert_eq!(window.u16(14, Ordering::Relaxed), u16::MAX);
        window.u32_put(14, 7, Ordering::Relaxed);
        window.u16_put(usize::MAX, 7, Ordering::Relaxed);
        assert_eq!(window.u32(14, Ordering::Relaxed), 0);
        assert_eq!(window.u16(15, Ordering::Relaxed), 0, "not aligned");
    }
}
