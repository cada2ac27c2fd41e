//! The agent's clock: the only place where it is read. It is the kernel's monotonic clock, as the engine's programs read
//! it too, so that the seconds of sessions and of the agent are the same.

use crate::service::Millis;
use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the host started.
pub(crate) fn now() -> Millis {
    // The monotonic clock exists on every Linux; should it not, time stands still, and nothing is due.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| t.tv_sec() * 1_000 + t.tv_nsec() / 1_000_000);
    Millis::try_from(now).unwrap_or(0)
}

/// Nanoseconds since 1970, for what people look at.
pub(crate) fn wall_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |t| {
        i128::from(t.tv_sec()) * 1_000_000_000 + i128::from(t.tv_nsec())
    });
    u64::try_from(now).unwrap_or(0)
}
