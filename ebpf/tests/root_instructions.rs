//! Instruction counts of the stages' programs, as loaded: a change is no mistake, but it must be seen. Needs root.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::TestEngine;
use std::fmt::Write;

/// What another kernel's verifier may add or take, in percent.
const TOLERANCE_PERCENT: u32 = 5;

/// Write the table anew with `WEFT_REGENERATE=1 cargo test -p weft-ebpf --test root_instructions`.
#[test]
fn programs_stay_as_small_as_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stage_instructions.txt");
    let engine = TestEngine::open();
    let mut table = String::from("# program instructions verified\n");
    for (name, info) in engine.programs().unwrap() {
        writeln!(
            table,
            "{name} {} {}",
            info.xlated_bytes / 8,
            info.verified_insns
        )
        .unwrap();
    }
    if std::env::var_os("WEFT_REGENERATE").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let counts = |text: &str| -> Vec<(String, u32)> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let fields = lines.map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        fields
            .map(|f| (f[0].clone(), f[1].parse().unwrap()))
            .collect()
    };
    let (have, want) = (
        counts(&table),
        counts(&std::fs::read_to_string(path).unwrap()),
    );
    assert_eq!(have.len(), want.len(), "{table}");
    for ((name, have), (wanted, want)) in have.into_iter().zip(want) {
        assert_eq!(name, wanted);
        let off = have.abs_diff(want) * 100;
        assert!(
            off <= want * TOLERANCE_PERCENT,
            "{name}: {have} instructions, {want} in the table"
        );
    }
}
