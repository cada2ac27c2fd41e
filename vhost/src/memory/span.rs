//! A piece of shared memory, as a descriptor names it: copied from, copied to, never looked at in place.

use std::marker::PhantomData;
use std::ptr::NonNull;

/// A piece of shared memory that is wholly inside its mapping, for as long as that is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    base: NonNull<u8>,
    bytes: usize,
    mapping: PhantomData<&'a super::Mapping>,
}

// SAFETY: a span only copies bytes; see `Mapping`.
unsafe impl Send for Span<'_> {}

impl<'a> Span<'a> {
    /// Callers have checked that so many bytes from `base` on are inside of a mapping that is borrowed for `'a`.
    pub(super) fn new(base: NonNull<u8>, bytes: usize) -> Self {
        Self {
            base,
            bytes,
            mapping: PhantomData,
        }
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The part from `offset` on; empty if there is none.
    #[must_use]
    pub fn behind(&self, offset: usize) -> Self {
        let offset = offset.min(self.bytes);
        // SAFETY: offset ≤ bytes, and that many bytes from base on are inside of the mapping.
        let base = unsafe { self.base.add(offset) };
        Self::new(base, self.bytes - offset)
    }

    /// The first `bytes` of it; all of it if there are not so many.
    #[must_use]
    pub fn first(&self, bytes: usize) -> Self {
        Self::new(self.base, bytes.min(self.bytes))
    }

    /// Copies the first bytes out, as many as both have, and says how many.
    #[inline]
    pub fn read(&self, into: &mut [u8]) -> usize {
        let bytes = self.bytes.min(into.len());
        // SAFETY: both sides have so many bytes; `into` is ours alone, so they do not overlap.
        unsafe { copy(self.base.as_ptr(), into.as_mut_ptr(), bytes) };
        bytes
    }

    /// Copies bytes in, as many as both have, and says how many.
    #[inline]
    pub fn write(&self, from: &[u8]) -> usize {
        let bytes = self.bytes.min(from.len());
        // SAFETY: both sides have so many bytes; `from` is ours, so they do not overlap.
        unsafe { copy(from.as_ptr(), self.base.as_ptr(), bytes) };
        bytes
    }

    /// Copies from one guest to another (or to the same, where both pieces may overlap), as many bytes as both have,
    /// and says how many.
    #[inline]
    pub fn copy_to(&self, into: &Span<'_>) -> usize {
        let bytes = self.bytes.min(into.bytes);
        // SAFETY: both sides have so many bytes; `copy` allows that they overlap.
        unsafe { std::ptr::copy(self.base.as_ptr(), into.base.as_ptr(), bytes) };
        bytes
    }

    /// The first eight bytes as a number, in the order of their places; none if there are not so many.
    #[inline]
    #[must_use]
    pub fn word(&self) -> Option<u64> {
        if self.bytes < 8 {
            return None;
        }
        // SAFETY: eight bytes from base on are inside of the mapping, and any of their values is a number.
        let word = unsafe { self.base.cast::<u64>().as_ptr().read_unaligned() };
        Some(u64::from_le(word))
    }

    /// Tells the processor that the first bytes will be read soon.
    #[inline]
    pub fn prefetch(&self) {
        super::hint::fetch(self.base.as_ptr());
    }

    /// Tells the processor that the first bytes will be written soon.
    #[inline]
    pub fn prefetch_write(&self) {
        super::hint::fetch_to_write(self.base.as_ptr());
    }
}

/// What wide moves carry, and up to how many bytes they are quicker than a call.
const WIDE: usize = 64;
const WIDE_MAX: usize = 192;

/// Copies bytes that do not overlap; a small frame's in place, by wide moves, of which the last two overlap.
///
/// # Safety
/// Both sides have so many bytes, and they do not overlap.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    if !(WIDE..=WIDE_MAX).contains(&bytes) {
        // SAFETY: as the caller says.
        unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
        return;
    }
    let mut at = 0;
    while at + WIDE <= bytes {
        let (from, to) = (from.wrapping_add(at), to.wrapping_add(at));
        // SAFETY: at + WIDE ≤ bytes, which both sides have.
        unsafe { std::ptr::copy_nonoverlapping(from, to, WIDE) };
        at += WIDE;
    }
    if at < bytes {
        let (from, to) = (
            from.wrapping_add(bytes - WIDE),
            to.wrapping_add(bytes - WIDE),
        );
        // SAFETY: WIDE ≤ bytes: the last of them, which both sides have.
        unsafe { std::ptr::copy_nonoverlapping(from, to, WIDE) };
    }
}
