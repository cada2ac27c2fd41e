//! Several workers on one engine, under everything that happens at the same time: many flows, queues that move, snapshots, questions.
//!
//! What is held: every frame that was sent was delivered whole, in its flow's order, or dropped with a reason; and all counters say
//! so, to the last frame.

use super::scene::{USER, event, snapshot};
use super::spread::Share;
use super::switch::{Switch, SwitchConfig};
use super::{PortCounters, PortTotals};
use crate::driver::{Buffer, DriverRing, Layout};
use crate::engine::{EngineConfig, Limits, Seeds};
use crate::memory::{Mapping, Piece, Region, Regions};
use crate::protocol::{Device, Request, RingAddress, feature};
use crate::queue::PortQueues;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use weft_model::{DropReason, HostSnapshot, PortId, PortInterface, VhostUserMode};
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

const WORKERS: usize = 3;
const GUESTS: u8 = 4;
const PAIRS: u16 = 2;
const RING: u16 = 64;
/// Memory of one pair: two rings, then buffers to receive into, then buffers to send.
const PAIR_BYTES: usize = 1 << 19;
const RECEIVE_AT: usize = 1 << 16;
const SEND_AT: usize = 5 << 16;
const BUFFER: usize = 2_048;
const HEADER: usize = 12;
const FRAMES: u32 = 12_000;
/// Flows of each pair, one after the other in short trains; the last one is all pairs' of its guest.
const FLOWS: u16 = 40;
const COMMON: u16 = 9_999;

/// One pair of queues, from the guest's side.
struct Lane {
    guest: u8,
    number: u16,
    memory: Regions,
    receive: DriverRing,
    send: DriverRing,
    offered: BTreeMap<u16, usize>,
    free: Vec<usize>,
    sending: BTreeMap<u16, usize>,
    sent: u32,
    /// The newest of each flow that came, by sender and flow.
    newest: BTreeMap<(u8, u16, u16), u32>,
    received: u64,
}

struct Guest {
    id: PortId,
    queues: Arc<PortQueues>,
    _device: Device,
}

fn lanes(guest: u8, id: PortId, packed: bool) -> (Guest, Vec<Lane>) {
    let bytes = PAIR_BYTES * usize::from(PAIRS);
    let (mapping, file) = Mapping::with_file("weft-lanes", bytes).unwrap();
    let mapping = Arc::new(mapping);
    let queues = Arc::new(PortQueues::default());
    let mut device = Device::new(Arc::clone(&queues), feature::OFFERED);
    let region = Region {
        guest_address: 0,
        bytes: bytes as u64,
        user_address: USER,
        file_offset: 0,
    };
    let mut memory = Regions::default();
    memory.add(region, &file).unwrap();
    let packed_bit = if packed { feature::PACKED } else { 0 };
    let features =
        feature::PROTOCOL_FEATURES | feature::NET_MERGEABLE | feature::VERSION_1 | packed_bit;
    let mut ask = |request: Request, fds| device.handle(request, fds).unwrap();
    ask(Request::FeaturesSet(features), vec![]);
    ask(Request::MemoryTable(vec![region]), vec![file]);
    let mut lanes = Vec::new();
    for number in 0..PAIRS {
        let start = PAIR_BYTES * usize::from(number);
        let layout = |start| Layout {
            packed,
            size: RING,
            start,
        };
        let layouts = [layout(start), layout(start + (1 << 15))];
        for (index, layout) in (2 * u32::from(number)..).zip(&layouts) {
            let [descriptors, driver, in_device] = layout.starts().map(|at| USER + at as u64);
            let address = RingAddress {
                index,
                descriptors,
                device: in_device,
                driver,
            };
            let base = if packed { 0x8000_8000 } else { 0 };
            ask(Request::RingSize(index, u32::from(RING)), vec![]);
            ask(Request::RingBaseSet(index, base), vec![]);
            ask(Request::RingAddress(address), vec![]);
            ask(Request::RingKick(index, true), vec![event()]);
            ask(Request::RingEnable(index, true), vec![]);
        }
        let [receive, send] = layouts.map(|layout| DriverRing::new(layout, &mapping).unwrap());
        let buffers = |at: usize| (0..usize::from(RING)).map(move |n| start + at + n * BUFFER);
        let mut lane = Lane {
            guest,
            number,
            memory: memory.clone(),
            receive,
            send,
            offered: BTreeMap::new(),
            free: buffers(SEND_AT).collect(),
            sending: BTreeMap::new(),
            sent: 0,
            newest: BTreeMap::new(),
            received: 0,
        };
        buffers(RECEIVE_AT).for_each(|at| lane.offer(at));
        lanes.push(lane);
    }
    let guest = Guest {
        id,
        queues,
        _device: device,
    };
    (guest, lanes)
}

/// What a frame says of itself, so that whoever receives it knows all of its bytes.
struct Words {
    from: u8,
    lane: u16,
    flow: u16,
    number: u32,
}

