//! A histogram of durations with fixed buckets, as Prometheus reads them. Bounded, no clock, no I/O.

use serde::Serialize;
use std::time::Duration;

/// Upper bounds of the buckets in milliseconds, included; the last bucket has none.
const BOUNDS_MS: [u64; 14] = [1, 2, 3, 5, 7, 10, 20, 30, 50, 100, 200, 500, 1_000, 5_000];

/// A histogram of API-to-enforced latencies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// By bucket: how many were at most its bound and above the bound before.
    buckets: [u64; BOUNDS_MS.len() + 1],
    /// Sum of all in microseconds.
    sum_us: u64,
    /// How many.
    count: u64,
}

impl Latency {
    pub(super) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS.partition_point(|bound| bound * 1_000 < us);
        self.buckets[bucket] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.count += 1;
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// (upper bound in milliseconds, how many are at most that), cumulative; none is the bucket without a bound.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = BOUNDS_MS.iter().copied().map(Some).chain([None]);
        bounds.zip(self.buckets).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }

    /// The bound of the bucket that holds the `percent`th percentile, in milliseconds; none if nothing was recorded
    /// or if it lies above the last bound.
    #[must_use]
    pub fn percentile_ms(&self, percent: u64) -> Option<u64> {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        self.cumulative().find(|(_, count)| *count >= wanted)?.0
    }

    /// The mean in milliseconds.
    #[must_use]
    pub fn mean_ms(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
        let mean = |sum: u64, count: u64| sum as f64 / count as f64 / 1_000.0;
        (self.count > 0).then(|| mean(self.sum_us, self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let mut latency = Latency::default();
        assert_eq!((latency.percentile_ms(99), latency.mean_ms()), (None, None));
        for us in [0, 1_000, 1_001, 2_000] {
            latency.record(Duration::from_micros(us));
        }
        latency.record(Duration::MAX);
        let cumulative: Vec<_> = latency.cumulative().collect();
        assert_eq!(cumulative[..2], [(Some(1), 2), (Some(2), 4)]);
        assert_eq!(cumulative.last(), Some(&(None, 5)));
        assert_eq!(
            (latency.percentile_ms(50), latency.percentile_ms(99)),
            (Some(2), None)
        );
    }
}
