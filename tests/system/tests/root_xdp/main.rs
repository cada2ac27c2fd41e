//! The switch alone on an interface of its own: AF_XDP leads to another host, which is Linux's own VXLAN device, over IPv4 and IPv6.
//! The guest is ours: it pings the other side, and both send numbered datagrams.

mod queues;
mod switches;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use weft_kit::lab::Process;
use weft_kit::{Lab, Namespace, WeftOptions, clock};
use weft_tests_system::vhost_guest::Device;
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

const TIMEOUT: Duration = Duration::from_secs(30);
/// As the snapshot has them: the guest and who it talks to.
const GUEST: (Ipv4Addr, [u8; 6]) = (Ipv4Addr::new(10, 0, 0, 1), [2, 0, 0, 0, 0, 1]);
const OTHER: (Ipv4Addr, [u8; 6]) = (Ipv4Addr::new(10, 0, 0, 2), [2, 0, 0, 0, 0, 2]);
/// Datagrams each way, under way at once, and their port.
const DATAGRAMS: u16 = 500;
const WINDOW: u16 = 64;
const PORT: u16 = 2_000;
/// Where a datagram's payload is.
const PAYLOAD_AT: usize = 42;

/// A veth between two hosts.
#[derive(Clone, Copy)]
struct Wire {
    queues: u32,
    mtu: u32,
}

impl Default for Wire {
    fn default() -> Self {
        let (queues, mtu) = (1, 1_500);
        Self { queues, mtu }
    }
}

impl Wire {
    /// By `eth0` of both.
    fn join(self, host: &Namespace, other: &Namespace) -> Result<()> {
        let Self { queues, mtu } = self;
        let end = format!("mtu {mtu} numrxqueues {queues} numtxqueues {queues}");
        let there = other.name();
        host.run(&format!(
            "ip link add eth0 {end} type veth peer name eth0 {end} netns {there}"
        ))?;
        for namespace in [host, other] {
            // A veth's checksums are left to the other end, where XDP does not make up for them. No hardware does that.
            namespace.run("ethtool -K eth0 tx off")?;
            namespace.run("ip link set eth0 up")?;
        }
        Ok(())
    }
}

/// How many packets came by XDP on each queue of `eth0`.
fn queues_of(host: &Namespace) -> Result<Vec<u64>> {
    let text = host.run("ethtool -S eth0")?;
    let count = |line: &str| {
        let (name, number) = line.trim().split_once(": ")?;
        let name = name.strip_prefix("rx_queue_")?;
        name.ends_with("_xdp_packets")
            .then(|| number.parse().ok())
            .flatten()
    };
    Ok(text.lines().filter_map(count).collect())
}

/// A host with the switch, a guest, and another host behind a wire.
struct Scene {
    lab: Lab,
    host: Namespace,
    other: Namespace,
    guest: Device,
    socket: PathBuf,
    snapshot: PathBuf,
}

impl Scene {
    fn new(tunnels: [IpAddr; 2]) -> Result<Self> {
        Self::with(tunnels, Wire::default())
    }

    fn with(tunnels: [IpAddr; 2], wire: Wire) -> Result<Self> {
        let lab = Lab::new("weft-xdp")?;
        let (host, other) = (lab.namespace("host")?, lab.namespace("other")?);
        wire.join(&host, &other)?;
        let [own, far] = tunnels;
        let (bits, more) = match far {
            IpAddr::V4(_) => (24, ""),
            IpAddr::V6(_) => (64, "nodad"),
        };
        other.run(&format!("ip address add {far}/{bits} dev eth0 {more}"))?;
        other.run(&format!(
            "ip link add vx0 type vxlan id 100 dstport 4789 local {far} remote {own} dev eth0 udpcsum udp6zerocsumrx"
        ))?;
        other.run("ip link set vx0 address 02:00:00:00:00:02 mtu 1400 up")?;
        other.run(&format!("ip address add {}/24 dev vx0", OTHER.0))?;
        other.run(&format!(
            "ip neighbour add {} lladdr 02:00:00:00:00:01 dev vx0",
            GUEST.0
        ))?;
        let ready = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../perf-lab/snapshots/two-hosts-policy.json");
        let text = std::fs::read_to_string(ready)?;
        let text = text.replace("\"172.16.0.1\"", &format!("\"{own}\""));
        let text = text.replace("\"172.16.0.2\"", &format!("\"{far}\""));
        let snapshot = lab.directory().join("snapshot.json");
        std::fs::write(&snapshot, text)?;
        Ok(Self {
            socket: lab.directory().join("vm0.sock"),
            guest: Device::new(1, false)?,
            lab,
            host,
            other,
            snapshot,
        })
    }

