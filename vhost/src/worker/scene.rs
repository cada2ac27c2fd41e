//! A worker between two guests, each a driver of its own: for the tests of the worker.

use super::spread::Share;
use super::way::WayOut;
use super::{Order, PortCounters, Seat, Worker};
use crate::clock;
use crate::driver::{Buffer, DriverRing, Layout};
use crate::engine::{Compiler, Engine, EngineConfig, Limits, Seeds};
use crate::memory::{Handle, Mapping, Region, Window};
use crate::protocol::{Device, Request, RingAddress, feature};
use crate::queue::PortQueues;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use weft_dataplane::Ingress;
use weft_model::{DropReason, HostSnapshot, MacAddress, PortId};
use weft_wire::frame::{self, Ip, Link};
use weft_wire::{udp, virtio_net};

pub(super) const BYTES: usize = 4 << 20;
pub(super) const USER: u64 = 0x7f00_0000_0000;
/// Where buffers are: those to receive into, then those to send, then room for tables.
pub(super) const RECEIVE: u64 = 1 << 20;
pub(super) const SEND: u64 = 2 << 20;
pub(super) const TABLES: u64 = 3 << 20;
pub(super) const SIZE: u16 = 64;

/// What a guest negotiates, and how it offers its buffers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) packed: bool,
    pub(super) mergeable: bool,
    pub(super) indirect: bool,
    /// The header in a buffer of its own.
    pub(super) apart: bool,
    pub(super) version_1: bool,
    /// Bytes of each buffer to receive into.
    pub(super) buffer: u32,
    /// Features beside.
    pub(super) features: u64,
}

pub(super) const PLAIN: Kind = Kind {
    packed: false,
    mergeable: true,
    indirect: false,
    apart: false,
    version_1: true,
    buffer: 2048,
    features: 0,
};

impl Kind {
    pub(super) fn features(self) -> u64 {
        let bit = |on, bit| if on { bit } else { 0 };
        feature::INDIRECT
            | feature::PROTOCOL_FEATURES
            | self.features
            | bit(self.packed, feature::PACKED)
            | bit(self.mergeable, feature::NET_MERGEABLE)
            | bit(self.version_1, feature::VERSION_1)
    }

    pub(super) fn header_bytes(self) -> u32 {
        if self.mergeable || self.version_1 {
            12
        } else {
            10
        }
    }
}

pub(super) struct Guest {
    pub(super) kind: Kind,
    pub(super) memory: Window,
    pub(super) receive: DriverRing,
    pub(super) send: DriverRing,
    pub(super) offered: Vec<(u16, u64)>,
    pub(super) sent: u64,
    pub(super) queues: Arc<PortQueues>,
    pub(super) call: OwnedFd,
    pub(super) file: OwnedFd,
    pub(super) device: Device,
}

pub(super) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

impl Guest {
    pub(super) fn new(kind: Kind) -> Self {
        let (mapping, file) = Mapping::with_file("weft-guest", BYTES).unwrap();
        let mapping = Arc::new(mapping);
        let layout = |start| Layout {
            packed: kind.packed,
            size: SIZE,
            start,
        };
        let layouts = [layout(0), layout(0x1_0000)];
        let queues = Arc::new(PortQueues::default());
        let mut device = Device::new(Arc::clone(&queues), feature::OFFERED);
        let region = Region {
            guest_address: 0,
            bytes: BYTES as u64,
            user_address: USER,
            file_offset: 0,
        };
        let call = event();
        let mut ask = |request: Request, fds| device.handle(request, fds).unwrap();
        ask(Request::FeaturesSet(kind.features()), vec![]);
        ask(
            Request::MemoryTable(vec![region]),
            vec![file.try_clone().unwrap()],
        );
        for (index, layout) in (0..).zip(&layouts) {
            let [descriptors, driver, in_device] = layout.starts().map(|at| USER + at as u64);
            let address = RingAddress {
                index,
                descriptors,
                device: in_device,
                driver,
            };
            let base = if kind.packed { 0x8000_8000 } else { 0 };
            ask(Request::RingSize(index, u32::from(SIZE)), vec![]);
            ask(Request::RingBaseSet(index, base), vec![]);
            ask(Request::RingAddress(address), vec![]);
            ask(
                Request::RingCall(index, true),
                vec![call.try_clone().unwrap()],
            );
            ask(Request::RingKick(index, true), vec![event()]);
            ask(Request::RingEnable(index, true), vec![]);
        }
        let [receive, send] = layouts.map(|layout| DriverRing::new(layout, &mapping).unwrap());
        let mut guest = Self {
            kind,
            memory: Window::new(&mapping, 0, BYTES).unwrap(),
            receive,
            send,
            offered: Vec::new(),
            sent: 0,
            queues,
            call,
            file,
            device,
        };
        guest.receive_offer(32);
        guest
    }

