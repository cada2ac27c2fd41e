//! Weft is killed or stopped under a stream between two guests, and starts again: they go on without a reset, no byte is lost, and a
//! connection that a security group lets pass by its session alone goes on.
//!
//! `make test-vm` runs this.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::path::Path;
use weft_kit::Lab;
use weft_kit::weft::{Site, WeftOptions};
use weft_tests_system::qemu::{Guest, Options};
use weft_tests_system::vm;

/// About 12 MB.
const LINES: usize = 1_700_000;
/// Pings, ten a second.
const PINGS: u32 = 50;
/// QEMU drops what a guest sends while nobody serves it, if the guest tells it.
const LOST_MAX: u32 = 20;
/// How late the latest may be, in ms: a second, and what a busy machine takes to start a process.
const LATE_MAX: f64 = 2_000.0;

fn boot(number: usize, socket: &Path) -> Result<Guest> {
    let mut guest = Guest::boot(&Options {
        listens: true,
        ..Options::numbered(number, socket)
    })?;
    guest.run(&format!("ip address add 10.0.0.{number}/24 dev eth0"))?;
    Ok(guest)
}

fn word(lines: &[String], length: usize) -> Result<String> {
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    let mut words = words.filter(|word| word.len() == length);
    let word = words.next().with_context(|| format!("{lines:?}"))?;
    Ok(word.to_owned())
}

#[test]
fn a_stream_outlives_the_engine_under_it() -> Result<()> {
    let lab = Lab::new("weft-vm")?;
    let host = lab.namespace("host")?;
    let mut options = WeftOptions::new(None)?;
    options.physical_networks.clear();
    let site = Site::new(&lab, &host, &options)?;
    let sockets = [0, 1].map(|n| lab.directory().join(format!("{n}.vhost")));
    let file = lab.directory().join("snapshot.json");
    // What the second guest answers with is let in by the sessions alone: they are taken over from a file.
    let snapshot = vm::two_ports(&sockets, ["server", "server"])?;
    std::fs::write(&file, serde_json::to_vec(&snapshot)?)?;
    let mut running = vm::switch(&lab, &site, &file)?;
    let mut one = boot(1, &sockets[0])?;
    let mut two = boot(2, &sockets[1])?;
    one.ping("10.0.0.2")?;

    one.run(&format!("seq 1 {LINES} > /tmp/sent"))?;
    two.tell("mkfifo /tmp/quiet; nc -l -p 22 <> /tmp/quiet | md5sum")?;
    one.run("ping -A -c 3 10.0.0.2 > /dev/null; (nc 10.0.0.2 22 < /tmp/sent > /dev/null 2>&1 &)")?;
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
        running.stop(signal)?;
        running = vm::switch(&lab, &site, &file)?;
        one.ping("10.0.0.2")?;
    }
    let sent = one.run("md5sum < /tmp/sent")?;
    let came = two.run("true")?;
    let (sent, came) = (word(&sent, 32)?, word(&came, 32)?);
    ensure!(sent == came, "sent {sent}, came {came}");

    // What is sent meanwhile comes late, if QEMU has let it wait in the rings.
    one.tell(&format!("ping -q -i 0.1 -c {PINGS} 10.0.0.2"))?;
    running.stop(Signal::KILL)?;
    running = vm::switch(&lab, &site, &file)?;
    let said = one.run("true")?.join(" ");
    let received = said.split(" packets received").next();
    let received = received.and_then(|start| start.rsplit(' ').next());
    let received: u32 = received
        .unwrap_or_default()
        .parse()
        .with_context(|| said.clone())?;
    let latest = said
        .rsplit('/')
        .next()
        .and_then(|end| end.split(' ').next());
    let latest: f64 = latest
        .unwrap_or_default()
        .parse()
        .with_context(|| said.clone())?;
    eprintln!("{received} of {PINGS} pings came back, the latest after {latest} ms");
    ensure!(PINGS - received <= LOST_MAX && latest < LATE_MAX, "{said}");
    let status = running.stop(Signal::TERM)?;
    ensure!(status.success(), "{status}: {}", site.log_end());
    Ok(())
}
