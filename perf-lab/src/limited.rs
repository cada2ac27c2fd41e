//! TCP under a bandwidth limit: two network stacks of Linux, each in a namespace of its own, speak through the kernel engine (their
//! devices are its taps), then through the user engine (their taps are pumped into vhost-user rings by threads of this process).
//! The first guest's port has the limit, in both directions; what the other side reads counts, once the burst is used up.

use crate::figures::{Bar, spread};
use crate::process::{WeftRun, site};
use anyhow::{Context, Result, anyhow};
use rustix::fd::OwnedFd;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use weft_kit::{Lab, Namespace, clock};
use weft_model::HostSnapshot;
use weft_vhost::alone::{Alone, AloneConfig};
use weft_vhost::driver::Buffer;
use weft_vhost::engine::Limits;
use weft_vhost::frontend::{Frontend, FrontendConfig};
use weft_vhost::protocol::feature;

/// The limit: 100 Mbit/s, with Neutron's burst of four fifths of a second.
const LIMIT_KBPS: u32 = 100_000;
/// What is read may be so much of it.
const LEAST: f64 = 0.90;
const MOST: f64 = 1.05;
/// Until the burst is used up, and then measured for so long.
const BURST: Duration = Duration::from_millis(1_500);
const MEASURED: Duration = Duration::from_secs(3);
const SERVICE_PORT: u16 = 5_001;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEVICE: &str = "eth0";
const TAPS: [&str; 2] = ["tap-limit-a", "tap-limit-b"];
const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
const ADDRESSES: [[&str; 2]; 2] = [["10.0.0.1", "10.0.0.2"], ["fd00::1", "fd00::2"]];
const SESSIONS: u32 = 1_024;

/// Rings of a guest, and their buffers: each holds the largest segment that a stack leaves whole.
const RING_SIZE: u16 = 128;
const BUFFER_BYTES: usize = 68 << 10;
/// How long a pump that had nothing to do waits.
const PUMP_REST: Duration = Duration::from_micros(50);

/// Two guests on one network, the first one with a limit.
struct Scene {
    lab: Lab,
    host: Namespace,
    guests: [Namespace; 2],
}

impl Scene {
    fn new() -> Result<Self> {
        let lab = Lab::new("weft-limited")?;
        Ok(Self {
            host: lab.namespace("host")?,
            guests: [lab.namespace("a")?, lab.namespace("b")?],
            lab,
        })
    }

    /// Gives the guests' devices, which are there, their addresses.
    fn address(&self) -> Result<()> {
        for (n, guest) in self.guests.iter().enumerate() {
            let mac = MACS[n];
            guest.run(&format!("ip link set {DEVICE} address {mac} up"))?;
            let [v4, v6] = ADDRESSES.map(|family| family[n]);
            guest.run(&format!("ip address add {v4}/24 dev {DEVICE}"))?;
            guest.run(&format!("ip address add {v6}/64 dev {DEVICE} nodad"))?;
        }
        Ok(())
    }

    /// The duty of the host: ports on these interfaces.
    fn snapshot(&self, interfaces: [Value; 2]) -> Result<(PathBuf, Arc<HostSnapshot>)> {
        let two = Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots/two-ports-policy.json");
        let mut all: Value = serde_json::from_slice(&std::fs::read(two)?)?;
        let [v4, v6] = [0, 1].map(|n| format!("00000003-0000-4000-8000-{n:012}"));
        let policy = "0000000a-0000-4000-8000-000000000000";
        let mut subnet = all["subnets"][&v4].clone();
        subnet["cidr"] = json!("fd00::/64");
        subnet["gateway_ip"] = json!("fd00::ff");
        all["subnets"][&v6] = subnet;
        for (n, interface) in interfaces.into_iter().enumerate() {
            let port = &mut all["ports"][format!("00000005-0000-4000-8000-{n:012}")];
            port["interface"] = interface;
            let [_, address] = ADDRESSES.map(|family| family[n]);
            let addresses = port["fixed_ips"].as_array_mut();
            let addresses = addresses.context("a port without addresses")?;
            addresses.push(json!({ "subnet_id": v6, "ip_address": address }));
            if n == 0 {
                port["qos_policy_id"] = json!(policy);
            }
        }
        let limit = |direction| json!({ "direction": direction, "max_kbps": LIMIT_KBPS, "max_burst_kbps": 0 });
        all["qos_policies"][policy] =
            json!({ "bandwidth_limits": [limit("egress"), limit("ingress")] });
        for (n, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
            all["security_group_rules"][format!("00000006-0000-4000-8000-{:012}", 100 + n)] = json!({
                "security_group_id": "00000004-0000-4000-8000-000000000000", "direction": "ingress",
                "ethertype": family, "remote": "any",
            });
        }
        let path = self.lab.directory().join("limited.json");
        std::fs::write(&path, serde_json::to_vec(&all)?)?;
        let snapshot = Arc::new(HostSnapshot::from_file(&path)?);
        Ok((path, snapshot))
    }