    pub(super) fn receive_offer(&mut self, count: u64) {
        for number in 0..count {
            let address = RECEIVE + number * 0x4000;
            let buffer = Buffer {
                address,
                bytes: self.kind.buffer,
                write: true,
            };
            if let Some(id) = self.receive.offer(&[buffer], None) {
                self.offered.push((id, address));
            }
        }
    }

    pub(super) fn put(&self, address: u64, bytes: &[u8]) {
        for (at, byte) in (usize::try_from(address).unwrap()..).zip(bytes) {
            // A byte at a time, by the word around it: the ring's window knows words.
            let (word, shift) = (at & !1, 8 * (at & 1));
            let old = self.memory.u16(word, Relaxed) & !(0xff << shift);
            self.memory
                .u16_put(word, old | u16::from(*byte) << shift, Relaxed);
        }
    }

    pub(super) fn get(&self, address: u64, bytes: u32) -> Vec<u8> {
        let start = usize::try_from(address).unwrap();
        let byte = |at: usize| self.memory.u16(at & !1, Relaxed).to_le_bytes()[at & 1];
        (start..start + usize::try_from(bytes).unwrap())
            .map(byte)
            .collect()
    }

    pub(super) fn send(&mut self, frame: &[u8]) {
        self.send_with([0; virtio_net::HEADER_BYTES], frame);
    }

    /// Sends a frame behind this header.
    pub(super) fn send_with(&mut self, first: [u8; virtio_net::HEADER_BYTES], frame: &[u8]) {
        let number = self.sent % 16;
        self.sent += 1;
        let (address, header) = (SEND + number * 0x1_0000, self.kind.header_bytes());
        let frame_at = address + u64::from(header) + if self.kind.apart { 100 } else { 0 };
        self.put(address, &vec![0; usize::try_from(header).unwrap()]);
        self.put(address, &first);
        self.put(frame_at, frame);
        let bytes = u32::try_from(frame.len()).unwrap();
        let buffer = |address, bytes| Buffer {
            address,
            bytes,
            write: false,
        };
        let chain = if self.kind.apart {
            let half = bytes / 2;
            vec![
                buffer(address, header),
                buffer(frame_at, half),
                buffer(frame_at + u64::from(half), bytes - half),
            ]
        } else {
            vec![buffer(address, header + bytes)]
        };
        let table = self.kind.indirect.then_some(TABLES + number * 256);
        self.send.offer(&chain, table).unwrap();
    }

    /// A frame that has come, and how many buffers it took.
    pub(super) fn received(&mut self) -> Option<(Vec<u8>, u16)> {
        let (_, frame, buffers) = self.received_with()?;
        Some((frame, buffers))
    }

    /// Virtio's header without the number of buffers, the frame behind it, and that number.
    pub(super) fn received_with(&mut self) -> Option<(Vec<u8>, Vec<u8>, u16)> {
        let header = self.kind.header_bytes();
        let mut frame = Vec::new();
        let mut buffers = 1;
        let mut left = 1;
        while left > 0 {
            let (id, bytes) = self.receive.collect()?;
            let at = self
                .offered
                .iter()
                .position(|(offered, _)| *offered == id)
                .unwrap();
            let (_, address) = self.offered.remove(at);
            let bytes = self.get(address, bytes);
            if frame.is_empty() && header == 12 {
                buffers = u16::from_le_bytes([bytes[10], bytes[11]]);
                left = buffers;
            }
            frame.extend(bytes);
            left -= 1;
        }
        let behind = frame.split_off(usize::try_from(header).unwrap());
        frame.truncate(virtio_net::HEADER_BYTES);
        Some((frame, behind, buffers))
    }
}

pub(super) struct Scene {
    pub(super) worker: Worker,
    pub(super) guests: [Guest; 2],
    pub(super) counters: [Arc<PortCounters>; 2],
    pub(super) ports: [PortId; 2],
    pub(super) compiler: Compiler,
    pub(super) _orders: Sender<Order>,
}

