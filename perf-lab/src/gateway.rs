//! Gateway loss: the host that answers outside dies under a thousand TCP connections, half by SNAT, half by a floating IP.

use crate::figures::Bar;
use anyhow::Result;
use weft_tests_system::gateways::loss;

/// Connections of each half.
const COUNT: usize = 500;
/// Times that it is tried.
const ROUNDS: usize = 3;
/// Milliseconds that no connection may wait longer than.
const GAP_MS_MAX: u64 = 1_000;

/// The bars, from as many rounds as fit into a few minutes.
pub(crate) fn bars(_rounds: usize) -> Result<Vec<Bar>> {
    let losses = (0..ROUNDS).map(|_| loss("weft-gwbars", COUNT));
    let losses = losses.collect::<Result<Vec<_>>>()?;
    let broken: u64 = losses
        .iter()
        .map(|loss| loss.lost.broken + loss.restarted.broken)
        .sum();
    let gaps: Vec<u64> = losses.iter().map(|loss| loss.lost.gap_ms).collect();
    let restarts: Vec<u64> = losses.iter().map(|loss| loss.restarted.gap_ms).collect();
    let worst = |gaps: &[u64]| gaps.iter().copied().max().unwrap_or(u64::MAX);
    let bar = |name: &str, bar: &str, figure: String, holds: bool, rounds: &[u64]| Bar {
        name: name.to_owned(),
        bar: bar.to_owned(),
        figure,
        holds,
        rounds: rounds
            .iter()
            .filter_map(|ms| u32::try_from(*ms).ok())
            .map(f64::from)
            .collect(),
    };
    Ok(vec![
        bar(
            "gateway loss: connections broken",
            "0",
            broken.to_string(),
            broken == 0,
            &[],
        ),
        bar(
            "gateway loss: longest gap of any connection",
            "≤ 1 s",
            format!("{} ms (each round: {gaps:?})", worst(&gaps)),
            worst(&gaps) <= GAP_MS_MAX,
            &gaps,
        ),
        bar(
            "gateway host's agent killed and started: longest gap",
            "≤ 1 s",
            format!("{} ms (each round: {restarts:?})", worst(&restarts)),
            worst(&restarts) <= GAP_MS_MAX,
            &restarts,
        ),
    ])
}