    fn by_kernel<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        for (guest, tap) in self.guests.iter().zip(TAPS) {
            self.lab.veth((&self.host, tap), (guest, DEVICE))?;
        }
        self.address()?;
        let interfaces = TAPS.map(|name| json!({ "kind": "tap", "name": name }));
        let (path, snapshot) = self.snapshot(interfaces)?;
        let site = site(&self.lab, &self.host)?;
        let run = WeftRun::start(&self.lab, &site, &path, snapshot.ports.len())?;
        let done = work(self);
        run.stop()?;
        for tap in TAPS {
            self.host.run(&format!("ip link delete {tap}"))?;
        }
        done
    }

    fn by_user<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let sockets = [0, 1].map(|n| self.lab.directory().join(format!("{n}.sock")));
        let interfaces = sockets
            .each_ref()
            .map(|path| json!({ "kind": "vhost-user", "socket": path, "mode": "client" }));
        let (_, snapshot) = self.snapshot(interfaces)?;
        let _switch = Alone::start(
            &snapshot,
            &AloneConfig {
                sockets: Vec::new(),
                link: None,
                cpus: Vec::new(),
                sessions_file: None,
                limits: Limits {
                    sessions_max: SESSIONS,
                    sessions_per_port_max: SESSIONS,
                },
            },
        )?;
        let mut pumps = Vec::new();
        for (guest, socket) in self.guests.iter().zip(&sockets) {
            let tap = guest.enter(|| weft_ebpf::sys::tap_open(DEVICE))??;
            pumps.push(Pumping::start(Pump::new(tap, socket)?)?);
        }
        self.address()?;
        let done = work(self);
        for pump in pumps {
            pump.stop()?;
        }
        done
    }

    /// The share of the limit that one connection reaches, from the limited guest or to it.
    fn tcp(&self, family: [&str; 2], egress: bool) -> Result<f64> {
        let to = SocketAddr::new(family[1].parse::<IpAddr>()?, SERVICE_PORT);
        let [limited, other] = &self.guests;
        let listener = other.tcp_listen(to.ip(), to.port())?;
        let stream = limited.tcp_connect(to, CONNECT_TIMEOUT)?;
        let (taken, _) = listener.accept()?;
        let (mut sends, mut reads) = match egress {
            true => (stream, taken),
            false => (taken, stream),
        };
        let sender = std::thread::spawn(move || {
            let bytes = vec![0; 64 << 10];
            // It ends when the other side does.
            while sends.write_all(&bytes).is_ok() {}
        });
        let read = read_for(&mut reads);
        reads.shutdown(Shutdown::Both)?;
        drop(reads);
        sender
            .join()
            .map_err(|_panic| anyhow!("the sender panicked"))?;
        Ok(read? * 8.0 / (f64::from(LIMIT_KBPS) * 1e3))
    }
}

/// Bytes a second that come once the burst is over.
fn read_for(reads: &mut TcpStream) -> Result<f64> {
    reads.set_read_timeout(Some(MEASURED))?;
    let mut buffer = vec![0; 256 << 10];
    let start = clock::now();
    let mut bytes = 0u64;
    let mut measured = None;
    loop {
        let count = reads.read(&mut buffer).context("nothing comes")?;
        bytes += u64::try_from(count)?;
        match measured {
            None if start.elapsed() >= BURST => measured = Some((clock::now(), bytes)),
            Some((from, before)) if from.elapsed() >= MEASURED => {
                #[allow(clippy::cast_precision_loss, reason = "bytes of seconds")]
                return Ok((bytes - before) as f64 / from.elapsed().as_secs_f64());
            }
            _ => {}
        }
    }
}

/// A guest whose stack is Linux's: frames go from its tap into the rings and back, with what is left to do on them.
struct Pump {
    tap: OwnedFd,
    frontend: Frontend,
    /// Buffers of both queues that nobody has, and those that the switch has by the ids of their chains.
    free: Vec<u64>,
    out: [Vec<(u16, u64)>; 2],
    frame: Vec<u8>,
}

impl Pump {
    fn new(tap: OwnedFd, socket: &Path) -> Result<Self> {
        let buffers = 2 * usize::from(RING_SIZE);
        let left = feature::NET_CHECKSUM | feature::NET_HOST_TSO4 | feature::NET_HOST_TSO6;
        let taken = feature::NET_GUEST_CHECKSUM | feature::NET_GUEST_TSO4 | feature::NET_GUEST_TSO6;
        let mut frontend = Frontend::new(FrontendConfig {
            features: feature::VERSION_1 | left | taken,
            pairs: 1,
            ring_size: RING_SIZE,
            inflight: false,
            buffer_bytes: buffers * BUFFER_BYTES,
        })?;
        frontend.connect(socket)?;
        let start = frontend.buffers();
        let at = |n: usize| -> Result<u64> { Ok(start + u64::try_from(n * BUFFER_BYTES)?) };
        let mut pump = Self {
            tap,
            frontend,
            free: Vec::new(),
            out: [Vec::new(), Vec::new()],
            frame: vec![0; BUFFER_BYTES],
        };
        for n in 0..usize::from(RING_SIZE) {
            pump.offer(0, at(n)?, BUFFER_BYTES)?;
            pump.free.push(at(usize::from(RING_SIZE) + n)?);
        }
        Ok(pump)
    }

