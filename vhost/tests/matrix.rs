//! Whole frames between two guests over sockets, in every combination of what they may negotiate: kinds of rings, mergeable
//! buffers, indirect tables, order, event index, offloads, queues, and who listens. Each guest waits to be called.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::Duration;
use weft_model::{HostSnapshot, PortInterface, VhostUserMode};
use weft_vhost::alone::{Alone, AloneConfig};
use weft_vhost::driver::Buffer;
use weft_vhost::engine::Limits;
use weft_vhost::frontend::{Frontend, FrontendConfig};
use weft_vhost::protocol::feature;
use weft_wire::frame::{self, Ip, Link};
use weft_wire::{tcp, udp};

const TIMEOUT: Duration = Duration::from_secs(20);
const RING: u16 = 64;
/// Places of the buffers to receive into, behind the rings; then those to send from, and the tables.
const RECEIVE_BYTES: u64 = 0x4000;
const RECEIVING: u64 = 32;
const SEND: u64 = RECEIVE_BYTES * RECEIVING;
const SEND_BYTES: u64 = 0x1_0000;
const TABLE: u64 = SEND + SEND_BYTES;
/// Of each queue pair.
const PAIR_BYTES: u64 = TABLE + 256;
const OFFLOADS: u64 = feature::NET_CHECKSUM
    | feature::NET_GUEST_CHECKSUM
    | feature::NET_HOST_TSO4
    | feature::NET_GUEST_TSO4;
/// TCP over IPv4 in segments of 1,000 bytes behind headers of 54, the checksum from 34 on at 16 to be done.
const SEGMENTS: [u8; 12] = [1, 1, 54, 0, 232, 3, 34, 0, 16, 0, 0, 0];

/// One combination.
#[derive(Clone, Copy, Debug)]
struct Kind {
    packed: bool,
    mergeable: bool,
    indirect: bool,
    in_order: bool,
    event_index: bool,
    /// Of the sender, and of the receiver.
    offloads: [bool; 2],
    pairs: u16,
    listens: bool,
}

impl Kind {
    fn numbered(number: u32) -> Self {
        let bit = |at: u32| number >> at & 1 == 1;
        Self {
            packed: bit(0),
            mergeable: bit(1),
            indirect: bit(2),
            in_order: bit(3),
            event_index: bit(4),
            offloads: [bit(5), bit(6)],
            pairs: if bit(7) { 2 } else { 1 },
            listens: bit(8),
        }
    }

    fn features(self, guest: usize) -> u64 {
        let bit = |on, feature| if on { feature } else { 0 };
        feature::VERSION_1
            | bit(self.packed, feature::PACKED)
            | bit(self.mergeable, feature::NET_MERGEABLE)
            | bit(self.indirect, feature::INDIRECT)
            | bit(self.in_order, feature::IN_ORDER)
            | bit(self.event_index, feature::EVENT_INDEX)
            | bit(self.offloads[guest], OFFLOADS)
    }
}

struct Guest {
    frontend: Frontend,
    kind: Kind,
    /// Offered to receive into, by pair: ids and places.
    offered: Vec<VecDeque<(u16, u64)>>,
}

impl Guest {
    fn new(kind: Kind, number: usize) -> Self {
        let frontend = Frontend::new(FrontendConfig {
            features: kind.features(number),
            pairs: kind.pairs,
            ring_size: RING,
            inflight: false,
            buffer_bytes: usize::try_from(PAIR_BYTES * u64::from(kind.pairs)).unwrap(),
        });
        Self {
            frontend: frontend.unwrap(),
            kind,
            offered: (0..kind.pairs).map(|_| VecDeque::new()).collect(),
        }
    }

    fn place(&self, pair: usize, at: u64) -> u64 {
        self.frontend.buffers() + u64::try_from(pair).unwrap() * PAIR_BYTES + at
    }

