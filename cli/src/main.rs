//! The `weft` command: argument parsing, configuration, starting and stopping, printing.
//!
//! Guarantees: a mistake in what it is given is refused before anything is touched, with exit status 1 (2 for the command
//! line) and a sentence on standard error. It holds no rule of the API and nothing about packets.

mod allocator;
mod arguments;
mod ask;
mod config;
mod daemon;
mod feed;
mod guest;
mod identity;
mod log;
mod openrc;
mod output;
mod server;
mod snapshot_file;
mod table;

use arguments::{Arguments, Command, Feed, Identity};
use clap::{CommandFactory, Parser};
use config::Config;
use daemon::SwitchAlone;
use std::process::ExitCode;

/// Threads that run tasks. Two serve the API while a policy is compiled; more would only cost memory.
const WORKERS: usize = 2;
/// Threads for what blocks (files, names).
const BLOCKING_THREADS_MAX: usize = 8;
/// Bytes of a thread's stack.
const STACK_BYTES: usize = 1 << 20;

fn main() -> ExitCode {
    allocator::hand_back_at_once();
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let json = arguments.json;
    match arguments.command {
        Command::AllInOne(args) => {
            let config = arguments::config(
                args.common,
                Some(args.control),
                Some((args.host, args.control_socket.socket)),
                None,
            )?;
            start(&config, json, daemon::all_in_one(&config))
        }
        Command::Server(args) => {
            let config = arguments::config(args.common, Some(args.control), None, None)?;
            start(&config, json, daemon::server(&config))
        }
        Command::Agent(args) => {
            let config = arguments::config(
                args.common,
                None,
                Some((args.host, args.control_socket.socket)),
                args.feed_url,
            )?;
            start(&config, json, daemon::agent(&config))
        }
        Command::Run(args) => {
            let (sockets, control_socket) = args.sockets()?;
            let host = Some((args.host, control_socket.clone()));
            let config = arguments::config(args.common, None, host, None)?;
            if sockets.is_empty() && args.underlay.is_some() {
                anyhow::bail!("--underlay: needs a port's socket, --socket PORT=PATH");
            }
            if sockets.is_empty() {
                start(&config, json, daemon::run(&config, args.snapshot))
            } else {
                let switch = SwitchAlone {
                    sockets,
                    underlay: args.underlay,
                    control_socket,
                    cpus: args.cpu,
                    sessions_file: args.sessions_file,
                };
                start(
                    &config,
                    json,
                    daemon::switch(&config, args.snapshot, switch),
                )
            }
        }
        Command::Trace(args) => ask(ask::trace(&args, json)),
        Command::Status(args) => ask(ask::status(&args, json)),
        Command::Stats(args) => ask(ask::stats(&args, json)),
        Command::Sessions(args) => ask(ask::sessions(&args, json)),
        Command::Capture(args) => ask(ask::capture(&args)),
        Command::Guest { arguments } => Err(guest::become_it(&arguments)),
        Command::Openrc(args) => openrc::openrc(&Config::load(args.config.as_deref())?, json),
        Command::Feed(Feed::Token(args)) => ask(feed::token(&args, json)),
        Command::Feed(Feed::Revoke(args)) => ask(feed::revoke(&args, json)),
        Command::Identity(Identity::Register(args)) => ask(identity::register(&args, json)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "weft", &mut script);
            Ok(output::print(&String::from_utf8(script)?)?)
        }
    }
}

/// Runs a daemon.
fn start(
    config: &Config,
    json: bool,
    daemon: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    log::start(&config.log, json)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()?;
    let done = runtime.block_on(daemon);
    // A thread that blocks (a name that does not resolve) must not hold up the end.
    runtime.shutdown_background();
    done
}

/// Asks the agent, or another service.
fn ask(question: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(question)
}
