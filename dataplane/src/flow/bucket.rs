//! Token buckets, one an input: in front of the host's services, of the copies of multicast and broadcast frames, and of what is
//! written down.

use weft_model::limits::{
    LOGS_BURST, LOGS_PER_SECOND, MULTICAST_COPIES_BURST, MULTICAST_COPIES_PER_SECOND,
    SERVICE_PACKETS_BURST, SERVICE_PACKETS_PER_SECOND,
};

/// A bucket; a new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    spent: u32,
    asked_s: u32,
}

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Tokens for every whole second.
    pub per_second: u32,
    /// Tokens of a full one.
    pub burst: u32,
}

/// Frames for the host's services.
pub const SERVICE: Fill = Fill {
    per_second: SERVICE_PACKETS_PER_SECOND,
    burst: SERVICE_PACKETS_BURST,
};

/// Copies of multicast and broadcast frames.
pub const MULTICAST: Fill = Fill {
    per_second: MULTICAST_COPIES_PER_SECOND,
    burst: MULTICAST_COPIES_BURST,
};

/// Decisions that are written down.
pub const LOG: Fill = Fill {
    per_second: LOGS_PER_SECOND,
    burst: LOGS_BURST,
};

impl Bucket {
    /// Takes tokens; false if there are none. The last ones may be owed. `now_s` in whole seconds of any clock that does not
    /// run backwards.
    pub fn take(&mut self, fill: Fill, tokens: u32, now_s: u32) -> bool {
        let gained = now_s
            .saturating_sub(self.asked_s)
            .saturating_mul(fill.per_second);
        self.spent = self.spent.saturating_sub(gained);
        self.asked_s = now_s;
        let some = self.spent < fill.burst;
        if some {
            self.spent += tokens;
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_one_more_does_not() {
        let mut bucket = Bucket::default();
        assert!((0..SERVICE_PACKETS_BURST).all(|_| bucket.take(SERVICE, 1, 1_000)));
        assert!(!bucket.take(SERVICE, 1, 1_000));
        assert!((0..SERVICE_PACKETS_PER_SECOND).all(|_| bucket.take(SERVICE, 1, 1_001)));
        assert!(!bucket.take(SERVICE, 1, 1_001));
    }

    #[test]
    fn the_last_tokens_may_be_owed() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(MULTICAST, MULTICAST_COPIES_BURST - 1, 1_000));
        assert!(bucket.take(MULTICAST, 512, 1_000));
        assert!(!bucket.take(MULTICAST, 1, 1_000));
        assert!(bucket.take(MULTICAST, 1, 1_001), "a second paid most of it");
    }
}
