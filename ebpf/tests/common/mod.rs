//! What the engine's tests share: an engine in a bpffs of its own, a snapshot of two guests, a router and an external network, and frames.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a part of tests, not of an interface"
)]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests may panic; frames are small"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use uuid::Uuid;
use weft_ebpf::{Engine, EngineConfig};
use weft_model::{HostSnapshot, NetworkId, PortId, RouterId};

/// An id with a number in it.
pub fn uuid(kind: u8, n: u8) -> Uuid {
    Uuid::from_bytes([kind, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, n])
}

pub fn port(n: u8) -> PortId {
    PortId(uuid(3, n))
}

pub fn network(n: u8) -> NetworkId {
    NetworkId(uuid(1, n))
}

pub fn router(n: u8) -> RouterId {
    RouterId(uuid(4, n))
}

/// The snapshot of `snapshot.json` beside this file.
pub fn snapshot() -> HostSnapshot {
    let text = include_bytes!("snapshot.json");
    HostSnapshot::from_json(text, &PathBuf::from("snapshot.json")).unwrap()
}

/// An engine that is removed when the test ends, however it ends.
pub struct TestEngine(pub Option<Engine>);

impl TestEngine {
    pub fn open() -> Self {
        Self::open_with(|_config| {})
    }

    pub fn open_with(change: impl FnOnce(&mut EngineConfig)) -> Self {
        Self(Some(Engine::open(config(change)).unwrap()))
    }
}

pub fn config(change: impl FnOnce(&mut EngineConfig)) -> EngineConfig {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut config = EngineConfig::new("test");
    config.bpffs = std::env::temp_dir().join(format!("weft-ebpf-{}-{n}", std::process::id()));
    config.sessions_max = 1_000;
    config.ports_max = 64;
    config.physical_networks = BTreeMap::from([("physnet1".to_owned(), "uplink0".to_owned())]);
    change(&mut config);
    config
}

impl std::ops::Deref for TestEngine {
    type Target = Engine;
    fn deref(&self) -> &Engine {
        self.0.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for TestEngine {
    fn deref_mut(&mut self) -> &mut Engine {
        self.0.as_mut().unwrap()
    }
}

impl Drop for TestEngine {
    fn drop(&mut self) {
        if let Some(engine) = self.0.take() {
            engine.close(true).unwrap();
        }
    }
}

/// The guests' and routers' MACs: fa:16:3e:00:00:NN.
pub fn mac(n: u8) -> [u8; 6] {
    [0xfa, 0x16, 0x3e, 0, 0, n]
}

fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv4 frame with whole checksums.
pub fn ipv4(
    macs: ([u8; 6], [u8; 6]),
    from: [u8; 4],
    to: [u8; 4],
    protocol: u8,
    l4: &[u8],
) -> Vec<u8> {
    let total = (20 + l4.len()) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip.extend(from);
    ip.extend(to);
    let check = sum(&ip, 0);
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let mut l4 = l4.to_vec();
    let pseudo: u32 = [from, to]
        .iter()
        .flat_map(|a| a.chunks(2))
        .map(|p| u32::from(u16::from_be_bytes([p[0], p[1]])))
        .sum();
    let pseudo = pseudo + u32::from(protocol) + l4.len() as u32;
    let (at, start) = match protocol {
        6 => (16, pseudo),
        17 => (6, pseudo),
        _ => (2, 0),
    };
    let check = sum(&l4, start);
    l4[at..at + 2].copy_from_slice(&check.to_be_bytes());
    [&macs.0[..], &macs.1, &[8, 0], &ip, &l4].concat()
}

/// Whether all checksums of an IPv4 frame hold.
pub fn ipv4_checksums_hold(frame: &[u8]) -> bool {
    let ip = &frame[14..34];
    let l4 = &frame[34..14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]))];
    let pseudo: u32 = ip[12..20]
        .chunks(2)
        .map(|p| u32::from(u16::from_be_bytes([p[0], p[1]])))
        .sum();
    let start = if ip[9] == 1 {
        0
    } else {
        pseudo + u32::from(ip[9]) + l4.len() as u32
    };
    sum(ip, 0) == 0 && sum(l4, start) == 0
}

pub fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut l4 = vec![0; 20];
    l4[..2].copy_from_slice(&from.to_be_bytes());
    l4[2..4].copy_from_slice(&to.to_be_bytes());
    l4[12] = 0x50;
    l4[13] = flags;
    l4
}

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;

pub fn echo(kind: u8, identifier: u16) -> Vec<u8> {
    let i = identifier.to_be_bytes();
    vec![kind, 0, 0, 0, i[0], i[1], 0, 1, b'h', b'i']
}

pub fn arp_request(from_mac: [u8; 6], from: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    [
        &[0xff; 6][..],
        &from_mac,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &from_mac,
        &from,
        &[0; 6],
        &target,
    ]
    .concat()
}
