//! The token bucket in front of the host's services, one an input.

use weft_model::limits::{SERVICE_PACKETS_BURST, SERVICE_PACKETS_PER_SECOND};

/// A bucket; a new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    spent: u32,
    asked_s: u32,
}

impl Bucket {
    /// Takes one token; false if there is none. `now_s` in whole seconds of any clock that does not run backwards.
    pub fn take(&mut self, now_s: u32) -> bool {
        let gained = now_s
            .saturating_sub(self.asked_s)
            .saturating_mul(SERVICE_PACKETS_PER_SECOND);
        self.spent = self.spent.saturating_sub(gained);
        self.asked_s = now_s;
        let some = self.spent < SERVICE_PACKETS_BURST;
        self.spent += u32::from(some);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_one_more_does_not() {
        let mut bucket = Bucket::default();
        assert!((0..SERVICE_PACKETS_BURST).all(|_| bucket.take(1_000)));
        assert!(!bucket.take(1_000));
        assert!((0..SERVICE_PACKETS_PER_SECOND).all(|_| bucket.take(1_001)));
        assert!(!bucket.take(1_001));
    }
}
