//! What can go wrong in the engine, by what the caller can do about it.

use crate::sys::SysError;

/// Why the engine refused.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The host lacks something; [`crate::check_host`] says what and what to do.
    #[error("this host cannot run the kernel engine: {}", list(missing))]
    Host {
        /// All that is missing.
        missing: Vec<crate::MissingFeature>,
    },
    /// Another process has what this instance made.
    #[error(
        "another agent runs as instance {instance:?} (it holds {}): stop it, or give this one another instance and socket",
        directory.display()
    )]
    Taken {
        /// The instance.
        instance: String,
        /// Where its pins are.
        directory: std::path::PathBuf,
    },
    /// The snapshot does not fit the sizes that the engine was opened with.
    #[error("too many {what} for this engine: at most {max}")]
    Full {
        /// Which table.
        what: &'static str,
        /// Its size.
        max: usize,
    },
    /// The object could not be loaded: a bug, or no memory.
    #[error("the programs' object does not load")]
    Object {
        /// What aya said.
        source: Box<aya::EbpfError>,
    },
    /// The verifier refused a program. What was in force stays in force.
    #[error("the verifier refused program {name}:\n{log}")]
    Refused {
        /// Which program.
        name: &'static str,
        /// The last lines of its log.
        log: String,
        /// What aya said.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks a program or map: a bug.
    #[error("the programs' object has no {name}")]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// Security groups could not be enforced.
    #[error(transparent)]
    Policy(#[from] crate::policy::PolicyError),
    /// bpf(2) failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// A file operation failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// No such port or network is in the applied snapshot.
    #[error("{what} is not in the snapshot that is in force")]
    Unknown {
        /// Which.
        what: String,
    },
}

fn list(missing: &[crate::MissingFeature]) -> String {
    let texts: Vec<String> = missing.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
