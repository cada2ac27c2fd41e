//! The lab: Weft's figures against peers, each printed with the bar that it is held to.
//!
//! Guarantees: traffic only inside namespaces that the run made; they are removed at the end. Peers and Weft are
//! measured in interleaved rounds of one run; every figure is a median, with all rounds in the JSON result.

#![allow(
    clippy::print_stdout,
    reason = "a command for people, whose output is its purpose"
)]

mod traffic;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Weft's figures against peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send a stream from this namespace (used by the lab itself).
    #[command(hide = true)]
    Send(traffic::Stream),
    /// Take what arrives at a device of this namespace (used by the lab itself).
    #[command(hide = true)]
    Hold {
        device: String,
        arrival: traffic::Arrival,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Send(stream) => traffic::send(&stream),
        Command::Hold { device, arrival } => traffic::hold(&device, arrival),
    }
}
