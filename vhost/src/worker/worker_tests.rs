//! A worker between two guests, each a driver of its own: whole frames over every kind of ring, and guests that misbehave.

use super::{Order, PortCounters, Worker};
use crate::driver::{Buffer, DriverRing, Layout};
use crate::engine::{Compiler, EngineConfig, Limits, Seeds};
use crate::memory::{Mapping, Region, Window};
use crate::protocol::{Device, Request, RingAddress, feature};
use crate::queue::PortQueues;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use weft_dataplane::Ingress;
use weft_model::{DropReason, HostSnapshot, PortId};
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

const BYTES: usize = 4 << 20;
const USER: u64 = 0x7f00_0000_0000;
/// Where buffers are: those to receive into, then those to send, then room for tables.
const RECEIVE: u64 = 1 << 20;
const SEND: u64 = 2 << 20;
const TABLES: u64 = 3 << 20;
const SIZE: u16 = 64;

/// What a guest negotiates, and how it offers its buffers.
#[derive(Clone, Copy, Debug)]
struct Kind {
    packed: bool,
    mergeable: bool,
    indirect: bool,
    /// The header in a buffer of its own.
    apart: bool,
    version_1: bool,
    /// Bytes of each buffer to receive into.
    buffer: u32,
}

const PLAIN: Kind = Kind {
    packed: false,
    mergeable: true,
    indirect: false,
    apart: false,
    version_1: true,
    buffer: 2048,
};

impl Kind {
    fn features(self) -> u64 {
        let bit = |on, bit| if on { bit } else { 0 };
        feature::INDIRECT
            | feature::PROTOCOL_FEATURES
            | bit(self.packed, feature::PACKED)
            | bit(self.mergeable, feature::NET_MERGEABLE)
            | bit(self.version_1, feature::VERSION_1)
    }

    fn header_bytes(self) -> u32 {
        if self.mergeable || self.version_1 {
            12
        } else {
            10
        }
    }
}

struct Guest {
    kind: Kind,
    memory: Window,
    receive: DriverRing,
    send: DriverRing,
    offered: Vec<(u16, u64)>,
    sent: u64,
    queues: Arc<PortQueues>,
    call: OwnedFd,
    file: OwnedFd,
    _device: Device,
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

impl Guest {
    fn new(kind: Kind) -> Self {
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
            _device: device,
        };
        guest.receive_offer(32);
        guest
    }

