//! Frames that are judged together are judged as they would be alone: whatever differs between two that follow each other.

use super::scene::{PLAIN, Scene, scene_of, snapshot};
use crate::engine::SessionView;
use std::net::{Ipv4Addr, Ipv6Addr};
use weft_model::{
    HostSnapshot, QosBandwidthLimit, QosDirection, QosPacketRateLimit, QosPolicy, QosPolicyId,
};
use weft_wire::frame::{self, Ip, Link};
use weft_wire::{tcp, udp};

/// Bytes in which frames differ one at a time: all headers, and some of what is behind.
const BYTES: usize = 80;
/// Bits that differ.
const FLIPS: [u8; 4] = [0x01, 0x02, 0x04, 0x80];

/// UDP and TCP from the first guest over both families.
fn frames(to_mac: [u8; 6], to: Ipv4Addr) -> Vec<Vec<u8>> {
    let link = Link {
        source: [2, 0, 0, 0, 0, 1],
        destination: to_mac,
    };
    let v6 = |n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n);
    let segment = tcp::Repr {
        source_port: 1_000,
        destination_port: 22,
        sequence: 1,
        acknowledgment: 0,
        flags: tcp::SYN,
        window: 1_000,
    };
    let ports = udp::Repr {
        source_port: 1_000,
        destination_port: 2_000,
    };
    let ends = [
        Ip::new(Ipv4Addr::new(10, 0, 0, 1), to),
        Ip::new(v6(1), v6(2)),
    ];
    let both = ends.map(|ends| {
        [
            frame::udp(link, ends, ports, &[7; 40]),
            frame::tcp(link, ends, segment, &[7; 40]),
        ]
    });
    both.into_iter().flatten().collect()
}

/// What is seen of a switch from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    received: [Vec<Vec<u8>>; 2],
    drops: String,
    sessions: Vec<SessionView>,
}

fn see(scene: &mut Scene) -> Seen {
    let received = [0, 1].map(|at: usize| {
        let guest = &mut scene.guests[at];
        let came: Vec<_> = std::iter::from_fn(|| guest.received()).collect();
        guest.receive_offer(came.len() as u64);
        came.into_iter().map(|(frame, _)| frame).collect()
    });
    let mut sessions: Vec<_> = scene.worker.engine.read().sessions().collect();
    sessions.sort_by_key(|session| format!("{session:?}"));
    Seen {
        received,
        drops: format!("{:?}", [0, 1].map(|at: usize| scene.counters[at].totals())),
        sessions,
    }
}

fn with_source_port(frame: &[u8], port: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let at = if frame[12..14] == [0x86, 0xdd] {
        54
    } else {
        34
    };
    frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
    frame
}

/// Sends each pair of frames that differ in one bit, twice each and among each other, to a switch in one batch and to another one
/// frame by frame.
fn compare(snapshot: &HostSnapshot, frames: &[Vec<u8>]) -> usize {
    let mut delivered = 0;
    for frame in frames {
        let scene = || scene_of([PLAIN; 2], snapshot.clone());
        let (mut together, mut alone) = (scene(), scene());
        let mut fresh = 10_000u16;
        for (at, flip) in (0..BYTES).flat_map(|at| FLIPS.map(|flip| (at, flip))) {
            match at % 16 {
                // All sessions are compared each time: not too many of them.
                0 if flip == FLIPS[0] => (together, alone) = (scene(), scene()),
                // What was known is looked at again.
                8 if flip == FLIPS[0] => {
                    together.enforce_again();
                    alone.enforce_again();
                }
                _ => {}
            }
            let mut other = frame.clone();
            other[at] ^= flip;
            // Of these three each may open a session, and two differ by their source's port alone.
            let [first, mut second, third] = [0, 1, 2].map(|_| {
                fresh = fresh.wrapping_add(1);
                with_source_port(frame, fresh)
            });
            second[at] ^= flip;
            let batch = [
                frame, frame, &other, &other, frame, &other, &first, &third, &second,
            ];
            for frame in batch {
                together.guests[0].send(frame);
                alone.guests[0].send(frame);
                assert_eq!(alone.turn(), 1);
            }
            assert_eq!(together.turn(), batch.len());
            for scene in [&mut together, &mut alone] {
                let given = std::iter::from_fn(|| scene.guests[0].send.collect());
                assert_eq!(given.count(), batch.len(), "buffers are given back");
            }
            let seen = see(&mut together);
            delivered += seen.received[1].len();
            assert_eq!(
                seen,
                see(&mut alone),
                "byte {at} differs by {flip:#x} in {frame:x?}"
            );
        }
    }
    delivered
}

#[test]
fn frames_of_a_train_are_judged_as_each_would_be_alone() {
    let bridged = ([2, 0, 0, 0, 0, 2], Ipv4Addr::new(10, 0, 0, 2));
    let routed = ([6, 0x10, 0, 0, 0, 2], Ipv4Addr::new(10, 0, 1, 2));
    for (name, (mac, to)) in [
        ("two-ports.json", bridged),
        ("two-ports-policy.json", bridged),
        ("two-ports-routed.json", routed),
    ] {
        let delivered = compare(&snapshot(name), &frames(mac, to));
        assert!(delivered > 1_000, "{name}: {delivered} delivered");
    }
}

#[test]
fn frames_of_a_train_are_limited_and_marked_each_for_itself() {
    let mut snapshot = snapshot("two-ports.json");
    let id = QosPolicyId(uuid::Uuid::from_u128(9));
    let policy = QosPolicy {
        bandwidth_limits: vec![QosBandwidthLimit {
            direction: QosDirection::Egress,
            max_kbps: 1_000,
            max_burst_kbps: 200,
        }],
        packet_rate_limits: vec![QosPacketRateLimit {
            direction: QosDirection::Egress,
            max_kpps: 1,
            max_burst_kpps: 3,
        }],
        dscp_mark: Some(46),
    };
    snapshot.qos_policies.insert(id, policy);
    for port in snapshot.ports.values_mut() {
        port.qos_policy_id = Some(id);
    }
    let delivered = compare(
        &snapshot,
        &frames([2, 0, 0, 0, 0, 2], Ipv4Addr::new(10, 0, 0, 2)),
    );
    assert!((1_000..8_000).contains(&delivered), "{delivered} delivered");
}
