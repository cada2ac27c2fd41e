//! A value that several threads read at the same time and one at a time changes: readers write a word of their own and nothing that
//! another reader writes, so that they do not slow each other.
//!
//! Guarantees: while somebody changes it nobody else reads or changes it. Each thread has a [`Handle`] of its own, of which guards
//! follow the rules of a `RefCell`. Whoever waits to change it comes before new readers; among those who wait there is no order.
//! Waiting is by looking again, for guards are held for microseconds.
//!
//! How: a reader says that it reads, then looks whether somebody changes; who changes says so, then looks whether anybody
//! reads. Between saying and looking each has a full fence, so that of two at least one sees the other.

use super::sync::{AtomicBool, Ordering, fence, pause};
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A flag on a line of its own, and on none that the processor fetches together with another one's.
#[repr(align(128))]
struct Flag(AtomicBool);

impl Flag {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }
}

struct Inner<T> {
    value: UnsafeCell<T>,
    changing: Flag,
    /// By handle.
    reading: Box<[Flag]>,
}

// SAFETY: the flags let in either one guard that changes or any number that read, as for `RwLock`.
unsafe impl<T: Send + Sync> Sync for Inner<T> {}

/// A thread's way to the value.
pub struct Handle<T> {
    inner: Arc<Inner<T>>,
    number: usize,
    /// Guards of this handle that read, or [`CHANGES`]. It also keeps the handle from being shared.
    guards: Cell<usize>,
}

const CHANGES: usize = usize::MAX;

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl<T> Handle<T> {
    /// So many handles of one value.
    #[must_use]
    pub fn all(value: T, count: usize) -> Vec<Self> {
        let inner = Arc::new(Inner {
            value: UnsafeCell::new(value),
            changing: Flag::new(),
            reading: (0..count).map(|_| Flag::new()).collect(),
        });
        let handle = |number| Self {
            inner: Arc::clone(&inner),
            number,
            guards: Cell::new(0),
        };
        (0..count).map(handle).collect()
    }

    /// This handle's flag; none if there is no other handle, and so nobody to tell. The fence costs a batch of frames 60 ns or more:
    /// it waits for all that was written to a guest.
    #[inline]
    fn own(&self) -> Option<&AtomicBool> {
        match &*self.inner.reading {
            [_alone] => None,
            all => all.get(self.number).map(|flag| &flag.0),
        }
    }

    /// Reads, together with others.
    ///
    /// # Panics
    /// A guard of this handle changes the value.
    #[inline]
    pub fn read(&self) -> Reading<'_, T> {
        let guards = self.guards.get();
        assert!(guards < CHANGES - 1, "this handle changes the value");
        self.guards.set(guards + 1);
        if let Some(own) = self.own().filter(|_| guards == 0) {
            let changing = &self.inner.changing.0;
            let mut turns = 0;
            loop {
                own.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                if !changing.load(Ordering::Acquire) {
                    break;
                }
                own.store(false, Ordering::Release);
                while changing.load(Ordering::Relaxed) {
                    pause(&mut turns);
                }
            }
        }
        Reading { handle: self }
    }

    /// Changes, alone.
    ///
    /// # Panics
    /// There is another guard of this handle.
    pub fn write(&self) -> Writing<'_, T> {
        assert_eq!(self.guards.get(), 0, "this handle has a guard already");
        self.guards.set(CHANGES);
        let changing = &self.inner.changing.0;
        let mut turns = 0;
        while changing
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            pause(&mut turns);
        }
        fence(Ordering::SeqCst);
        for flag in &self.inner.reading {
            while flag.0.load(Ordering::Acquire) {
                pause(&mut turns);
            }
        }
        Writing { handle: self }
    }
}

/// Reads the value.
#[derive(Debug)]
pub struct Reading<'a, T> {
    handle: &'a Handle<T>,
}

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: our flag is up (or ours is the only handle, and it does not change) and nobody changes, and nobody begins to
        // before it is down.
        unsafe { &*self.handle.inner.value.get() }
    }
}

impl<T> Drop for Reading<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let left = self.handle.guards.get() - 1;
        self.handle.guards.set(left);
        if let Some(own) = self.handle.own().filter(|_| left == 0) {
            own.store(false, Ordering::Release);
        }
    }
}

/// Changes the value.
#[derive(Debug)]
pub struct Writing<'a, T> {
    handle: &'a Handle<T>,
}

impl<T> Deref for Writing<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: we alone are in.
        unsafe { &*self.handle.inner.value.get() }
    }
}

impl<T> DerefMut for Writing<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: we alone are in, and this guard is borrowed for as long as the value is.
        unsafe { &mut *self.handle.inner.value.get() }
    }
}

impl<T> Drop for Writing<'_, T> {
    fn drop(&mut self) {
        self.handle.guards.set(0);
        self.handle.inner.changing.0.store(false, Ordering::Release);
    }
}