    fn command(&self, underlay: &str) -> Result<Command> {
        let program = WeftOptions::new(None)?.program;
        let mut command = self.host.command(&program.display().to_string());
        command.args(["run", "--snapshot"]).arg(&self.snapshot);
        let socket = format!("vm0={}", self.socket.display());
        command.args(["--socket", &socket, "--underlay", underlay]);
        command.arg("--socket").arg(self.control());
        Ok(command)
    }

    fn control(&self) -> PathBuf {
        self.lab.directory().join("control.sock")
    }

    /// A question to the switch, which runs alone.
    fn question(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(WeftOptions::new(None)?.program);
        command.args(words).arg("--socket").arg(self.control());
        Ok(command)
    }

    fn ask(&self, words: &[&str]) -> Result<Value> {
        let output = self.question(words)?.arg("--json").output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words:?}: {said}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// It answers what an agent answers.
    fn asks(&mut self) -> Result<()> {
        let status = self.ask(&["status"])?;
        let port = &status["ports"][0];
        ensure!(
            status["engine"] == "vhost-user" && port["status"] == "ACTIVE",
            "{status}"
        );
        ensure!(
            port["interface"] == self.socket.display().to_string(),
            "{status}"
        );
        let stats = self.ask(&["stats"])?;
        let through = &stats["underlay"]["traffic"];
        let both = ["rx_packets", "tx_packets"].map(|way| through[way].as_u64());
        ensure!(
            both.iter().all(|count| *count > Some(u64::from(DATAGRAMS))),
            "{stats}"
        );
        let sessions = self.ask(&["sessions"])?;
        let all = sessions["sessions"].as_array().context("a list")?;
        let ping = all.iter().find(|session| session["tuple"]["protocol"] == 1);
        let ping = ping.context("the ping's session")?;
        ensure!(ping["tuple"]["source"] == GUEST.0.to_string(), "{ping}");
        let guest = port["port_id"].as_str().context("an id")?.to_owned();
        let to = OTHER.0.to_string();
        let trace = self.ask(&["trace", "--port", &guest, "--to", &to, "--proto", "tcp"])?;
        ensure!(trace["drop_reason"].is_null(), "{trace}");
        let mut capture = self.question(&["capture", "--port", &guest, "--count", "2"])?;
        capture.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut capture = self.lab.spawn(&mut capture)?;
        let mut file = capture.child().stdout.take().context("its output")?;
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map(|_all| bytes)
        });
        while !reader.is_finished() {
            self.ping()?;
        }
        let bytes = reader.join().ok().context("it panicked")??;
        let seen = bytes
            .windows(8)
            .filter(|bytes| bytes == b"weft-kit")
            .count();
        ensure!(seen == 2, "a question and its answer, not {seen} frames");
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.lab.directory().join("weft.log")
    }

    fn switch_start(&mut self) -> Result<Process> {
        let log_path = self.log();
        let log = File::options().append(true).create(true).open(&log_path)?;
        let mut command = self.command("eth0")?;
        command.stdout(Stdio::null()).stderr(log);
        let running = self.lab.spawn(&mut command)?;
        clock::until("the switch to serve the guest", TIMEOUT, || {
            Ok(self.guest.connect(&self.socket).ok())
        })
        .with_context(|| std::fs::read_to_string(&log_path).unwrap_or_default())?;
        Ok(running)
    }

    /// The guest pings the other host: the first packets find it.
    fn ping(&mut self) -> Result<()> {
        let message = weft_kit::frame::echo_request(7);
        let packet = weft_kit::frame::ipv4(GUEST.0, OTHER.0, 1, &message);
        let frame = weft_kit::frame::ethernet(OTHER.1, GUEST.1, 0x0800, &packet);
        let guest = &mut self.guest;
        clock::until("an echo reply", TIMEOUT, || {
            guest.send(0, &frame)?;
            clock::pause(Duration::from_millis(20));
            while let Some(came) = guest.receive(0)? {
                let is_reply = came.get(34..36) == Some(&[0, 0]) && came.get(23) == Some(&1);
                if is_reply {
                    ensure!(
                        came.get(26..30) == Some(&OTHER.0.octets()),
                        "from the other"
                    );
                    return Ok(Some(()));
                }
            }
            Ok(None)
        })
    }

    /// Numbered datagrams both ways: each that comes is whole, and comes once.
    fn datagrams(&mut self) -> Result<()> {
        let socket = self.other.udp(OTHER.0.into(), PORT)?;
        socket.set_nonblocking(true)?;
        let (mut there, mut back) = (0..DATAGRAMS, 0..DATAGRAMS);
        let guest = &mut self.guest;
        clock::until("all datagrams both ways", TIMEOUT, || {
            for _ in 0..WINDOW {
                there_once(guest, &socket, &mut there)?;
                back_once(guest, &socket, &mut back)?;
            }
            Ok((there.is_empty() && back.is_empty()).then_some(()))
        })
    }
}

