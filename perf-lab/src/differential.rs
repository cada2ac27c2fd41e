//! The random differential test of the reference engine and the loaded programs, as a bar: how many frames differed.

use crate::figures::Bar;
use anyhow::{Context, Result};
use std::process::Command;

/// Frames compared for each way that the kernel executes a policy, for every round asked for.
const FRAMES_A_ROUND: usize = 10_000;
/// Interpreted and compiled.
const WAYS: usize = 2;

/// The bar: no difference.
pub(crate) fn bars(rounds: usize) -> Result<Vec<Bar>> {
    let frames = rounds.max(1) * FRAMES_A_ROUND;
    let output = Command::new("cargo")
        .args([
            "nextest",
            "run",
            "--package",
            "weft-tests-engines",
            "--profile",
            "root",
        ])
        .args(["--no-capture", "-E", "binary(root_differential)"])
        .env("WEFT_DIFFERENTIAL_FRAMES", frames.to_string())
        .output()
        .context("cargo nextest")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let summary = text
        .lines()
        .rev()
        .find(|line| line.contains("Summary"))
        .unwrap_or("no summary");
    let figure = if output.status.success() {
        format!("0 in {} frames ({})", WAYS * frames, summary.trim())
    } else {
        format!(
            "some: {}; run `cargo nextest run -p weft-tests-engines --profile root`",
            summary.trim()
        )
    };
    Ok(vec![Bar {
        name: "differential cases with a difference".to_owned(),
        bar: "0".to_owned(),
        figure,
        holds: output.status.success(),
        rounds: Vec::new(),
    }])
}
