//! Ctrl-C in the middle of the demo: it says so, ends with the shell's status for it, and leaves nothing.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use weft_kit::WeftOptions;
use weft_kit::clock::until;
use weft_kit::kernel::KernelObjects;
use weft_kit::lab::{PINS_DIR, namespace_exists};

const TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn an_interrupted_demo_leaves_nothing() -> Result<()> {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_weft-demo"))
        .arg("--weft")
        .arg(WeftOptions::new(None)?.program)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let run = format!("weft-demo-{}-0", demo.id());
    // In the middle: guests are plugged, so that programs are attached.
    until("the demo's first guest", TIMEOUT, || {
        Ok(namespace_exists(&format!("{run}-guest1")).then_some(()))
    })?;
    let weft = weft_of(&run)?;
    let objects = KernelObjects::of(weft)?;

    kill_process(Pid::from_child(&demo), Signal::INT)?;
    let status = until("the end of the demo", TIMEOUT, || Ok(demo.try_wait()?))?;
    assert_eq!(status.code(), Some(130));
    for name in ["host", "outside", "guest1", "guest2", "guest3"] {
        assert!(
            !namespace_exists(&format!("{run}-{name}")),
            "{name} is left"
        );
    }
    assert!(!Path::new(PINS_DIR).join(&run).exists(), "pins are left");
    assert!(
        !Path::new(&format!("/proc/{weft}")).exists(),
        "weft is left"
    );
    objects.wait_until_gone()
}

/// The weft process of a run: the one inside its host's namespace.
fn weft_of(run: &str) -> Result<u32> {
    let pids = weft_kit::command::run(&format!("ip netns pids {run}-host"))?;
    let mut numbers = pids
        .split_whitespace()
        .filter_map(|word| word.parse::<u32>().ok());
    let is_weft = |id: &u32| {
        std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "weft")
    };
    numbers
        .find(is_weft)
        .context("no weft in the host's namespace")
}
