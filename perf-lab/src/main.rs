//! The lab: Weft's figures against peers, each printed with the bar that it is held to.
//!
//! Guarantees: traffic only inside namespaces that the run made; they are removed at the end. Peers and Weft are
//! measured in interleaved rounds of one run; every figure is a median, with all rounds in the JSON result.

#![allow(
    clippy::print_stdout,
    reason = "a command for people, whose output is its purpose"
)]

mod agents;
mod api;
mod bars;
mod classify;
mod differential;
mod enforce;
mod figures;
mod forward;
mod gateway;
mod limited;
mod members;
mod memory;
mod overlay;
mod process;
mod simulate;
mod traffic;
mod uplink;
mod user;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Weft's figures against peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the bars of an issue, a line each.
    Bars(bars::Arguments),
    /// Put the API's load on any Networking API.
    Load(api::Arguments),
    /// Run control and its feed with as many agents as there are hosts, whose engines stop before the kernel.
    Simulate(simulate::Arguments),
    /// Measure what XDP on the uplink would bring and cost on this machine (docs/adr/0013).
    Uplink {
        /// Interleaved rounds.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Send a stream from this namespace (used by the lab itself).
    #[command(hide = true)]
    Send(traffic::Stream),
    /// Take what arrives at a device of this namespace (used by the lab itself).
    #[command(hide = true)]
    Hold {
        device: String,
        arrival: traffic::Arrival,
        /// The device that frames go to.
        #[arg(long)]
        to: Option<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Bars(arguments) => return bars::run(&arguments),
        Command::Load(arguments) => bars::show(&api::load(&arguments)?, arguments.json())?,
        Command::Simulate(arguments) => simulate::run(&arguments)?,
        Command::Send(stream) => traffic::send(&stream)?,
        Command::Hold {
            device,
            arrival,
            to,
        } => traffic::hold(&device, arrival, to.as_deref())?,
        Command::Uplink { rounds } => uplink::run(rounds)?,
    }
    Ok(ExitCode::SUCCESS)
}
