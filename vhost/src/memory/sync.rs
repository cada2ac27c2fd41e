//! What the lock of [`super::Handle`] is made of; its model replaces this by what explores all orders.

pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Looks so often without a break; then whoever is in may need this processor.
const TURNS: u32 = 1_000;

/// Between two looks.
pub(super) fn pause(turns: &mut u32) {
    *turns += 1;
    if turns.is_multiple_of(TURNS) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}
