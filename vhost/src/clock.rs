//! The one place of this crate that reads a clock.

use std::time::Instant;

/// The monotonic clock.
#[allow(
    clippy::disallowed_methods,
    reason = "the worker owns its clock and hands the time on"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
