//! `make conformance`: OpenStack's own API suites (tempest.api.network and neutron_tempest_plugin.api, the tests that need
//! nothing but an API) against a `weft server` of its own, and how the results differ from neutron-server's.
//!
//! With `--openapi` it lets schemathesis try the API against its own description instead.
//!
//! Guarantees: exit status 0 only if every test that ran and that neutron-server passes passes here; all is on loopback, on
//! ports that the kernel chooses, so that several runs do not meet; the server ends with the run. Python and the suites are
//! installed from PyPI, at pinned versions, into the target directory.

#![allow(
    clippy::print_stdout,
    reason = "a command for people, whose output is its purpose"
)]

use anyhow::{Context, Result};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use weft_tests_conformance::agent::Agent;
use weft_tests_conformance::cloud::Cloud;
use weft_tests_conformance::keystone::Keystone;
use weft_tests_conformance::reference::{self, Reference};
use weft_tests_conformance::report::Report;
use weft_tests_conformance::server::{self, Server};
use weft_tests_conformance::{openapi, python, suite};

/// Seconds for which Weft remembers Keystone's word: the default of its configuration.
const TOKEN_CACHE_S: u32 = 5;
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
    /// With the tokens of a real Keystone instead of Weft's own identity.
    #[arg(long)]
    keystone: bool,
    /// Not the suites, but the API against its own description, by schemathesis.
    #[arg(long, conflicts_with_all = ["only", "part"])]
    openapi: bool,
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
    let reference = Reference::read(&only)?;
    let weft = server::program(arguments.weft.as_deref())?;
    std::fs::create_dir_all(&arguments.folder)
        .with_context(|| arguments.folder.display().to_string())?;
    let folder = arguments.folder.canonicalize()?;
    let logs = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(&folder)?;
    let keystone = match arguments.keystone {
        true => Some(Keystone::start(&folder, &logs.path().join("keystone"))?),
        false => None,
    };
    let identity = match &keystone {
        Some(keystone) => {
            keystone.prepare()?;
            keystone.config(TOKEN_CACHE_S)
        }
        None => server::builtin(),
    };
    let server = Server::start(&weft, logs.path(), &identity)?;
    let auth_url = match &keystone {
        Some(keystone) => {
            keystone.register(&weft, &logs.path().join("weft.toml"), &server.api)?;
            keystone.url.clone()
        }
        None => format!("{}/identity/v3", server.api),
    };
    let agents = HOSTS.iter().map(|host| Agent::start(&server.feed, host));
    let _agents: Vec<Agent> = agents.collect::<Result<_>>()?;
    let cloud = Cloud::admin(&auth_url, &server.api, server::PASSWORD)?;
    let extensions = cloud.extensions()?;
    let public = cloud.prepare(&extensions)?;
    if arguments.openapi {
        let found_nothing = openapi::run(&folder, logs.path(), &server.api, &cloud)?;
        server.stop()?;
        if !found_nothing {
            println!("logs in {}", logs.keep().display());
        }
        return Ok(found_nothing);
    }
    let python = python::install(
        &folder,
        "tempest",
        include_str!("../tempest/requirements.txt"),
        include_str!("../tempest/constraints.txt"),
    )?;
    let config = suite::config(logs.path(), &cloud, &public, &extensions);
    std::fs::write(logs.path().join("tempest.conf"), config)?;
    println!(
        "{} tests, {} extensions",
        reference.tests.len(),
        extensions.len()
    );
    let outcomes = suite::run(&python, logs.path(), &reference, arguments.workers)?;
    server.stop()?;
    let report = Report::new(&reference, &outcomes);
    report.write(logs.path())?;
    report.print();
    if !report.holds() {
        // Whoever has a failure wants to read them.
        println!("logs in {}", logs.keep().display());
    }
    Ok(report.holds())
}
