//! The API against its own description: schemathesis (from PyPI) makes requests of `/openapi.json`, good ones and bad ones,
//! and looks whether an answer is a server's error or not what the description says.
//!
//! Left out are streams, which have no end, and the built-in identity, whose own users the requests are made as.

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
    let status = Command::new(python.with_file_name("schemathesis"))
        .args(["run", &format!("{api}/openapi.json"), "--no-color"])
        .args(["--header", &format!("X-Auth-Token: {}", cloud.token)])
        .args(["--checks", CHECKS, "--continue-on-failure"])
        .args(["--phases", "coverage,fuzzing,stateful"])
        .args(["--max-examples", EXAMPLES, "--seed", SEED])
        .args(["--request-timeout", ANSWER_S])
        .args(["--generation-database", "none"])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .args(["--exclude-path", "/v2.0/events"])
        .args(["--exclude-path-regex", "^/identity"])
        .current_dir(logs)
        .status()
        .context("cannot start schemathesis")?;
    Ok(status.success())
}
