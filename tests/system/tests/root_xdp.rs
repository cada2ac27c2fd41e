//! The switch alone on an interface of its own: AF_XDP leads to another host, which is Linux's own VXLAN device, over IPv4 and IPv6.
//! The guest is ours: it pings the other side, and both send numbered datagrams.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use weft_kit::lab::Process;
use weft_kit::{Lab, Namespace, WeftOptions, clock};
use weft_vhost::driver::Buffer;
use weft_vhost::frontend::{Frontend, FrontendConfig};
use weft_vhost::protocol::feature;
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

const TIMEOUT: Duration = Duration::from_secs(30);
const RING: u16 = 256;
/// Bytes of a buffer.
const BUFFER: u64 = 2_048;
/// Virtio's header.
const HEADER: usize = 12;
/// As the snapshot has them: the guest and who it talks to.
const GUEST: (Ipv4Addr, [u8; 6]) = (Ipv4Addr::new(10, 0, 0, 1), [2, 0, 0, 0, 0, 1]);
const OTHER: (Ipv4Addr, [u8; 6]) = (Ipv4Addr::new(10, 0, 0, 2), [2, 0, 0, 0, 0, 2]);
/// Datagrams each way, under way at once, and their port.
const DATAGRAMS: u16 = 500;
const WINDOW: u16 = 64;
const PORT: u16 = 2_000;
/// Where a datagram's payload is.
const PAYLOAD_AT: usize = 42;

/// A guest that sends and receives whole frames.
struct Guest {
    frontend: Frontend,
    /// Buffers that are free to be sent in; those to be received into are always offered.
    free: Vec<u64>,
    sent: Vec<u64>,
    receiving: Vec<u64>,
}

impl Guest {
    fn new() -> Result<Self> {
        let frontend = Frontend::new(FrontendConfig {
            features: feature::VERSION_1 | feature::NET_MERGEABLE,
            pairs: 1,
            ring_size: RING,
            inflight: false,
            buffer_bytes: usize::try_from(2 * u64::from(RING) * BUFFER)?,
        })?;
        let start = frontend.buffers();
        let end = start + u64::from(RING) * BUFFER;
        let buffers = |first: u64| (0..u64::from(RING)).map(move |n| first + n * BUFFER);
        let mut guest = Self {
            free: buffers(end).collect(),
            sent: Vec::new(),
            receiving: Vec::new(),
            frontend,
        };
        for address in buffers(start) {
            guest.receive_into(address)?;
        }
        Ok(guest)
    }

    fn receive_into(&mut self, address: u64) -> Result<()> {
        let buffer = Buffer {
            address,
            bytes: u32::try_from(BUFFER)?,
            write: true,
        };
        self.frontend.offer(0, buffer)?.context("there is room")?;
        self.receiving.insert(0, address);
        Ok(())
    }

    /// Sends a frame, if a buffer is free.
    fn send(&mut self, frame: &[u8]) -> Result<bool> {
        while let Some(_back) = self.frontend.ring(1).context("a ring")?.collect() {
            self.free.push(self.sent.pop().context("it was sent")?);
        }
        let Some(address) = self.free.pop() else {
            return Ok(false);
        };
        let bytes = [&[0; HEADER], frame].concat();
        let memory = self.frontend.memory();
        for (at, word) in (usize::try_from(address)?..)
            .step_by(2)
            .zip(bytes.chunks(2))
        {
            let word = u16::from_le_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
            memory.u16_put(at, word, Relaxed);
        }
        let buffer = Buffer {
            address,
            bytes: u32::try_from(bytes.len())?,
            write: false,
        };
        self.frontend.offer(1, buffer)?.context("there is room")?;
        self.sent.insert(0, address);
        Ok(true)
    }

    /// A frame that came.
    fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let ring = self.frontend.ring(0).context("a ring")?;
        let Some((_, bytes)) = ring.collect() else {
            return Ok(None);
        };
        let address = self.receiving.pop().context("it was offered")?;
        let start = usize::try_from(address)?;
        let end = start + usize::try_from(bytes)?;
        let memory = self.frontend.memory();
        let words = (start..end).step_by(2).map(|at| memory.u16(at, Relaxed));
        let all: Vec<u8> = words.flat_map(u16::to_le_bytes).collect();
        self.receive_into(address)?;
        Ok(all.get(HEADER..end - start).map(<[u8]>::to_vec))
    }
}

/// A host with the switch, a guest, and another host behind a wire.
struct Scene {
    lab: Lab,
    host: Namespace,
    other: Namespace,
    guest: Guest,
    socket: PathBuf,
    snapshot: PathBuf,
}

impl Scene {
    fn new(tunnels: [IpAddr; 2]) -> Result<Self> {
        let lab = Lab::new("weft-xdp")?;
        let (host, other) = (lab.namespace("host")?, lab.namespace("other")?);
        lab.veth((&host, "eth0"), (&other, "eth0"))?;
        // A veth's checksums are left to the other end, where XDP does not make up for them. No hardware does that.
        other.run("ethtool -K eth0 tx off")?;
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
            guest: Guest::new()?,
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

    fn switch_start(&mut self) -> Result<Process> {
        let log_path = self.lab.directory().join("weft.log");
        let log = File::options().append(true).create(true).open(&log_path)?;
        let mut command = self.command("eth0")?;
        command.stdout(Stdio::null()).stderr(log);
        let running = self.lab.spawn(&mut command)?;
        clock::until("the switch to serve the guest", TIMEOUT, || {
            Ok(self.guest.frontend.connect(&self.socket).ok())
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
            guest.send(&frame)?;
            clock::pause(Duration::from_millis(20));
            while let Some(came) = guest.receive()? {
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
    guest: &mut Guest,
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
    ensure!(guest.send(&frame)?, "a buffer is free");
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
fn back_once(guest: &mut Guest, socket: &UdpSocket, left: &mut std::ops::Range<u16>) -> Result<()> {
    let Some(number) = left.next() else {
        return Ok(());
    };
    socket.send_to(&payload(number), (GUEST.0, PORT))?;
    let came = clock::until("a datagram at the guest", TIMEOUT, || {
        let came = guest.receive()?;
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
