//! `weft guest`: becomes the program `weft-guest`, which alone is linked with libvirt (ADR 9).

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Its name; it is looked for beside this program, then in the path.
const PROGRAM: &str = "weft-guest";

/// Comes back only if it cannot.
pub(crate) fn become_it(arguments: &[OsString]) -> anyhow::Error {
    let beside = std::env::current_exe()
        .ok()
        .map(|path| path.with_file_name(PROGRAM))
        .filter(|path| path.is_file());
    let program = beside.unwrap_or_else(|| PROGRAM.into());
    let error = Command::new(&program).args(arguments).exec();
    if error.kind() == ErrorKind::NotFound {
        return anyhow::anyhow!(
            "{PROGRAM} is neither beside weft nor in the path: build it with \
             `cargo build --release --package weft-guest` (it needs libvirt-dev)"
        );
    }
    anyhow::Error::new(error).context(program.display().to_string())
}
