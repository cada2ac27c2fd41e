//! `cargo xtask gen`: writes anew what is generated and committed. The tests that compare it do so when they are told to.
//!
//! What needs root is not among it: `ebpf/tests/root_instructions.rs` says how its table is written.

use crate::tree::{Error, step};
use std::process::Command;

/// The tests that write: the API's description, and what compiled policies cost.
const WRITERS: &str = "(package(weft-control) & test(the_committed_description_is_this_one)) \
                       | (package(weft-ebpf) & test(instruction_counts))";

pub(crate) fn run() -> Result<bool, Error> {
    step(
        Command::new("cargo")
            .args(["nextest", "run", "--workspace", "-E", WRITERS])
            .env("WEFT_REGENERATE", "1"),
    )?;
    Ok(true)
}
