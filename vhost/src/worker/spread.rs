//! Which worker polls which queue of a port: spread when the port is added, moved when one worker has more to do than another.
//!
//! Guarantees: whoever polls a queue holds its lock from taking frames to delivering them, so that a queue that moves keeps its
//! frames in their order. Until both workers have noticed, either may find nothing to do; none is left out: each looks at
//! all of its queues after it was told, and nobody else's notifications are asked for or taken away.

use crate::queue::QUEUE_PAIRS_MAX;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A worker whose work is this much more than another's, in sixteenths of its own, hands a queue over.
const UNEVEN: u64 = 4;
/// Units of work below which nothing is moved: frames of a second that a worker does in passing.
const WORK_MIN: u64 = 10_000;
/// Bytes whose copying costs as much as a frame does.
const FRAME_BYTES: u64 = 512;

/// Who polls the queues of one port, and what they give to do.
#[derive(Debug, Default)]
pub(super) struct Share {
    pollers: [AtomicUsize; QUEUE_PAIRS_MAX],
    work: [AtomicU64; QUEUE_PAIRS_MAX],
}

/// A queue that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The port, by its number among those that were given.
    pub(super) port: usize,
    pub(super) pair: usize,
    pub(super) to: usize,
}

impl Share {
    /// Pairs of the `nth` port over so many workers.
    pub(super) fn new(nth: usize, workers: usize) -> Self {
        let share = Self::default();
        for (pair, poller) in share.pollers.iter().enumerate() {
            poller.store((nth + pair).checked_rem(workers).unwrap_or(0), Relaxed);
        }
        share
    }

    /// Whether a worker polls a pair.
    #[inline]
    pub(super) fn is_polled_by(&self, pair: usize, worker: usize) -> bool {
        let poller = self.pollers.get(pair);
        poller.is_some_and(|poller| poller.load(Relaxed) == worker)
    }

    pub(super) fn give(&self, pair: usize, worker: usize) {
        if let Some(poller) = self.pollers.get(pair) {
            poller.store(worker, Relaxed);
        }
    }

    /// Counts work. Of two workers between which a queue moves one may be forgotten.
    #[inline]
    pub(super) fn worked(&self, pair: usize, frames: u64, bytes: u64) {
        if let Some(work) = self.work.get(pair) {
            let sum = work.load(Relaxed) + frames + bytes / FRAME_BYTES;
            work.store(sum, Relaxed);
        }
    }

    /// The work since the last time that was asked, by pair, with who polls it.
    fn work_take(&self) -> impl Iterator<Item = (usize, usize, u64)> + '_ {
        let both = self.pollers.iter().zip(&self.work).enumerate();
        both.map(|(pair, (poller, work))| (pair, poller.load(Relaxed), work.swap(0, Relaxed)))
    }
}

/// What to move so that the work since the last time would have been more even: one queue of the worker with the most, so that it
/// has less and nobody more than it had. None if it is even enough.
pub(super) fn balance<'a>(shares: impl Iterator<Item = &'a Share>, workers: usize) -> Option<Move> {
    let mut of_worker = vec![0u64; workers];
    let mut queues = Vec::new();
    for (port, share) in shares.enumerate() {
        for (pair, poller, work) in share.work_take().filter(|(_, _, work)| *work > 0) {
            if let Some(sum) = of_worker.get_mut(poller) {
                *sum += work;
            }
            queues.push((port, pair, poller, work));
        }
    }
    let (from, most) = of_worker.iter().enumerate().max_by_key(|(_, sum)| **sum)?;
    let (to, least) = of_worker.iter().enumerate().min_by_key(|(_, sum)| **sum)?;
    let gap = most - least;
    if *most < WORK_MIN || gap < most / 16 * UNEVEN {
        return None;
    }
    // What comes nearest to half of the gap leaves the least behind.
    let (port, pair, ..) = queues
        .into_iter()
        .filter(|(_, _, poller, work)| *poller == from && *work < gap)
        .min_by_key(|(_, _, _, work)| work.abs_diff(gap / 2))?;
    Some(Move { port, pair, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(nth: usize, work: &[u64]) -> Share {
        let share = Share::new(nth, 2);
        for (pair, frames) in work.iter().enumerate() {
            share.worked(pair, *frames, 0);
        }
        share
    }

    #[test]
    fn queues_are_spread_and_the_one_that_evens_most_moves() {
        let shares = [share(0, &[900_000, 0, 500_000]), share(1, &[100_000])];
        assert!(shares[0].is_polled_by(0, 0) && shares[0].is_polled_by(1, 1));
        assert!(shares[1].is_polled_by(0, 1) && !shares[1].is_polled_by(0, 0));
        let moved = balance(shares.iter(), 2);
        // 1,400,000 against 100,000: half of the gap is 650,000.
        let half = Move {
            port: 0,
            pair: 2,
            to: 1,
        };
        assert_eq!(moved, Some(half));
        shares[0].give(2, 1);
        assert!(shares[0].is_polled_by(2, 1));
        assert_eq!(balance(shares.iter(), 2), None, "work is counted once");
    }

    #[test]
    fn what_is_even_or_alone_or_little_stays() {
        for work in [
            [&[500_000][..], &[450_000]],
            [&[500_000], &[0]],
            [&[9_000, 0, 900], &[0]],
        ] {
            let shares = [share(0, work[0]), share(1, work[1])];
            assert_eq!(balance(shares.iter(), 2), None, "{work:?}");
        }
        let bytes = Share::new(0, 2);
        for (pair, frame_bytes) in [(0, 64), (2, 64), (4, 1_500)] {
            bytes.worked(pair, 10_000, 10_000 * frame_bytes);
        }
        let moved = balance([&bytes].into_iter(), 2).map(|moved| moved.pair);
        assert_eq!(moved, Some(4), "long frames are more work");
    }
}
