//! `make demo`: the canonical self-service workflow on real packets, on this machine, in half a minute.
//!
//! Exit status 0 only if every check holds. Leaves nothing behind, also when interrupted.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use weft_kit::WeftOptions;
use weft_tests_system::scene::Scene;
use weft_tests_system::{over_hosts, story, vm_story};

#[derive(Parser)]
#[command(about = "Shows Weft at work on real packets")]
struct Arguments {
    /// The weft binary; otherwise the one that was built beside this program.
    #[arg(long)]
    weft: Option<PathBuf>,
    /// With two virtual machines under QEMU, by vhost-user on the user engine (needs the guests' image: `make demo-vm` makes it).
    #[arg(long, conflicts_with = "hosts")]
    vm: bool,
    /// Over four hosts: two compute hosts, one with the external network, one outside; every step is looked for on the wire.
    #[arg(long)]
    hosts: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut options = WeftOptions::new(arguments.weft.clone())?;
    options.remove_on_stop = true;
    options.vhost_user = arguments.vm;
    if arguments.hosts {
        let report = over_hosts::play("weft-demo-hosts", options)?;
        report.table();
        return Ok(report.failures().is_empty());
    }
    let mut scene = Scene::open("weft-demo", &options)?;
    scene.report.remark(&format!(
        "weft all-in-one runs in the namespace {}: API, feed and database on its loopback, the agent, its programs",
        scene.host.name()
    ));
    if arguments.vm {
        if let Err(error) = vm_story::play(&mut scene) {
            scene.report.failure(&error);
        }
    } else {
        story::play_all(&mut scene);
    }
    let report = scene.close()?;
    report.table();
    Ok(report.failures().is_empty())
}