fn payload(number: u16) -> Vec<u8> {
    number.to_be_bytes().repeat(300)
}

/// The guest sends the next one, and the other takes it: one at a time, so that none is lost for want of room.
fn there_once(
    guest: &mut Device,
    socket: &UdpSocket,
    left: &mut std::ops::Range<u16>,
) -> Result<()> {
    let Some(number) = left.clone().next() else {
        return Ok(());
    };
    let link = Link {
        source: GUEST.1,
        destination: OTHER.1,
    };
    let ports = udp::Repr {
        source_port: PORT,
        destination_port: PORT,
    };
    let frame = frame::udp(link, Ip::new(GUEST.0, OTHER.0), ports, &payload(number));
    ensure!(guest.send(0, &frame)?, "a buffer is free");
    let mut bytes = [0; 2_048];
    let got = clock::until("a datagram at the other host", TIMEOUT, || {
        match socket.recv(&mut bytes) {
            Ok(got) => Ok(Some(got)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    })?;
    ensure!(bytes[..got] == payload(number), "datagram {number}: {got}");
    left.next();
    Ok(())
}

/// The other sends the next one, and the guest takes it.
fn back_once(
    guest: &mut Device,
    socket: &UdpSocket,
    left: &mut std::ops::Range<u16>,
) -> Result<()> {
    let Some(number) = left.next() else {
        return Ok(());
    };
    socket.send_to(&payload(number), (GUEST.0, PORT))?;
    let came = clock::until("a datagram at the guest", TIMEOUT, || {
        let came = guest.receive(0)?;
        Ok(came.filter(|came| came.get(23) == Some(&17)))
    })?;
    ensure!(
        came.get(PAYLOAD_AT..) == Some(&payload(number)),
        "datagram {number}: {came:x?}"
    );
    Ok(())
}

/// Starts, pings, sends, is killed and does it again.
fn plays(tunnels: [IpAddr; 2]) -> Result<()> {
    let mut scene = Scene::new(tunnels)?;
    for signal in [Signal::KILL, Signal::TERM] {
        let running = scene.switch_start()?;
        scene.ping()?;
        scene.datagrams()?;
        scene.asks()?;
        let links = scene.host.run("ip link show dev eth0")?;
        ensure!(links.contains("prog/xdp"), "{links}");
        running.stop(signal)?;
        clock::until("the program to go with the switch", TIMEOUT, || {
            let links = scene.host.run("ip link show dev eth0")?;
            Ok((!links.contains("prog/xdp")).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn an_interface_leads_to_linux_vxlan() -> Result<()> {
    plays(["172.16.0.1".parse()?, "172.16.0.2".parse()?])
}

#[test]
fn an_interface_leads_to_linux_vxlan_over_ipv6() -> Result<()> {
    plays(["fd00:16::1".parse()?, "fd00:16::2".parse()?])
}

#[test]
fn what_cannot_be_an_underlay_is_refused_by_name() -> Result<()> {
    let scene = Scene::new(["172.16.0.1".parse()?, "172.16.0.2".parse()?])?;
    let said = |underlay: &str| -> Result<String> {
        let output = scene.command(underlay)?.output()?;
        ensure!(!output.status.success(), "{underlay} is refused");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let text = said("nosuch")?;
    ensure!(text.contains("no such network interface: nosuch"), "{text}");
    let text = said("../eth0")?;
    ensure!(text.contains("../eth0"), "{text}");
    scene.host.run("ip link set eth0 mtu 9000")?;
    let text = said("eth0")?;
    ensure!(text.contains("its MTU is 9000"), "{text}");
    scene.host.run("ip link set eth0 mtu 1500")?;
    scene.host.run("ip address add 172.16.0.1/24 dev eth0")?;
    let text = said("eth0")?;
    ensure!(
        text.contains("172.16.0.1 is an address of this host's kernel"),
        "{text}"
    );
    Ok(())
}
