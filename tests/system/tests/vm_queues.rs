//! Guests of several queues under two workers: real ones under QEMU, and DPDK's. Frames are compared whole.
//!
//! `make test-vm` runs this.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use weft_kit::lab::Process;
use weft_kit::weft::{Site, WeftOptions};
use weft_kit::{Lab, clock};
use weft_tests_system::qemu::{Guest, Options};
use weft_tests_system::vhost_guest::Device;
use weft_tests_system::vm;
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Of the lab's snapshot.
const NETWORK_ID: &str = "00000002-0000-4000-8000-000000000000";
const SUBNET_ID: &str = "00000003-0000-4000-8000-000000000006";
/// Of a guest under QEMU.
const QUEUES: u16 = 2;
/// About 0.5 MB.
const LINES: usize = 80_000;
/// Queue pairs of DPDK's guest and of ours; frames under way at once, and how often.
const PAIRS: u16 = 4;
const WINDOW: u16 = 128;
const ROUNDS: u16 = 60;

/// The lab's two ports without a policy, in both families.
fn ports(lab: &Lab, sockets: &[PathBuf; 2]) -> Result<PathBuf> {
    let mut snapshot = vm::two_ports(sockets, ["client", "client"])?;
    snapshot["subnets"][SUBNET_ID] = json!({
        "network_id": NETWORK_ID, "cidr": "fd00::/64", "gateway_ip": null, "enable_dhcp": false,
    });
    let ports = snapshot["ports"].as_object_mut().context("ports")?;
    for (number, port) in (1..).zip(ports.values_mut()) {
        port["port_security_enabled"] = json!(false);
        port["security_groups"] = json!([]);
        let fixed_ips = port["fixed_ips"].as_array_mut().context("fixed_ips")?;
        fixed_ips.push(json!({"subnet_id": SUBNET_ID, "ip_address": format!("fd00::{number}")}));
    }
    let file = lab.directory().join("snapshot.json");
    std::fs::write(&file, serde_json::to_vec(&snapshot)?)?;
    Ok(file)
}

fn boot(number: usize, socket: &Path) -> Result<Guest> {
    let mut options = Options::numbered(number, socket);
    options.queues = QUEUES;
    let mut guest = Guest::boot(&options)?;
    guest.run(&format!("ip address add 10.0.0.{number}/24 dev eth0"))?;
    guest.run(&format!(
        "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; ip address add fd00::{number}/64 dev eth0"
    ))?;
    guest.run("mkfifo /tmp/quiet")?;
    let queues = guest.run("ls /sys/class/net/eth0/queues")?.join(" ");
    for queue in ["rx-0", "rx-1", "tx-0", "tx-1"] {
        ensure!(queues.contains(queue), "{queues}");
    }
    Ok(guest)
}

/// The word of this length that a command said, beside its shell's prompt.
fn word(lines: &[String], length: usize) -> Result<String> {
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    let mut words = words.filter(|word| word.len() == length);
    let word = words.next().with_context(|| format!("{lines:?}"))?;
    Ok(word.to_owned())
}

/// A stream from each processor, which has a queue of its own: all data arrives as it was sent.
fn streams(from: &mut Guest, to: &mut Guest, address: &str) -> Result<()> {
    for queue in 0..QUEUES {
        // With an input that never ends: at its end it would hang up.
        to.tell("nc -l -p 22 <> /tmp/quiet | md5sum")?;
        let processor = 1 << queue;
        // Until it listens, the connection is refused by the guest itself.
        from.run(&format!(
            "seq 1 {LINES} > /tmp/sent; for try in 1 2 3 4 5; do \
             taskset {processor} nc {address} 22 < /tmp/sent && break; sleep 1; done"
        ))?;
        let sent = word(&from.run("md5sum < /tmp/sent")?, 32)?;
        let came = word(&to.run("true")?, 32)?;
        ensure!(
            sent == came,
            "{address}, queue {queue}: sent {sent}, came {came}"
        );
    }
    Ok(())
}