    fn offer(&mut self, queue: usize, address: u64, bytes: usize) -> Result<()> {
        let buffer = Buffer {
            address,
            bytes: u32::try_from(bytes)?,
            write: queue == 0,
        };
        let id = self.frontend.offer(queue, buffer)?;
        let id = id.context("as many buffers as descriptors")?;
        self.out[queue].push((id, address));
        Ok(())
    }

    /// A chain that came back: its buffer, and the bytes in it.
    fn collect(&mut self, queue: usize) -> Result<Option<(u64, usize)>> {
        let ring = self.frontend.ring(queue).context("no such queue")?;
        let Some((id, bytes)) = ring.collect() else {
            return Ok(None);
        };
        let out = &mut self.out[queue];
        let at = out.iter().position(|(have, _)| *have == id);
        let (_, address) = out.swap_remove(at.context("it was never offered")?);
        Ok(Some((address, usize::try_from(bytes)?)))
    }

    /// The guest's memory from an address on, in words.
    fn words(&self, address: u64, bytes: usize) -> Result<&[std::sync::atomic::AtomicU64]> {
        let from = usize::try_from(address)? / 8;
        let words = self.frontend.memory().u64s();
        words
            .get(from..from + bytes.div_ceil(8))
            .context("outside of the guest's memory")
    }

    /// Moves what is there, and says whether anything was.
    fn turn(&mut self) -> Result<bool> {
        let mut moved = false;
        while let Some((address, _)) = self.collect(1)? {
            self.free.push(address);
        }
        while let Some(address) = self.free.pop() {
            let bytes = match rustix::io::read(&self.tap, &mut self.frame) {
                Ok(bytes) => bytes,
                Err(rustix::io::Errno::AGAIN) => {
                    self.free.push(address);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            let (chunks, _) = self.frame.as_chunks::<8>();
            for (word, chunk) in self.words(address, bytes)?.iter().zip(chunks) {
                word.store(u64::from_ne_bytes(*chunk), Relaxed);
            }
            self.offer(1, address, bytes)?;
            moved = true;
        }
        while let Some((address, bytes)) = self.collect(0)? {
            let mut frame = std::mem::take(&mut self.frame);
            let (chunks, _) = frame.as_chunks_mut::<8>();
            for (chunk, word) in chunks.iter_mut().zip(self.words(address, bytes)?) {
                *chunk = word.load(Relaxed).to_ne_bytes();
            }
            // A stack that has no room drops it, as any device would.
            let _full = rustix::io::write(&self.tap, frame.get(..bytes).unwrap_or_default());
            self.frame = frame;
            self.offer(0, address, BUFFER_BYTES)?;
            moved = true;
        }
        Ok(moved)
    }
}

/// The thread of a pump.
struct Pumping {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Pumping {
    fn start(mut pump: Pump) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().spawn(move || {
            while !stopped.load(Relaxed) {
                if !pump.turn()? {
                    clock::pause(PUMP_REST);
                }
            }
            Ok(())
        })?;
        Ok(Self { stop, thread })
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_panic| anyhow!("a pump panicked"))?
    }
}

/// The bars: see the module's text.
pub(crate) fn bars(rounds: usize) -> Result<Vec<Bar>> {
    let mut bars: Vec<Bar> = Vec::new();
    let scene = Scene::new()?;
    let measure = |scene: &Scene| -> Result<Vec<(String, Vec<f64>)>> {
        let mut all = Vec::new();
        for (family, addresses) in ["IPv4", "IPv6"].into_iter().zip(ADDRESSES) {
            for (direction, egress) in [("from the guest", true), ("to the guest", false)] {
                let shares = (0..rounds).map(|_| scene.tcp(addresses, egress));
                let shares: Vec<f64> = shares.collect::<Result<_>>()?;
                all.push((format!("{direction}, {family}"), shares));
            }
        }
        Ok(all)
    };
    let by_kernel = scene.by_kernel(measure).context("by the kernel engine")?;
    let by_user = scene.by_user(measure).context("by the user engine")?;
    for (engine, all) in [("kernel", by_kernel), ("user", by_user)] {
        for (what, shares) in all {
            let reached = spread(&shares).median;
            bars.push(Bar {
                name: format!("TCP under a limit of 100 Mbit/s, {engine} engine, {what}"),
                bar: "90 % to 105 % of the limit".to_owned(),
                figure: format!("{:.1} % of it", reached * 100.0),
                holds: (LEAST..=MOST).contains(&reached),
                rounds: shares,
            });
        }
    }
    Ok(bars)
}
