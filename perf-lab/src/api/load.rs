//! Load on a Networking API: how many callers do what, how often it was done, and how long each time took.

use super::http::{Client, Target};
use crate::figures::quantile;
use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One round.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// Done in a second, all callers together.
    pub(crate) per_s: f64,
    /// Milliseconds that each took, all callers together.
    pub(crate) ms: Vec<f64>,
}

impl Round {
    pub(crate) fn p99_ms(&self) -> f64 {
        quantile(&self.ms, 0.99)
    }
}

/// What is sent: method, path, body.
pub(crate) type Request = (&'static str, String, String);

/// The n-th request of all callers.
pub(crate) type Requests = Box<dyn Fn(u64) -> Request + Sync>;

/// `ways` callers with a connection each, who send one request after the other for `time`. `request` makes the n-th of
/// all. An answer other than 2xx ends it.
pub(crate) fn closed_loop(
    target: &Target,
    ways: usize,
    time: Duration,
    request: &(dyn Fn(u64) -> Request + Sync),
) -> Result<Round> {
    let number = AtomicU64::new(0);
    let start = now();
    let caller = || -> Result<Vec<f64>> {
        let mut client = Client::new(target);
        let mut ms = Vec::new();
        while start.elapsed() < time {
            let (method, path, body) = request(number.fetch_add(1, Ordering::Relaxed));
            let sent = now();
            let answer = client.send(method, &path, &body)?;
            ms.push(sent.elapsed().as_secs_f64() * 1_000.0);
            ensure!(
                (200..300).contains(&answer.status),
                "{method} {path}: {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        Ok(ms)
    };
    let all = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..ways).map(|_| scope.spawn(caller)).collect();
        let mut all = Vec::new();
        for caller in callers {
            match caller.join() {
                Ok(ms) => all.extend(ms?),
                Err(_panic) => anyhow::bail!("a caller panicked"),
            }
        }
        Ok(all)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let done = all.len() as f64;
    Ok(Round {
        per_s: done / seconds,
        ms: all,
    })
}

/// Milliseconds that something takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let start = now();
    let done = work()?;
    Ok((done, start.elapsed().as_secs_f64() * 1_000.0))
}

#[allow(clippy::disallowed_methods, reason = "the lab measures time")]
fn now() -> Instant {
    Instant::now()
}