pub(super) fn snapshot(name: &str) -> HostSnapshot {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf-lab/snapshots");
    HostSnapshot::from_file(&folder.join(name)).unwrap()
}

pub(super) fn scene(kinds: [Kind; 2]) -> Scene {
    scene_of(kinds, snapshot("two-ports-policy.json"))
}

/// A switch that shares its host with another engine, and the other ends of its ports' ways out.
pub(super) fn scene_shared(snapshot: HostSnapshot) -> (Scene, [OwnedFd; 2]) {
    let kind = Kind {
        features: feature::NET_CHECKSUM | feature::NET_HOST_TSO4,
        ..PLAIN
    };
    let mut scene = scene_of([kind; 2], snapshot);
    scene.worker.engine.write().share();
    scene.worker.share().unwrap();
    let ends = scene.ports.map(|port| {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let out = Arc::new(WayOut::new(ours));
        scene.worker.way_out_set(port, out, true);
        theirs
    });
    (scene, ends)
}

/// A worker whose first guest is a port, and whose second one is the other host.
pub(super) fn scene_tunnel(kinds: [Kind; 2], snapshot: HostSnapshot, mac: MacAddress) -> Scene {
    let port = snapshot.ports.keys().next().copied().unwrap();
    let scene = scene_with(kinds, snapshot, [port; 2], Ingress::Underlay);
    scene.worker.engine.write().link_use(mac);
    scene
}

pub(super) fn scene_of(kinds: [Kind; 2], snapshot: HostSnapshot) -> Scene {
    let all: Vec<PortId> = snapshot.ports.keys().copied().collect();
    let ports = [all[0], all[1]];
    scene_with(kinds, snapshot, ports, Ingress::Port(ports[1]))
}

fn scene_with(
    kinds: [Kind; 2],
    snapshot: HostSnapshot,
    ports: [PortId; 2],
    second: Ingress,
) -> Scene {
    let snapshot = Arc::new(snapshot);
    let (sender, orders) = channel();
    let config = EngineConfig {
        limits: Limits {
            sessions_max: 1_000,
            sessions_per_port_max: 1_000,
        },
        seeds: Seeds([1, 2, 3, 4]),
    };
    let mut compiler = Compiler::new(config.seeds);
    let mut engine = Engine::new(config);
    engine.enforce(compiler.prepare(&snapshot));
    let engine = Handle::all(engine, 1).remove(0);
    let seat = Seat {
        number: 0,
        start: clock::now(),
        bells: vec![Arc::new(event())],
    };
    let mut worker = Worker::new(seat, engine, orders);
    let guests = kinds.map(Guest::new);
    let counters = [(); 2].map(|()| Arc::new(PortCounters::new(1)));
    let add = |worker: &mut Worker, ingress, at: usize| {
        let share = Arc::new(Share::new(at, 1));
        let queues = Arc::clone(&guests[at].queues);
        worker.port_add(ingress, queues, Arc::clone(&counters[at]), share);
    };
    add(&mut worker, Ingress::Port(ports[0]), 0);
    add(&mut worker, second, 1);
    Scene {
        worker,
        guests,
        counters,
        ports,
        compiler,
        _orders: sender,
    }
}

pub(super) fn datagram(source_port: u16, payload: usize) -> Vec<u8> {
    let link = Link {
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 2],
    };
    let addresses = Ip::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let ports = udp::Repr {
        source_port,
        destination_port: 2_000,
    };
    let payload: Vec<u8> = (0..payload).map(|n| n.to_le_bytes()[0]).collect();
    frame::udp(link, addresses, ports, &payload)
}

impl Scene {
    pub(super) fn turn(&mut self) -> usize {
        self.worker.turn(Duration::from_secs(5))
    }

    /// Enforces the same snapshot again: all sessions are stale.
    pub(super) fn enforce_again(&mut self) {
        let mut engine = self.worker.engine.write();
        let snapshot = Arc::clone(engine.snapshot().unwrap());
        engine.enforce(self.compiler.prepare(&snapshot));
    }

    pub(super) fn sessions(&mut self) -> usize {
        self.worker.engine.read().sessions_count()
    }

    pub(super) fn drops(&self, port: usize, reason: DropReason) -> u64 {
        let drops = self.counters[port].totals().drops;
        drops.get(&reason).copied().unwrap_or_default()
    }
}
