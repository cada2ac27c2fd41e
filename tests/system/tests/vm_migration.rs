//! A guest moves to another host while a stream fills its memory: QEMU's live migration, which asks each host's engine for the pages
//! that it writes.
//!
//! `make test-vm` runs this.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weft_kit::clock::{pause, until};
use weft_kit::weft::{Site, WeftOptions};
use weft_kit::{Lab, lab::Process};
use weft_tests_system::qemu::{Guest, Options};
use weft_tests_system::vm;

const TIMEOUT: Duration = Duration::from_secs(60);
/// About 0.1 MB: more than a pipe holds, less than a pipe and a socket.
const LINES: usize = 20_000;

/// A host: its engine, and the sockets of its two ports.
struct Host {
    running: Process,
    site: Site,
    sockets: [PathBuf; 2],
}

impl Host {
    fn start(lab: &Lab, name: &str) -> Result<Self> {
        let namespace = lab.namespace(name)?;
        let mut options = WeftOptions::new(None)?;
        options.physical_networks.clear();
        let site = Site::of_host(lab, &namespace, name, &options)?;
        let sockets = [0, 1].map(|n| lab.directory().join(format!("{name}-{n}.vhost")));
        let snapshot = vm::two_ports(&sockets, ["client", "client"])?;
        let file = lab.directory().join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec(&snapshot)?)?;
        Ok(Self {
            running: vm::switch(lab, &site, &file)?,
            site,
            sockets,
        })
    }

    fn stop(self) -> Result<()> {
        let status = self.running.stop(Signal::TERM)?;
        ensure!(status.success(), "{status}: {}", self.site.log_end());
        Ok(())
    }
}

/// QEMU's monitor.
struct Monitor(UnixStream);

impl Monitor {
    fn open(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("the monitor")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut monitor = Self(stream);
        monitor.prompt()?;
        Ok(monitor)
    }

    fn prompt(&mut self) -> Result<String> {
        let (mut text, mut bytes) = (String::new(), [0; 4_096]);
        while !text.ends_with("(qemu) ") {
            let count = self.0.read(&mut bytes)?;
            ensure!(count > 0, "the monitor closed after {text:?}");
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        Ok(text)
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        self.0.write_all(format!("{command}\n").as_bytes())?;
        self.prompt()
    }
}

/// A number that the monitor says behind these words.
fn number(state: &str, name: &str) -> Result<u64> {
    let behind = state
        .split(name)
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    Ok(behind.with_context(|| state.to_owned())?.parse()?)
}

fn word(lines: &[String], length: usize) -> Result<String> {
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    let mut words = words.filter(|word| word.len() == length);
    let word = words.next().with_context(|| format!("{lines:?}"))?;
    Ok(word.to_owned())
}

fn boot(number: usize, socket: &Path, arguments: &[String]) -> Result<Guest> {
    let mut options = Options::numbered(number, socket);
    options.arguments = arguments.to_vec();
    let mut guest = Guest::boot(&options)?;
    guest.run(&format!("ip address add 10.0.0.{number}/24 dev eth0"))?;
    Ok(guest)
}

#[test]
fn a_guest_moves_while_a_stream_fills_its_memory() -> Result<()> {
    let lab = Lab::new("weft-vm")?;
    let [here, there] = ["here", "there"].map(|name| Host::start(&lab, name));
    let (here, there) = (here?, there?);
    let [monitor, moved] = ["monitor", "moved"].map(|name| lab.directory().join(name));
    let listens = format!("unix:{},server=on,wait=off", monitor.display());
    let mut one = boot(1, &here.sockets[0], &["-monitor".to_owned(), listens])?;
    let mut two = boot(2, &here.sockets[1], &[])?;
    let mut other = boot(2, &there.sockets[1], &[])?;
    let mut options = Options::numbered(1, &there.sockets[0]);
    options.arguments = vec!["-incoming".to_owned(), format!("unix:{}", moved.display())];
    let mut target = Guest::start(&options)?;
    until("the other QEMU to wait", TIMEOUT, || {
        Ok(moved.exists().then_some(()))
    })?;
    one.ping("10.0.0.2")?;

    // Slowly, so that the stream comes while it moves.
    let mut monitor = Monitor::open(&monitor)?;
    monitor.ask("migrate_set_parameter max-bandwidth 3M")?;
    two.run(&format!("seq 1 {LINES} > /tmp/sent"))?;
    // Nobody reads what comes before the guest has moved: it stays in the buffers that the engine wrote.
    one.run("mkfifo /tmp/quiet /tmp/go")?;
    one.run("(nc -l -p 22 <> /tmp/quiet | (read go < /tmp/go; md5sum) > /tmp/sum &)")?;
    let started = monitor.ask(&format!("migrate -d unix:{}", moved.display()))?;
    ensure!(!started.contains("rror"), "{started}");
    // Most pages have gone once when it comes.
    until("most of the memory to have gone", TIMEOUT, || {
        pause(Duration::from_millis(50));
        let state = monitor.ask("info migrate")?;
        let left = number(&state, "remaining ram: ")?;
        Ok((left * 8 < number(&state, "total ram: ")?).then_some(()))
    })?;
    two.run("(for try in 1 2 3 4 5; do nc 10.0.0.1 22 < /tmp/sent && break; sleep 1; done &)")?;
    pause(Duration::from_millis(500));
    let state = monitor.ask("info migrate")?;
    ensure!(
        state.contains("Migration status: active"),
        "the stream took too long: {state}"
    );
    monitor.ask("migrate_set_parameter max-bandwidth 10G")?;
    let end = until("the move to be over", TIMEOUT, || {
        pause(Duration::from_millis(100));
        let state = monitor.ask("info migrate")?;
        ensure!(
            !state.contains("failed"),
            "{state}: {}",
            here.site.log_end()
        );
        Ok(state
            .contains("Migration status: completed")
            .then_some(state))
    })?;
    eprintln!("{end}");
    drop(one);

    // What the engine wrote while it moved is there.
    let sent = two.run("md5sum < /tmp/sent")?;
    target.run("echo > /tmp/go")?;
    let came = target.run("while [ ! -s /tmp/sum ]; do sleep 0.1; done; cat /tmp/sum")?;
    let (sent, came) = (word(&sent, 32)?, word(&came, 32)?);
    ensure!(sent == came, "sent {sent}, came {came}");
    target.ping("10.0.0.2")?;
    other.ping("10.0.0.1")?;

    drop((two, other, target));
    here.stop()?;
    there.stop()
}
