//! `make conformance`: OpenStack's own API suites (tempest.api.network and neutron_tempest_plugin.api, the tests that need
//! nothing but an API) against a `weft server` of its own, and how the results differ from neutron-server's.
//!
//! Guarantees: exit status 0 only if every test that ran and that neutron-server passes passes here; all is on loopback, on
//! ports that the kernel chooses, so that several runs do not meet; the server ends with the run. Python and the suites are
//! installed from PyPI, at pinned versions, into the target directory.

#![allow(
    clippy::print_stdout,
    reason = "a command for people, whose output is its purpose"
)]

mod agent;
mod cloud;
mod python;
mod reference;
mod report;
mod server;
mod suite;

use anyhow::{Context, Result};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Hosts whose ports turn ACTIVE as soon as they are bound. Some tests need two.
const HOSTS: &[&str] = &["conformance-1", "conformance-2"];

#[derive(Parser)]
#[command(about = "Runs OpenStack's API suites against Weft")]
struct Arguments {
    /// Only tests whose full name contains this; may be repeated.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Only the part that CI runs: `part.txt` names it.
    #[arg(long, conflicts_with = "only")]
    part: bool,
    /// Processes that run tests.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    workers: u8,
    /// The weft binary; otherwise the one that was built beside this program.
    #[arg(long)]
    weft: Option<PathBuf>,
    /// Where suites are installed and logs are left.
    #[arg(long, default_value = "target/conformance")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let mut only = arguments.only.clone();
    if arguments.part {
        only.extend(reference::part());
    }
    let reference = reference::Reference::read(&only)?;
    std::fs::create_dir_all(&arguments.folder)
        .with_context(|| arguments.folder.display().to_string())?;
    let folder = arguments.folder.canonicalize()?;
    let python = python::install(
        &folder,
        "tempest",
        include_str!("../tempest/requirements.txt"),
        include_str!("../tempest/constraints.txt"),
    )?;
    let logs = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(&folder)?;
    let server = server::Server::start(program(arguments)?.as_path(), logs.path())?;
    let _agents: Vec<agent::Agent> = HOSTS
        .iter()
        .map(|host| agent::Agent::start(&server.feed, host))
        .collect::<Result<_>>()?;
    let cloud = cloud::Cloud::login(&server.api, server::PASSWORD)?;
    let extensions = cloud.extensions()?;
    let public = cloud.prepare(&extensions)?;
    let config = suite::config(logs.path(), &cloud, &public, &extensions);
    std::fs::write(logs.path().join("tempest.conf"), config)?;
    println!(
        "{} tests, {} extensions",
        reference.tests.len(),
        extensions.len()
    );
    let outcomes = suite::run(&python, logs.path(), &reference, arguments.workers)?;
    server.stop()?;
    let report = report::Report::new(&reference, &outcomes);
    report.write(logs.path())?;
    report.print();
    if !report.holds() {
        // Whoever has a failure wants to read them.
        println!("logs in {}", logs.keep().display());
    }
    Ok(report.holds())
}

/// The binary that is to be tested.
fn program(arguments: &Arguments) -> Result<PathBuf> {
    let named = arguments
        .weft
        .clone()
        .or_else(|| std::env::var_os("WEFT").map(PathBuf::from));
    let beside = || -> Result<PathBuf> {
        let this = std::env::current_exe()?;
        Ok(this.parent().unwrap_or(Path::new("/")).join("weft"))
    };
    let program = named.map_or_else(beside, Ok)?;
    program.canonicalize().with_context(|| {
        format!(
            "no weft at {}: build it with `cargo build -p weft`",
            program.display()
        )
    })
}
