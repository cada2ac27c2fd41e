//! The one place of this crate that reads a clock.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// The monotonic clock.
#[allow(
    clippy::disallowed_methods,
    reason = "the worker owns its clock and hands the time on"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// When the machine started: the time since then is the same for a process that comes later.
pub(crate) fn machine_start() -> Instant {
    let since = clock_gettime(ClockId::Monotonic);
    let parts = (u64::try_from(since.tv_sec), u32::try_from(since.tv_nsec));
    let now = now();
    match parts {
        (Ok(s), Ok(ns)) => now.checked_sub(Duration::new(s, ns)).unwrap_or(now),
        _ => now,
    }
}