fn payload(words: &Words) -> Vec<u8> {
    let bytes = 16 + usize::try_from(words.number * 37 % 1_300).unwrap();
    let mut payload = vec![words.from];
    payload.extend(words.lane.to_le_bytes());
    payload.extend(words.flow.to_le_bytes());
    payload.extend(words.number.to_le_bytes());
    let salt = words.number.to_le_bytes()[0] ^ words.from;
    payload.extend((9..bytes).map(|at| at.to_le_bytes()[0] ^ salt));
    payload
}

fn mac(guest: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, guest]
}

fn frame_of(words: &Words, to: u8) -> Vec<u8> {
    let link = Link {
        source: mac(words.from),
        destination: mac(to),
    };
    let address = |guest| Ipv4Addr::new(10, 0, 0, guest);
    let ports = udp::Repr {
        source_port: words.flow,
        destination_port: 2_000,
    };
    let addresses = Ip::new(address(words.from), address(to));
    frame::udp(link, addresses, ports, &payload(words))
}

impl Lane {
    fn piece(&self, at: usize, bytes: usize) -> Piece {
        (self.memory)
            .piece(at as u64, bytes, &Cell::new(0))
            .unwrap()
    }

    fn offer(&mut self, at: usize) {
        let buffer = Buffer {
            address: at as u64,
            bytes: u32::try_from(BUFFER).unwrap(),
            write: true,
        };
        let id = self.receive.offer(&[buffer], None).unwrap();
        self.offered.insert(id, at);
    }

    fn send(&mut self) {
        while let Some((id, _)) = self.send.collect() {
            self.free.extend(self.sending.remove(&id));
        }
        if self.sent == FRAMES {
            return;
        }
        let Some(at) = self.free.pop() else { return };
        let number = self.sent;
        self.sent += 1;
        let train = u16::try_from(number / 32).unwrap();
        let flow = match number % 8 {
            0 => COMMON,
            _ => 10_000 + self.number * FLOWS + train % FLOWS,
        };
        let words = Words {
            from: self.guest,
            lane: self.number,
            flow,
            number,
        };
        let to = 1 + (self.guest + u8::try_from(train % 3).unwrap()) % GUESTS;
        let mut bytes = vec![0; HEADER];
        bytes.extend(frame_of(&words, to));
        let span = self.piece(at, bytes.len());
        assert_eq!(self.memory.span(&span).unwrap().write(&bytes), bytes.len());
        let buffer = Buffer {
            address: at as u64,
            bytes: u32::try_from(bytes.len()).unwrap(),
            write: false,
        };
        let id = self.send.offer(&[buffer], None).unwrap();
        self.sending.insert(id, at);
    }

    fn take(&mut self) {
        while let Some((id, written)) = self.receive.collect() {
            let at = self.offered.remove(&id).unwrap();
            let mut bytes = vec![0; usize::try_from(written).unwrap()];
            let span = self.piece(at, bytes.len());
            self.memory.span(&span).unwrap().read(&mut bytes);
            self.offer(at);
            let came = &bytes[HEADER..];
            let [from, a, b, c, d, e, f, g, h, ..] = came[42..] else {
                panic!("a frame of {} bytes", came.len())
            };
            let words = Words {
                from,
                lane: u16::from_le_bytes([a, b]),
                flow: u16::from_le_bytes([c, d]),
                number: u32::from_le_bytes([e, f, g, h]),
            };
            assert_eq!(came, frame_of(&words, self.guest), "a frame is whole");
            let flow = (words.from, words.lane, words.flow);
            let before = self.newest.insert(flow, words.number);
            assert!(
                before.is_none_or(|before| before < words.number),
                "{flow:?}: {} came behind {before:?}",
                words.number
            );
            self.received += 1;
        }
    }
}

fn ports() -> (HostSnapshot, Vec<PortId>) {
    let mut snapshot = snapshot("two-ports-policy.json");
    let (id, port) = snapshot.ports.pop_first().unwrap();
    snapshot.ports.clear();
    let mut ids = Vec::new();
    for guest in 1..=GUESTS {
        let mut port = port.clone();
        port.mac_address.0 = mac(guest);
        port.fixed_ips[0].ip_address = Ipv4Addr::new(10, 0, 0, guest).into();
        port.interface = PortInterface::VhostUser {
            socket: format!("/run/weft/{guest}.sock"),
            mode: VhostUserMode::Client,
        };
        let mut uuid = *id.0.as_bytes();
        uuid[15] = guest;
        let id = PortId(uuid::Uuid::from_bytes(uuid));
        snapshot.ports.insert(id, port);
        ids.push(id);
    }
    (snapshot, ids)
}