    fn receive_offer(&mut self) {
        for pair in 0..self.offered.len() {
            for number in 0..RECEIVING {
                let address = self.place(pair, number * RECEIVE_BYTES);
                let bytes = if self.kind.mergeable { 700 } else { 16_000 };
                let buffer = Buffer {
                    address,
                    bytes,
                    write: true,
                };
                let id = self.frontend.offer(2 * pair, buffer).unwrap().unwrap();
                self.offered[pair].push_back((id, address));
            }
            let ring = self.frontend.ring(2 * pair).unwrap();
            ring.interrupts_ask(true, self.kind.event_index.then_some(0));
        }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        for (at, word) in (usize::try_from(at).unwrap()..)
            .step_by(2)
            .zip(bytes.chunks(2))
        {
            let word = u16::from_le_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
            self.frontend.memory().u16_put(at, word, Relaxed);
        }
    }

    fn get(&self, at: u64, bytes: u32) -> Vec<u8> {
        let start = usize::try_from(at).unwrap();
        let words = (start..start + usize::try_from(bytes).unwrap()).step_by(2);
        let memory = self.frontend.memory();
        let mut all: Vec<u8> = words
            .flat_map(|at| memory.u16(at, Relaxed).to_le_bytes())
            .collect();
        all.truncate(usize::try_from(bytes).unwrap());
        all
    }

    /// Sends a frame in three buffers, and waits until it was taken.
    fn send(&mut self, pair: usize, header: [u8; 12], frame: &[u8]) {
        let start = self.place(pair, SEND);
        self.put(start, &header);
        self.put(start + 12, frame);
        let bytes = u32::try_from(frame.len()).unwrap();
        let buffer = |at: u32, bytes| Buffer {
            address: start + u64::from(at),
            bytes,
            write: false,
        };
        let half = bytes / 2;
        let chain = [
            buffer(0, 12),
            buffer(12, half),
            buffer(12 + half, bytes - half),
        ];
        let table = self.kind.indirect.then_some(self.place(pair, TABLE));
        let queue = 2 * pair + 1;
        let ring = self.frontend.ring(queue).unwrap();
        ring.interrupts_ask(true, self.kind.event_index.then_some(0));
        let offered = self.frontend.offer_chain(queue, &chain, table).unwrap();
        self.frontend.wait(queue, TIMEOUT).unwrap();
        let back = self.frontend.ring(queue).unwrap().collect();
        assert_eq!(back.map(|(id, _)| id), offered, "{:?}", self.kind);
    }

    /// Virtio's header and the frame behind it, when it has come.
    ///
    /// What the first port sends by a pair comes in by the next one: ports with one pair each spread over all.
    fn receive(&mut self, sent: usize) -> (Vec<u8>, Vec<u8>) {
        let pair = (sent + 1) % self.offered.len();
        let mut whole = Vec::new();
        let mut left = 1;
        while left > 0 {
            let ring = self.frontend.ring(2 * pair).unwrap();
            // Before it waits, it asks to be called and looks once more.
            let came = ring.collect().or_else(|| {
                ring.interrupts_ask(true, self.kind.event_index.then_some(0));
                fence(SeqCst);
                ring.collect()
            });
            let Some((id, bytes)) = came else {
                self.frontend.wait(2 * pair, TIMEOUT).unwrap();
                continue;
            };
            let (offered, address) = self.offered[pair].pop_front().unwrap();
            assert_eq!(id, offered, "{:?}", self.kind);
            let part = self.get(address, bytes);
            if whole.is_empty() {
                left = u16::from_le_bytes([part[10], part[11]]);
            }
            whole.extend(part);
            left -= 1;
        }
        let frame = whole.split_off(12);
        (whole, frame)
    }
}

/// A switch with two guests.
fn meet(kind: Kind, snapshot: &HostSnapshot, folder: &Path) -> (Alone, [Guest; 2]) {
    let sockets: Vec<PathBuf> = (0..2).map(|n| folder.join(format!("{n}.sock"))).collect();
    let mode = match kind.listens {
        true => VhostUserMode::Server,
        false => VhostUserMode::Client,
    };
    let mut snapshot = snapshot.clone();
    for (port, socket) in snapshot.ports.values_mut().zip(&sockets) {
        port.interface = PortInterface::VhostUser {
            socket: socket.to_str().unwrap().to_owned(),
            mode,
        };
    }
    let listeners = sockets.iter().filter(|_| kind.listens);
    let listeners: Vec<UnixListener> = listeners
        .map(|socket| UnixListener::bind(socket).unwrap())
        .collect();
    let config = AloneConfig {
        link: None,
        sockets: Vec::new(),
        cpus: Vec::new(),
        sessions_file: None,
        limits: Limits {
            sessions_max: 1_000,
            sessions_per_port_max: 1_000,
        },
    };
    let alone = Alone::start(&Arc::new(snapshot), &config).unwrap();
    let guests = [0, 1].map(|number| {
        let mut guest = Guest::new(kind, number);
        match listeners.get(number) {
            Some(listener) => guest.frontend.meet(listener.accept().unwrap().0).unwrap(),
            None => guest.frontend.connect(&sockets[number]).unwrap(),
        }
        assert_eq!(
            guest.frontend.negotiated(),
            kind.features(number) | feature::PROTOCOL_FEATURES
        );
        guest.receive_offer();
        guest
    });
    // The worker has seen all rings when it looks at them next.
    alone.switch().ask(|_| ()).unwrap();
    for socket in sockets.iter().filter(|_| kind.listens) {
        std::fs::remove_file(socket).unwrap();
    }
    (alone, guests)
}

