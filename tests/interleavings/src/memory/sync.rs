//! What the lock is made of, by loom.

pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};

/// Lets somebody else go on.
pub(super) fn pause(_turns: &mut u32) {
    loom::thread::yield_now();
}
