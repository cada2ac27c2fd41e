//! Memory of a guest, for loom: as `weft_vhost::memory`, as far as rings and their driver need it.
#![allow(unsafe_code, reason = "the lock's own, which is what is checked")]

#[path = "../../../../vhost/src/memory/shared.rs"]
mod shared;
mod sync;

pub use loom::sync::atomic::fence;
pub use shared::{Handle, Reading, Writing};

use loom::sync::atomic::AtomicU16;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A word of memory.
#[derive(Clone, Debug)]
pub struct Word(Arc<AtomicU16>);

impl Word {
    /// Reads it.
    #[must_use]
    pub fn load(&self, order: Ordering) -> u16 {
        self.0.load(order)
    }
}

/// Two words in a row.
#[derive(Clone, Debug)]
pub struct Double([Word; 2]);

impl Double {
    /// Writes them, one after the other.
    pub fn store(&self, value: u32, order: Ordering) {
        let [a, b, c, d] = value.to_le_bytes();
        let halves = [[a, b], [c, d]].map(u16::from_le_bytes);
        for (word, half) in self.0.iter().zip(halves) {
            word.0.store(half, order);
        }
    }
}

/// Four words in a row.
#[derive(Clone, Debug)]
pub struct Wide([Word; 4]);

impl Wide {
    /// Reads them, one after the other.
    #[must_use]
    pub fn load(&self, order: Ordering) -> u64 {
        let words = self.0.iter().rev();
        words.fold(0, |sum, word| sum << 16 | u64::from(word.load(order)))
    }
}

/// All of a guest's memory.
#[derive(Debug)]
pub struct Mapping(Vec<Word>);

impl Mapping {
    /// So many bytes of zeros.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let word = |_| Word(Arc::new(AtomicU16::new(0)));
        Self((0..bytes / 2).map(word).collect())
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len() * 2
    }
}

/// A part of it.
#[derive(Clone, Debug)]
pub struct Window {
    words: Vec<Word>,
    doubles: Vec<Double>,
    wides: Vec<Wide>,
}

impl Window {
    /// None if it is not inside.
    #[must_use]
    pub fn new(mapping: &Arc<Mapping>, offset: usize, bytes: usize) -> Option<Self> {
        let words = mapping.0.get(offset / 2..(offset + bytes) / 2)?.to_vec();
        let (fours, _) = words.as_chunks::<4>();
        let wides = fours.iter().cloned().map(Wide).collect();
        let (twos, _) = words.as_chunks::<2>();
        let doubles = twos.iter().cloned().map(Double).collect();
        Some(Self {
            words,
            doubles,
            wides,
        })
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.words.len() * 2
    }

    /// It always is.
    #[must_use]
    pub fn is_aligned(&self, _bytes: usize) -> bool {
        true
    }

    /// All of it.
    #[must_use]
    pub fn u16s(&self) -> &[Word] {
        &self.words
    }

    /// Likewise.
    #[must_use]
    pub fn u32s(&self) -> &[Double] {
        &self.doubles
    }

    /// Likewise.
    #[must_use]
    pub fn u64s(&self) -> &[Wide] {
        &self.wides
    }

    /// A word.
    #[must_use]
    pub fn u16(&self, at: usize, order: Ordering) -> u16 {
        self.words[at / 2].load(order)
    }

    /// Writes one.
    pub fn u16_put(&self, at: usize, value: u16, order: Ordering) {
        self.words[at / 2].0.store(value, order);
    }

    /// Two words.
    #[must_use]
    pub fn u32(&self, at: usize, order: Ordering) -> u32 {
        let [low, high] = [at, at + 2].map(|at| u32::from(self.u16(at, order)));
        high << 16 | low
    }

    /// Writes two.
    pub fn u32_put(&self, at: usize, value: u32, order: Ordering) {
        let [a, b, c, d] = value.to_le_bytes();
        self.u16_put(at, u16::from_le_bytes([a, b]), order);
        self.u16_put(at + 2, u16::from_le_bytes([c, d]), order);
    }

    /// Four words.
    #[must_use]
    pub fn u64(&self, at: usize, order: Ordering) -> u64 {
        let [low, high] = [at, at + 4].map(|at| u64::from(self.u32(at, order)));
        high << 32 | low
    }

    /// Writes four.
    pub fn u64_put(&self, at: usize, value: u64, order: Ordering) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.u32_put(at, u32::from_le_bytes([a, b, c, d]), order);
        self.u32_put(at + 4, u32::from_le_bytes([e, f, g, h]), order);
    }

    /// Nothing to tell.
    pub fn prefetch(&self, _at: usize) {}

    /// Nor here.
    pub fn prefetch_write(&self, _at: usize) {}
}

/// A buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its length.
    pub bytes: u32,
    at: usize,
}

/// The same memory, by a guest's addresses, which start at 0.
#[derive(Clone, Debug)]
pub struct Regions(Window);

impl Regions {
    /// Of all of it.
    #[must_use]
    pub fn new(memory: Window) -> Self {
        Self(memory)
    }

    /// None outside.
    #[must_use]
    pub fn piece(&self, address: u64, bytes: usize, _hint: &Cell<usize>) -> Option<Piece> {
        let at = usize::try_from(address).ok()?;
        let inside = at + bytes <= self.0.bytes();
        let bytes = u32::try_from(bytes).ok()?;
        inside.then_some(Piece { bytes, at })
    }

    /// A piece's bytes.
    #[must_use]
    pub fn span(&self, piece: &Piece) -> Option<Span<'_>> {
        Some(Span(&self.0, *piece))
    }
}

/// Bytes of a piece.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a>(&'a Window, Piece);

impl Span<'_> {
    /// Copies whole words out.
    #[must_use]
    pub fn read(&self, into: &mut [u8]) -> usize {
        let (words, _) = into.as_chunks_mut::<2>();
        for (n, word) in words.iter_mut().enumerate() {
            *word = self
                .0
                .u16(self.1.at + 2 * n, Ordering::Relaxed)
                .to_le_bytes();
        }
        words.len() * 2
    }

    /// Copies whole words in.
    pub fn write(&self, from: &[u8]) -> usize {
        let (words, _) = from.as_chunks::<2>();
        for (n, word) in words.iter().enumerate() {
            let value = u16::from_le_bytes(*word);
            self.0.u16_put(self.1.at + 2 * n, value, Ordering::Relaxed);
        }
        words.len() * 2
    }
}

/// What a lock guards: loom tells if two are in at the same time and one of them writes.
#[derive(Debug)]
pub struct Guarded(loom::cell::UnsafeCell<u32>);

// SAFETY: loom's cell checks each access against all others.
unsafe impl Sync for Guarded {}

impl Guarded {
    /// With this value.
    #[must_use]
    pub fn new(value: u32) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    /// Reads it.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.with(|value| {
            // SAFETY: loom has checked that nobody writes.
            unsafe { *value }
        })
    }

    /// Adds to it.
    pub fn add(&mut self, count: u32) {
        self.0.with_mut(|value| {
            // SAFETY: loom has checked that nobody else is here.
            unsafe { *value += count }
        });
    }
}
