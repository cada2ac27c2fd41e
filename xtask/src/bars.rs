//! `cargo xtask bars WORD`: each bar of an issue with its figure, measured now.
//!
//! The measuring itself is the perf-lab's; this builds it in release and runs it, so that one command stands for the
//! promise. Exit status: whether all bars hold.

use crate::tree::{Error, step};
use clap::ValueEnum;
use std::process::Command;

/// Whose bars.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    /// Issue "The main job, on real packets, in one command".
    Main,
    /// Issue "The API fast, on a database that several servers share".
    Api,
    /// Issue "The user engine: a vhost-user switch for KVM guests".
    User,
    /// Issue "Many hosts: overlay and distributed routing, no network node".
    Hosts,
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which issue's bars.
    word: Word,
    /// Only bars whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool, Error> {
    let release = [
        "build",
        "--release",
        "--package",
        "weft",
        "--package",
        "weft-perf-lab",
    ];
    step(Command::new("cargo").args(release))?;
    let word = match arguments.word {
        Word::Main => "main",
        Word::Api => "api",
        Word::User => "user",
        Word::Hosts => "hosts",
    };
    let lab = [
        "run",
        "--release",
        "--quiet",
        "--package",
        "weft-perf-lab",
        "--",
        "bars",
        word,
    ];
    let status = Command::new("cargo")
        .args(lab)
        .args(["--only", &arguments.only])
        .status()
        .map_err(|source| Error::Start {
            command: "weft-perf-lab".to_owned(),
            source,
        })?;
    Ok(status.success())
}
