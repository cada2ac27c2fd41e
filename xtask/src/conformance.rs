//! `cargo xtask conformance`: OpenStack's own API suites against a `weft server`, both built in release.
//!
//! The running itself is tests/conformance's; arguments behind `--` go there. Exit status: whether all that neutron-server
//! passes passes.

use crate::tree::{Error, step};
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For weft-conformance: `--only TEXT`, `--workers N`; `--help` lists them.
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool, Error> {
    let packages = ["--package", "weft", "--package", "weft-tests-conformance"];
    step(
        Command::new("cargo")
            .args(["build", "--release"])
            .args(packages),
    )?;
    let suites = [
        "run",
        "--release",
        "--quiet",
        "--package",
        "weft-tests-conformance",
        "--",
    ];
    let status = Command::new("cargo")
        .args(suites)
        .args(&arguments.rest)
        .status()
        .map_err(|source| Error::Start {
            command: "weft-conformance".to_owned(),
            source,
        })?;
    Ok(status.success())
}