/// Hundredths of a second that each polling thread ran.
fn polled(process: u32) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        let (before, behind) = stat.rsplit_once(')').context("stat")?;
        let name = before.split_once('(').context("stat")?.1;
        let fields: Vec<&str> = behind.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        if name.starts_with("weft-poll-") {
            let used = ticks(11).zip(ticks(12)).context("stat")?;
            found.push((name.to_owned(), used.0 + used.1));
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn streams_use_all_queues_of_guests_under_two_workers() -> Result<()> {
    let lab = Lab::new("weft-vm")?;
    let host = lab.namespace("host")?;
    let mut options = WeftOptions::new(None)?;
    options.physical_networks.clear();
    let site = Site::new(&lab, &host, &options)?;
    site.agent_set("vhost_user = { cpus = [0, 1] }")?;
    let sockets = [0, 1].map(|n| lab.directory().join(format!("{n}.sock")));
    let file = ports(&lab, &sockets)?;
    let running = vm::switch(&lab, &site, &file)?;
    let mut one = boot(1, &sockets[0])?;
    let mut two = boot(2, &sockets[1])?;
    for (own, other) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        streams(&mut one, &mut two, other)?;
        streams(&mut two, &mut one, own)?;
    }
    let polled = polled(running.id())?;
    eprintln!("{polled:?}");
    ensure!(polled.len() == 2, "{polled:?}");
    ensure!(polled.iter().all(|(_, ticks)| *ticks > 0), "{polled:?}");
    drop((one, two));
    let status = running.stop(Signal::TERM)?;
    ensure!(status.success(), "{status}: {}", site.log_end());
    Ok(())
}

/// The switch alone, with two workers.
fn switch(lab: &Lab, sockets: &[PathBuf; 2], log: &Path) -> Result<Process> {
    let snapshot = ports(lab, sockets)?;
    let mut command = Command::new(WeftOptions::new(None)?.program);
    command.args(["run", "--log", "info,weft_vhost=debug", "--cpu", "0,1"]);
    command.arg("--snapshot").arg(snapshot);
    for (port, socket) in sockets.iter().enumerate() {
        command.arg("--socket");
        command.arg(format!("vm{port}={}", socket.display()));
    }
    let log = File::create(log)?;
    lab.spawn(command.stdout(Stdio::null()).stderr(log))
}

/// DPDK's testpmd as the second guest, in one of its modes.
fn testpmd(lab: &Lab, socket: &Path, mode: &str) -> Result<Process> {
    let log = File::create(lab.directory().join(format!("testpmd-{mode}.log")))?;
    let device = format!(
        "net_virtio_user0,path={},queues={PAIRS},queue_size=256,mac=02:00:00:00:00:02",
        socket.display()
    );
    let mut command = Command::new("dpdk-testpmd");
    command
        .args(["--lcores", "0@0,1@1", "--no-pci", "--no-huge", "-m", "256"])
        .args(["--no-telemetry", "--log-level=4"])
        .arg(format!("--file-prefix={}-{mode}", lab.run()))
        .arg(format!("--vdev={device}"))
        .args(["--", "--auto-start", "--port-topology=loop", "--nb-cores=1"])
        .arg(format!("--forward-mode={mode}"))
        .arg(format!("--rxq={PAIRS}"))
        .arg(format!("--txq={PAIRS}"))
        .args(["--rxd=256", "--txd=256", "--no-lsc-interrupt"])
        .args(["--total-num-mbufs=8192", "--stats-period", "3600"])
        .stdout(log.try_clone()?)
        .stderr(log);
    lab.spawn(&mut command)
        .context("dpdk-testpmd (apt-get install dpdk)")
}

