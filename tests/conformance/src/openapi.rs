//! The API against its own description: schemathesis (from PyPI) makes requests of `/openapi.json`, good ones and bad ones,
//! and looks whether an answer is a server's error or not what the description says.
//!
//! The event stream is asked wrongly only, for a good request's answer has no end. The built-in identity is not asked about
//! what earlier answers named: requests are made as one of its users, whom one of them would delete.

use crate::cloud::Cloud;
use crate::python;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// What an answer must not be: a server's error, of an undescribed status, kind or shape.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";
/// The same requests in every run.
const SEED: &str = "1";
/// Requests of one operation that are made up at random, beside those that cover its schema.
const EXAMPLES: &str = "20";
/// Seconds that an answer may take.
const ANSWER_S: &str = "20";

/// What is asked in one run.
struct Part {
    /// What it is about, as arguments.
    paths: [&'static str; 2],
    /// How requests are made up.
    phases: &'static str,
    /// Whether they are good ones, bad ones, or both.
    mode: &'static str,
}

const PARTS: &[Part] = &[
    Part {
        paths: ["--exclude-path-regex", "^/identity|^/v2.0/events$"],
        phases: "coverage,fuzzing,stateful",
        mode: "all",
    },
    Part {
        paths: ["--include-path-regex", "^/identity"],
        phases: "coverage,fuzzing",
        mode: "all",
    },
    Part {
        paths: ["--include-path-regex", "^/v2.0/events$"],
        phases: "coverage,fuzzing",
        mode: "negative",
    },
];

/// Runs it; whether nothing was found. What was found is printed.
///
/// # Errors
/// PyPI cannot be reached, or schemathesis does not start.
pub fn run(folder: &Path, logs: &Path, api: &str, cloud: &Cloud) -> Result<bool> {
    let python = python::install(
        folder,
        "schemathesis",
        include_str!("../schemathesis/requirements.txt"),
        include_str!("../schemathesis/constraints.txt"),
    )?;
    let mut found_nothing = true;
    for part in PARTS {
        let status = Command::new(python.with_file_name("schemathesis"))
            .args(["run", &format!("{api}/openapi.json"), "--no-color"])
            .args(["--header", &format!("X-Auth-Token: {}", cloud.token)])
            .args(["--checks", CHECKS, "--continue-on-failure"])
            .args(["--phases", part.phases, "--mode", part.mode])
            .args(part.paths)
            .args(["--max-examples", EXAMPLES, "--seed", SEED])
            .args(["--request-timeout", ANSWER_S])
            .args(["--generation-database", "none"])
            .args(["--suppress-health-check", "all", "--warnings", "off"])
            .current_dir(logs)
            .status()
            .context("cannot start schemathesis")?;
        found_nothing &= status.success();
    }
    Ok(found_nothing)
}
