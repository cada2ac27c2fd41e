//! The kit's clock, and the only place where it waits: for what is needed, with a deadline, never for a while.

use anyhow::{Result, bail};
use std::time::{Duration, Instant, SystemTime};

/// How long until a condition is looked at again.
pub const POLL: Duration = Duration::from_millis(5);

/// Now, for measuring.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the kit's one clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Now, in seconds since 1970, for comparing with what other programs print.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the kit's one clock")]
pub fn wall_s() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |past| past.as_secs_f64())
}

/// The pause between two looks at a condition, or between two messages of a stream.
#[allow(
    clippy::disallowed_methods,
    reason = "the kit's one pause: nothing waits for a while in the hope that something has happened"
)]
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Waits until `look` gives something.
///
/// # Errors
/// `what` did not come in time, or `look` failed.
pub fn until<T>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > timeout {
            bail!("waited {timeout:?} in vain for {what}");
        }
        pause(POLL);
    }
}
