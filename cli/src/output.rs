//! What is said on standard output and standard error.
//!
//! Guarantees: a reader that goes away (`weft stats | head`) is no error.

use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    print_on(text).map(drop)
}

/// Writes text to standard output; whether somebody still reads it.
pub(crate) fn print_on(text: &str) -> std::io::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a value as JSON and ends the line.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(print(&text)?)
}

/// Writes a line to standard error; there is nobody to tell if that fails.
pub(crate) fn complain(text: &str) {
    let _nobody = writeln!(std::io::stderr().lock(), "{text}");
}
