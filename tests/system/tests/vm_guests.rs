//! Real guests: QEMU with virtio-net over vhost-user on Weft's user engine, run by an agent on a snapshot file.
//!
//! `make test-vm` makes the guests' image and runs this. The guests run under TCG, so that it works wherever QEMU does.

#![allow(
    clippy::unwrap_used,
    reason = "a test: helpers outside of its functions may panic too"
)]

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use weft_kit::weft::{Site, WeftOptions};
use weft_kit::{Lab, clock};
use weft_tests_system::qemu::{Guest, Options};
use weft_tests_system::vm;

const TIMEOUT: Duration = Duration::from_secs(20);

/// The first guest dials and Weft listens; the second one listens, and Weft dials.
fn boot(number: usize, socket: &Path) -> Result<Guest> {
    Guest::boot(&Options {
        listens: number != 1,
        ..Options::numbered(number, socket)
    })
}

/// What a guest sends and is sent is captured, with what becomes of it.
fn captured(lab: &Lab, site: &Site, guest: &mut Guest) -> Result<()> {
    let file = lab.directory().join("guest.pcapng");
    let port = "00000005-0000-4000-8000-000000000000";
    let mut command = site.command(&format!("capture --why --count 6 --port {port}"))?;
    command.arg("--socket").arg(&site.socket);
    let mut capture = lab.spawn(command.arg("--write").arg(&file))?;
    clock::until("the capture to begin", TIMEOUT, || {
        let begun = std::fs::metadata(&file).is_ok_and(|file| file.len() > 0);
        Ok(begun.then_some(()))
    })?;
    guest.ping("10.0.0.2")?;
    let status = capture.wait(TIMEOUT)?;
    ensure!(status.success(), "weft capture: {status}");
    let bytes = std::fs::read(&file)?;
    let words = "delivered to port 00000005-0000-4000-8000-000000000001";
    let explained = bytes.windows(words.len());
    let explained = explained.filter(|part| *part == words.as_bytes()).count();
    ensure!(
        explained >= 2,
        "{explained} of 3 echo requests are explained"
    );
    Ok(())
}

#[test]
fn two_guests_live_through_what_happens_to_guests_and_to_weft() -> Result<()> {
    let lab = Lab::new("weft-vm")?;
    let host = lab.namespace("host")?;
    let mut options = WeftOptions::new(None)?;
    options.physical_networks.clear();
    let site = Site::new(&lab, &host, &options)?;
    let sockets = [0, 1].map(|n| lab.directory().join(format!("{n}.sock")));
    let file = lab.directory().join("snapshot.json");
    std::fs::write(
        &file,
        serde_json::to_vec(&vm::two_ports(&sockets, ["client", "server"])?)?,
    )?;
    let running = vm::switch(&lab, &site, &file)?;

    let mut one = boot(1, &sockets[0])?;
    let mut two = boot(2, &sockets[1])?;
    one.dhcp("10.0.0.1/24")?;
    two.dhcp("10.0.0.2/24")?;
    one.ping("10.0.0.2")?;
    two.ping("10.0.0.1")?;

    // The group allows TCP 22 from its members, and no other TCP port.
    two.tell(
        "for port in 22 80; do (while true; do echo served-$port | nc -l -p $port; done) & done",
    )?;
    // Until it listens, the connection is refused by the guest itself.
    let patient =
        "for try in 1 2 3 4 5; do nc -w 10 10.0.0.2 22 </dev/null && break; sleep 1; done";
    let served = one.run(patient)?;
    ensure!(
        served.iter().any(|line| line.contains("served-22")),
        "{served:?}"
    );
    let (lines, status) = one.tried("nc -w 3 10.0.0.2 80 </dev/null")?;
    ensure!(
        status != 0 && !lines.iter().any(|line| line.contains("served")),
        "{lines:?}"
    );

    captured(&lab, &site, &mut one)?;

    // One command answers for both engines.
    let stats = site.ask("stats")?;
    let dropped = stats["drops"].as_array().context("drops")?;
    let denied = |drop: &Value| drop["reason"] == "security_group_ingress_denied";
    ensure!(dropped.iter().any(denied), "{stats}");
    let sessions = site.ask("sessions")?;
    ensure!(
        sessions["sessions"]
            .as_array()
            .is_some_and(|s| !s.is_empty()),
        "{sessions}"
    );

    // A guest reboots; another one is killed and starts again.
    two.tell("reboot -f")?;
    two.booted()?;
    two.dhcp("10.0.0.2/24")?;
    one.ping("10.0.0.2")?;
    one.kill()?;
    let mut one = boot(1, &sockets[0])?;
    one.dhcp("10.0.0.1/24")?;
    one.ping("10.0.0.2")?;

    // Weft is killed and starts again: the guests go on without a reset.
    running.stop(Signal::KILL)?;
    let running = vm::switch(&lab, &site, &file)?;
    one.ping("10.0.0.2")?;
    two.ping("10.0.0.1")?;

    drop(one);
    two.run("ip link show eth0")?;
    let status = running.stop(Signal::TERM)?;
    ensure!(
        status.success(),
        "weft run ended with {status}: {}",
        site.log_end()
    );
    ensure!(!sockets[0].exists(), "Weft's socket is removed");
    Ok(())
}