/// One that keeps its sessions there.
fn start(file: &Path) -> Switch {
    let config = SwitchConfig {
        engine: EngineConfig {
            limits: Limits {
                sessions_max: 10_000,
                sessions_per_port_max: 10_000,
            },
            seeds: Seeds([1, 2, 3, 4]),
        },
        cpus: Vec::new(),
        hand_over: None,
        shared: false,
        sessions_file: Some(file.to_owned()),
    };
    Switch::start_on(&config, &[None; WORKERS]).unwrap()
}

/// Whatever else happens meanwhile: queues move, the snapshot comes again, somebody looks on and asks.
fn disturb(switch: &Switch, guests: &[(Guest, Arc<Share>)], snapshot: &HostSnapshot, round: usize) {
    for (at, (guest, share)) in guests.iter().enumerate() {
        share.give(round % usize::from(PAIRS), (round + at) % WORKERS);
        guest.queues.changed();
    }
    match round % 4 {
        0 => switch.apply(&Arc::new(snapshot.clone())),
        1 => assert!(
            switch
                .ask(|engine| engine.sessions().count())
                .is_some_and(|count| count <= 10_000)
        ),
        2 => switch.tap_add(guests[0].0.id, 7, &(Arc::new(|_, _: &[u8]| ()) as _)),
        _ => switch.tap_remove(7),
    }
}

#[test]
fn several_workers_lose_no_frame_and_no_count_whatever_happens_meanwhile() {
    let (snapshot, ids) = ports();
    assert!(snapshot.validate().is_empty(), "{:?}", snapshot.validate());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sessions");
    let switch = start(&file);
    switch.apply(&Arc::new(snapshot.clone()));
    let (mut guests, mut drivers) = (Vec::new(), vec![Vec::new(), Vec::new()]);
    let mut counters: Vec<Arc<PortCounters>> = Vec::new();
    for (guest, id) in (1..).zip(ids) {
        let (guest, lanes) = lanes(guest, id, guest % 2 == 0);
        let (counted, share) = switch.port_spread(id, &guest.queues);
        counters.push(counted);
        guests.push((guest, share));
        for (driver, lane) in drivers.iter_mut().zip(lanes) {
            driver.push(lane);
        }
    }
    let done = AtomicBool::new(false);
    let lanes: Vec<Lane> = std::thread::scope(|scope| {
        let all = usize::from(GUESTS) * usize::from(PAIRS) * usize::try_from(FRAMES).unwrap();
        let drive = |mut lanes: Vec<Lane>| {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    for lane in &mut lanes {
                        lane.send();
                        lane.take();
                    }
                }
                lanes.iter_mut().for_each(Lane::take);
                lanes
            })
        };
        let driven: Vec<_> = drivers.into_iter().map(drive).collect();
        let counted = || {
            let totals = counters.iter().map(|counters| counters.totals());
            let of = |totals: PortTotals| totals.tx_packets + totals.drops.values().sum::<u64>();
            usize::try_from(totals.map(of).sum::<u64>()).unwrap()
        };
        let mut round = 0;
        while counted() < all && driven.iter().all(|driver| !driver.is_finished()) {
            disturb(&switch, &guests, &snapshot, round);
            round += 1;
            std::thread::park_timeout(Duration::from_millis(2));
        }
        done.store(true, Relaxed);
        driven.into_iter().flat_map(|d| d.join().unwrap()).collect()
    });
    let totals: Vec<PortTotals> = counters.iter().map(|counters| counters.totals()).collect();
    let sent: u64 = lanes.iter().map(|lane| u64::from(lane.sent)).sum();
    let received: u64 = lanes.iter().map(|lane| lane.received).sum();
    let dropped: u64 = totals.iter().flat_map(|totals| totals.drops.values()).sum();
    assert_eq!(sent, received + dropped, "{totals:?}");
    let [rx, tx] = [|t: &PortTotals| t.rx_packets, |t: &PortTotals| t.tx_packets]
        .map(|of| totals.iter().map(of).sum::<u64>());
    assert_eq!((rx, tx), (sent, received));
    assert!(received > sent / 2, "{totals:?}");
    let sessions = switch.ask(|engine| engine.sessions().collect::<Vec<_>>());
    let sessions = sessions.unwrap();
    let of_sessions: u64 = (sessions.iter())
        .map(|session| session.packets + session.reply_packets)
        .sum();
    // What is dropped where it would be delivered was counted in its session before: no room, or a worker that has not been
    // told of the port yet.
    let last = [DropReason::GuestQueueFull, DropReason::DestinationPortDown];
    let drops = totals.iter().flat_map(|totals| &totals.drops);
    let before: u64 = (drops.filter(|(reason, _)| !last.contains(reason)))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(
        sent - before,
        of_sessions,
        "each packet is counted in its session"
    );
    drop(switch);
    let next = start(&file);
    next.apply(&Arc::new(snapshot));
    let go_on = next.ask(|engine| engine.sessions_count());
    assert_eq!(go_on, Some(sessions.len()), "they go on in the next one");
}
