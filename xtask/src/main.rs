//! Weft's own chores, one subcommand a file. `cargo xtask --help` lists them.
//!
//! Guarantees: exit status 0 only if all that was asked for holds. Writes nothing but to standard output and, where a
//! subcommand says so, to the tree.

#![allow(
    clippy::print_stdout,
    reason = "a command for people, whose output is its purpose"
)]

mod bars;
mod conformance;
mod fuzz;
mod r#gen;
mod tidy;
mod tree;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Weft's own chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Write anew what is generated and committed.
    Gen,
    /// Check the house rules that a machine can check.
    Tidy,
    /// Measure the bars of an issue and print a line each; run as root on a quiet machine.
    Bars(bars::Arguments),
    /// Run OpenStack's own API suites against a server of their own.
    Conformance(conformance::Arguments),
    /// Fuzz what guests can write: the vhost-user protocol and both kinds of rings.
    Fuzz(fuzz::Arguments),
}

fn main() -> ExitCode {
    let holds = match Arguments::parse().chore {
        Chore::Gen => r#gen::run(),
        Chore::Tidy => tidy::run(),
        Chore::Bars(arguments) => bars::run(&arguments),
        Chore::Fuzz(arguments) => fuzz::run(&arguments),
        Chore::Conformance(arguments) => conformance::run(&arguments),
    };
    match holds {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