const LINK: Link = Link {
    source: [2, 0, 0, 0, 0, 1],
    destination: [2, 0, 0, 0, 0, 2],
};

fn addresses() -> Ip {
    Ip::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect()
}

fn segment(pair: usize, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let segment = tcp::Repr {
        source_port: 1_000 + u16::try_from(pair).unwrap(),
        destination_port: 22,
        sequence,
        acknowledgment: 1,
        flags,
        window: 1_000,
    };
    frame::tcp(LINK, addresses(), segment, payload)
}

fn datagrams_pass(pair: usize, [one, two]: &mut [Guest; 2]) {
    for payload in [0, 1, 22, 86, 500, 1_400] {
        let ports = udp::Repr {
            source_port: 2_000 + u16::try_from(pair).unwrap(),
            destination_port: 2_000,
        };
        let frame = frame::udp(LINK, addresses(), ports, &bytes(payload));
        one.send(pair, [0; 12], &frame);
        let (_, came) = two.receive(pair);
        assert!(came == frame, "{:?}: {payload} bytes", one.kind);
    }
}

/// A frame of three segments: whole to a guest that takes it, cut and complete to one that does not.
fn segments_pass(pair: usize, [one, two]: &mut [Guest; 2]) {
    let opener = segment(pair, 1, tcp::SYN, &[]);
    one.send(pair, [0; 12], &opener);
    assert!(two.receive(pair).1 == opener);
    let payload = bytes(2_500);
    let large = segment(pair, 7, tcp::ACK, &payload);
    one.send(pair, SEGMENTS, &large);
    if two.kind.offloads[1] {
        let (header, came) = two.receive(pair);
        assert_eq!(header[..10], SEGMENTS[..10], "{:?}", one.kind);
        assert!(came == large, "{:?}", one.kind);
        return;
    }
    for (number, part) in (0..).zip(payload.chunks(1_000)) {
        let (header, came) = two.receive(pair);
        assert_eq!(header[..2], [0; 2], "{:?}", one.kind);
        let wanted = segment(pair, 7 + 1_000 * number, tcp::ACK, part);
        // What IP counts from packet to packet is the cutter's.
        assert!(
            came[34..] == wanted[34..],
            "{:?}: segment {number}",
            one.kind
        );
    }
}

fn part(share: u32) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf-lab/snapshots/two-ports-policy.json");
    let snapshot = HostSnapshot::from_file(&path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for number in (0..512).filter(|number| number % 4 == share) {
        let kind = Kind::numbered(number);
        let (alone, mut guests) = meet(kind, &snapshot, folder.path());
        for pair in 0..usize::from(kind.pairs) {
            datagrams_pass(pair, &mut guests);
            if kind.offloads[0] {
                segments_pass(pair, &mut guests);
            }
        }
        let strays = |guest: &mut Guest| guest.frontend.ring(0).unwrap().strays();
        assert_eq!(guests.each_mut().map(strays), [0; 2]);
        drop(alone);
    }
}

#[test]
fn split_rings_with_buffers_of_their_own() {
    part(0);
}

#[test]
fn packed_rings_with_buffers_of_their_own() {
    part(1);
}

#[test]
fn split_rings_with_mergeable_buffers() {
    part(2);
}

#[test]
fn packed_rings_with_mergeable_buffers() {
    part(3);
}
