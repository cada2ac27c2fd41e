//! What is said on standard output and standard error. A reader that goes away is no error.

use std::io::{ErrorKind, Write};

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes a line to standard error; there is nobody to tell if that fails.
pub(crate) fn complain(text: &str) {
    let _nobody = writeln!(std::io::stderr().lock(), "{text}");
}
