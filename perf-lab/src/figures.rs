//! Bars and figures: what was promised, what was measured, and whether the one holds the other.

use serde::Serialize;

/// A figure with the bar that it is held to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Bar {
    /// What is measured.
    pub(crate) name: String,
    /// What was promised.
    pub(crate) bar: String,
    /// What was measured, with its spread.
    pub(crate) figure: String,
    /// Whether the figure holds the bar.
    pub(crate) holds: bool,
    /// Every round, in the order taken.
    pub(crate) rounds: Vec<f64>,
}

/// A sample's median and quartiles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

/// The quartiles of a sample; zeros for an empty one.
pub(crate) fn spread(sample: &[f64]) -> Spread {
    Spread {
        low: quantile(sample, 0.25),
        median: quantile(sample, 0.5),
        high: quantile(sample, 0.75),
    }
}

/// The value below which `share` (0 to 1) of the sample lies, by the nearest rank.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank in a sample that fits in memory, clamped to it"
)]
pub(crate) fn quantile(sample: &[f64], share: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.clamp(1, sorted.len().max(1)) - 1)
        .copied()
        .unwrap_or(0.0)
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.0} ({:.0} to {:.0})",
            self.median, self.low, self.high
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_nearest_rank() {
        let sample = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert!((quantile(&sample, 0.5) - 3.0).abs() < 1e-9);
        assert!((quantile(&sample, 0.99) - 5.0).abs() < 1e-9);
        assert!((quantile(&[], 0.5)).abs() < 1e-9);
    }
}
