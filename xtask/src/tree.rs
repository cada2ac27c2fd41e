//! The files of the tree, as git lists them.

use std::path::PathBuf;
use std::process::Command;

/// What keeps a chore from being done at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot run `{command}`: {source}")]
    Start {
        command: String,
        source: std::io::Error,
    },
    #[error("`{command}` failed: {output}")]
    Failed { command: String, output: String },
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {source}", path.display())]
    Manifest {
        path: PathBuf,
        source: toml::de::Error,
    },
}

/// A file of the tree with its text; binary files have none.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: Option<String>,
}

/// All files that git tracks or would track.
pub(crate) fn files() -> Result<Vec<File>, Error> {
    let command = "git ls-files --cached --others --exclude-standard";
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default();
    let output = Command::new(program)
        .args(words)
        .output()
        .map_err(|source| Error::Start {
            command: command.to_owned(),
            source,
        })?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Failed {
            command: command.to_owned(),
            output,
        });
    }
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    listing
        .lines()
        .filter(|path| std::path::Path::new(path).is_file())
        .map(|path| {
            let bytes = std::fs::read(path).map_err(|source| Error::Read {
                path: path.into(),
                source,
            })?;
            let text = if bytes.contains(&0) {
                None
            } else {
                String::from_utf8(bytes).ok()
            };
            Ok(File {
                path: path.to_owned(),
                text,
            })
        })
        .collect()
}

/// Runs a command to its end, with what it says for the caller's eyes.
pub(crate) fn step(command: &mut Command) -> Result<(), Error> {
    let name = format!("{command:?}");
    let status = command.status().map_err(|source| Error::Start {
        command: name.clone(),
        source,
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Failed {
            command: name,
            output: status.to_string(),
        })
    }
}