    fn receive_offer(&mut self, count: u64) {
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

    fn put(&self, address: u64, bytes: &[u8]) {
        for (at, byte) in (usize::try_from(address).unwrap()..).zip(bytes) {
            // A byte at a time, by the word around it: the ring's window knows words.
            let (word, shift) = (at & !1, 8 * (at & 1));
            let old = self.memory.u16(word, Relaxed) & !(0xff << shift);
            self.memory
                .u16_put(word, old | u16::from(*byte) << shift, Relaxed);
        }
    }

    fn get(&self, address: u64, bytes: u32) -> Vec<u8> {
        let start = usize::try_from(address).unwrap();
        let byte = |at: usize| self.memory.u16(at & !1, Relaxed).to_le_bytes()[at & 1];
        (start..start + usize::try_from(bytes).unwrap())
            .map(byte)
            .collect()
    }

    fn send(&mut self, frame: &[u8]) {
        let number = self.sent % 16;
        self.sent += 1;
        let (address, header) = (SEND + number * 0x1_0000, self.kind.header_bytes());
        let frame_at = address + u64::from(header) + if self.kind.apart { 100 } else { 0 };
        self.put(address, &vec![0; usize::try_from(header).unwrap()]);
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
    fn received(&mut self) -> Option<(Vec<u8>, u16)> {
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
        Some((frame.split_off(usize::try_from(header).unwrap()), buffers))
    }
}

struct Scene {
    worker: Worker,
    guests: [Guest; 2],
    counters: [Arc<PortCounters>; 2],
    ports: [PortId; 2],
    _orders: Sender<Order>,
}

fn snapshot() -> HostSnapshot {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    HostSnapshot::from_file(&folder.join("../perf-lab/snapshots/two-ports-policy.json")).unwrap()
}

fn scene(kinds: [Kind; 2]) -> Scene {
    let snapshot = Arc::new(snapshot());
    let (sender, orders) = channel();
    let config = EngineConfig {
        limits: Limits {
            sessions_max: 1_000,
            sessions_per_port_max: 1_000,
        },
        seeds: Seeds([1, 2, 3, 4]),
    };
    let mut worker = Worker::new(config, orders, Arc::new(event()));
    let mut compiler = Compiler::new(config.seeds);
    worker.engine.enforce(compiler.prepare(&snapshot));
    let guests = kinds.map(Guest::new);
    let counters = [(); 2].map(|()| Arc::new(PortCounters::default()));
    let all: Vec<PortId> = snapshot.ports.keys().copied().collect();
    let ports = [all[0], all[1]];
    for at in 0..2 {
        let queues = Arc::clone(&guests[at].queues);
        worker.port_add(ports[at], queues, Arc::clone(&counters[at]));
    }
    Scene {
        worker,
        guests,
        counters,
        ports,
        _orders: sender,
    }
}

fn datagram(source_port: u16, payload: usize) -> Vec<u8> {
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
    fn turn(&mut self) -> usize {
        self.worker.turn(Duration::from_secs(5))
    }

    fn drops(&self, port: usize, reason: DropReason) -> u64 {
        let drops = self.counters[port].totals().drops;
        drops.get(&reason).copied().unwrap_or_default()
    }
}

#[test]
fn whole_frames_pass_over_every_kind_of_ring() {
    let mut kinds = Vec::new();
    for number in 0..32u32 {
        let bit = |at: u32| number >> at & 1 == 1;
        let mergeable = bit(1);
        // Packed rings came with version 1.
        let version_1 = bit(4) || bit(0);
        kinds.push(Kind {
            packed: bit(0),
            mergeable,
            indirect: bit(2),
            apart: bit(3),
            version_1,
            buffer: if mergeable { 700 } else { 16_000 },
        });
    }
    for (number, kind) in kinds.iter().enumerate() {
        let other = kinds[(number * 7 + 3) % kinds.len()];
        let mut scene = scene([*kind, other]);
        for (n, payload) in (0u16..).zip([0, 1, 22, 86, 87, 500, 645, 1400, 8_000]) {
            let frame = datagram(1_000 + n, payload);
            scene.guests[0].send(&frame);
            assert_eq!(scene.turn(), 1, "{kind:?} {other:?}");
            let (have, buffers) = scene.guests[1].received().unwrap_or_default();
            assert_eq!(have, frame, "{kind:?} {other:?} {payload}");
            let needed = frame.len() + 12;
            let each = usize::try_from(other.buffer).unwrap();
            assert_eq!(usize::from(buffers), needed.div_ceil(each), "{other:?}");
            assert!(
                scene.guests[0].send.collect().is_some(),
                "the buffer is given back"
            );
            scene.guests[1].receive_offer(32);
        }
        let totals = scene.counters[1].totals();
        assert_eq!(
            (totals.tx_packets, scene.worker.engine.sessions_count()),
            (9, 9)
        );
    }
}

#[test]
fn a_batch_keeps_its_order_through_the_quick_and_the_slow_way() {
    let mut scene = scene([PLAIN; 2]);
    // Every third one is an echo request: judged as a whole.
    let echo = |sequence| {
        let link = Link {
            source: [2, 0, 0, 0, 0, 1],
            destination: [2, 0, 0, 0, 0, 2],
        };
        let addresses = Ip::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let echo = frame::Echo {
            reply: false,
            identifier: 7,
            sequence,
        };
        frame::echo(link, addresses, echo, b"ping")
    };
    let frames: Vec<Vec<u8>> = (0u16..15)
        .map(|n| if n % 3 == 0 { echo(n) } else { datagram(n, 30) })
        .collect();
    frames.iter().for_each(|frame| scene.guests[0].send(frame));
    assert_eq!(scene.turn(), 15);
    let came: Vec<Vec<u8>> = std::iter::from_fn(|| scene.guests[1].received())
        .map(|(frame, _)| frame)
        .collect();
    assert_eq!(came, frames);
}

#[test]
fn what_is_not_delivered_is_counted_by_its_reason() {
    let mut scene = scene([PLAIN; 2]);
    let mut spoofed = datagram(1, 10);
    spoofed[6] = 6;
    let mut denied = datagram(1, 10);
    denied[37] = 80;
    denied[36] = 0;
    for frame in [spoofed, denied, vec![0; 13]] {
        scene.guests[0].send(&frame);
    }
    // 32 buffers take 32 frames and no more; then one frame that is longer than all of them.
    for number in 0..12 {
        scene.guests[0].send(&datagram(number, 10));
    }
    scene.turn();
    for number in 12..34 {
        scene.guests[0].send(&datagram(number, 10));
        scene.turn();
        while scene.guests[0].send.collect().is_some() {}
    }
    assert_eq!(scene.drops(0, DropReason::SpoofedMac), 1);
    assert_eq!(scene.drops(0, DropReason::SecurityGroupIngressDenied), 1);
    assert_eq!(scene.drops(0, DropReason::Malformed), 1);
    assert_eq!(scene.drops(0, DropReason::GuestQueueFull), 2);
    let totals = scene.counters.each_ref().map(|counters| counters.totals());
    assert_eq!((totals[0].rx_packets, totals[1].tx_packets), (37, 32));
    scene.guests[1].queues.reset();
    scene.guests[0].send(&datagram(1, 10));
    scene.turn();
    scene.turn();
    assert_eq!(scene.drops(0, DropReason::DestinationPortDown), 1);
}

#[test]
fn an_arp_request_is_answered_to_its_sender() {
    let mut scene = scene([PLAIN; 2]);
    let mac = [2, 0, 0, 0, 0, 1];
    let ask = frame::arp_request(mac, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    scene.guests[0].send(&ask);
    scene.turn();
    let (reply, _) = scene.guests[0].received().unwrap();
    assert_eq!(
        (&reply[..6], &reply[22..28]),
        (&mac[..], &[2, 0, 0, 0, 0, 2][..])
    );
}

#[test]
fn a_guest_is_told_when_it_asks_and_only_once_a_batch() {
    let mut scene = scene([PLAIN; 2]);
    let count = |guest: &Guest| {
        let mut word = [0; 8];
        let read = rustix::io::read(&guest.call, &mut word);
        read.map_or(0, |_| u64::from_ne_bytes(word))
    };
    let _started = scene.guests.each_ref().map(count);
    scene.guests[0].send.interrupts_ask(false, None);
    for number in 0..5 {
        scene.guests[0].send(&datagram(number, 10));
    }
    scene.turn();
    assert_eq!(scene.guests.each_ref().map(count), [0, 1]);
    scene.guests[1].receive.interrupts_ask(false, None);
    scene.guests[0].send(&datagram(9, 10));
    scene.turn();
    assert_eq!(scene.guests.each_ref().map(count), [0, 0]);
}

#[test]
fn a_hostile_guest_loses_its_port_and_nobody_else_notices() {
    let mut scene = scene([PLAIN; 2]);
    scene.guests[0].send(&datagram(1, 10));
    // The buffer lies where the guest has no memory.
    scene.guests[0]
        .memory
        .u64_put(0x1_0000 + 63 * 16, 1 << 40, Relaxed);
    for at in 0..usize::from(SIZE) {
        scene.guests[0]
            .memory
            .u64_put(0x1_0000 + at * 16, 1 << 40, Relaxed);
    }
    scene.turn();
    let reason = scene.guests[0].queues.shut_reason().unwrap();
    assert!(reason.contains("0x10000000000"), "{reason}");
    scene.guests[0].send(&datagram(2, 10));
    assert_eq!(scene.turn(), 0, "it is not polled any more");
    assert!(scene.guests[1].queues.shut_reason().is_none());
    // One that receives can be hostile too.
    let mut other = self::scene([PLAIN; 2]);
    for at in 0..usize::from(SIZE) {
        other.guests[1]
            .memory
            .u64_put(at * 16, u64::MAX - 5, Relaxed);
    }
    other.guests[0].send(&datagram(1, 10));
    other.turn();
    assert!(other.guests[1].queues.shut_reason().is_some());
    assert_eq!(other.drops(0, DropReason::GuestQueueFull), 1);
    assert!(other.guests[0].queues.shut_reason().is_none());
    assert!(
        other
            .worker
            .engine
            .place(Ingress::Port(other.ports[1]))
            .is_some()
    );
}

#[test]
fn a_guest_that_truncates_its_memory_loses_its_port_and_nobody_else_notices() {
    let mut scene = scene([PLAIN; 2]);
    scene.guests[0].send(&datagram(1, 10));
    assert_eq!(scene.turn(), 1);
    rustix::fs::ftruncate(&scene.guests[0].file, 0).unwrap();
    scene.turn();
    let reason = scene.guests[0].queues.shut_reason().unwrap();
    assert!(reason.contains("truncated"), "{reason}");
    assert!(scene.guests[1].queues.shut_reason().is_none());
    assert!(
        scene.guests[1].received().is_some(),
        "its memory is as it was"
    );
}

#[test]
fn a_sleeping_worker_is_woken_by_a_kick() {
    let mut scene = scene([PLAIN; 2]);
    scene.turn();
    scene.guests[0].send(&datagram(1, 10));
    // Something is there already: it must not sleep over it.
    scene.worker.sleep(Duration::from_secs(5));
    assert_eq!(scene.turn(), 1);
    let kick = scene.guests[0]
        .queues
        .lock(1)
        .unwrap()
        .kick
        .clone()
        .unwrap();
    scene.guests[0].send(&datagram(2, 10));
    rustix::io::write(&*kick, &1u64.to_ne_bytes()).unwrap();
    scene.worker.sleep(Duration::from_secs(5));
    assert_eq!(scene.turn(), 1);
    assert!(!scene.guests[0].send.kicks_wanted(), "awake, it polls");
}
