//! Running other programs: to the end and with their words kept, or in the background.

use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

/// Runs a command line (split at blanks: no quoting) and gives its standard output.
///
/// # Errors
/// It cannot be started, or ends with another status than 0: with what it said on standard error.
pub fn run(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command line")?;
    output(Command::new(program).args(words)).with_context(|| line.to_owned())
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// As [`run`].
pub fn output(command: &mut Command) -> Result<String> {
    let output = outcome(command)?;
    let error = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end, whatever its status.
///
/// # Errors
/// It cannot be started.
pub fn outcome(command: &mut Command) -> Result<Output> {
    // Its own process group: a Ctrl-C at the terminal is for the kit, which then ends what it started, in order.
    command
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .with_context(|| {
            format!("cannot start {command:?}: is it installed? (scripts/install.sh installs all)")
        })
}