/// A numbered datagram from our guest, or as DPDK's sends it back.
fn datagram(number: u16, back: bool) -> Vec<u8> {
    let macs = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
    let six = number % 2 == 1;
    let address = |host: u16| -> IpAddr {
        match six {
            true => [0xfd00, 0, 0, 0, 0, 0, 0, host].into(),
            false => [10, 0, 0, u8::try_from(host).unwrap_or_default()].into(),
        }
    };
    let (from, to) = if back { (1, 0) } else { (0, 1) };
    let ends = [
        (macs[0], address(1), 2_000 + number % 64),
        (macs[1], address(2), 7),
    ];
    let link = Link {
        source: ends[from].0,
        destination: ends[to].0,
    };
    let ports = udp::Repr {
        source_port: ends[from].2,
        destination_port: ends[to].2,
    };
    let length = usize::from(18 + number % 1_400);
    let payload: Vec<u8> = number
        .to_be_bytes()
        .into_iter()
        .cycle()
        .take(length)
        .collect();
    frame::udp(link, Ip::new(ends[from].1, ends[to].1), ports, &payload)
}

#[test]
fn dpdk_sends_back_whole_what_it_gets_on_all_its_queues() -> Result<()> {
    let lab = Lab::new("weft-vm")?;
    let sockets = [0, 1].map(|n| lab.directory().join(format!("{n}.sock")));
    let log = lab.directory().join("weft.log");
    let running = switch(&lab, &sockets, &log)?;
    let mut guest = Device::new(PAIRS, true)?;
    clock::until("the switch to serve the guest", TIMEOUT, || {
        Ok(guest.connect(&sockets[0]).ok())
    })
    .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    let other = testpmd(&lab, &sockets[1], "5tswap")?;
    let said = || {
        let log = lab.directory().join("testpmd-5tswap.log");
        std::fs::read_to_string(log).unwrap_or_default()
    };
    clock::until("DPDK's guest to answer", TIMEOUT, || {
        ensure!(guest.send(0, &datagram(0, false))?, "a buffer is free");
        clock::pause(Duration::from_millis(50));
        Ok((drain(&mut guest)? > 0).then_some(()))
    })
    .with_context(said)?;
    clock::pause(Duration::from_millis(200));
    drain(&mut guest)?;
    let mut pairs = BTreeSet::new();
    let mut came = 0_u32;
    for round in 0..ROUNDS {
        let mut left = BTreeSet::new();
        for number in round * WINDOW..(round + 1) * WINDOW {
            let sent = guest.send(usize::from(number % PAIRS), &datagram(number, false))?;
            ensure!(sent, "a buffer is free");
            left.insert(datagram(number, true));
        }
        clock::until("all frames to come back", TIMEOUT, || {
            for pair in 0..usize::from(PAIRS) {
                while let Some(frame) = guest.receive(pair)? {
                    ensure!(left.remove(&frame), "corrupt, or twice: {frame:x?}");
                    pairs.insert(pair);
                    came += 1;
                }
            }
            Ok(left.is_empty().then_some(()))
        })
        .with_context(said)?;
    }
    eprintln!("{came} frames came back whole, 0 corrupt, on pairs {pairs:?}");
    ensure!(pairs.len() == usize::from(PAIRS), "{pairs:?}");
    other.stop(Signal::INT)?;

    moves(&lab, &sockets[1], &mut guest, &log)?;
    let status = running.stop(Signal::TERM)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Takes what has come on any pair.
fn drain(guest: &mut Device) -> Result<usize> {
    let mut frames = 0;
    for pair in 0..usize::from(PAIRS) {
        while guest.receive(pair)?.is_some() {
            frames += 1;
        }
    }
    Ok(frames)
}

/// All that is sent comes from queues of one worker, until one of them moves.
fn moves(lab: &Lab, socket: &Path, guest: &mut Device, log: &Path) -> Result<()> {
    let other = testpmd(lab, socket, "rxonly")?;
    let moved = || std::fs::read_to_string(log).is_ok_and(|log| log.contains("a queue moves"));
    let before = moved();
    clock::until("a queue to move to the other worker", TIMEOUT, || {
        for number in 0..WINDOW {
            for pair in [0, 2] {
                guest.send(pair, &datagram(number, false))?;
            }
        }
        Ok(moved().then_some(()))
    })?;
    eprintln!("a queue had moved before: {before}");
    other.stop(Signal::INT)?;
    Ok(())
}
