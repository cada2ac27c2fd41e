//! A switch that shares its host with another engine: what stays between its ports it judges, and nothing else.

use super::scene::{Scene, datagram, scene_shared, snapshot};
use rustix::fd::OwnedFd;
use std::net::Ipv4Addr;
use weft_model::{
    DropReason, HostSnapshot, PortInterface, QosBandwidthLimit, QosDirection, QosPolicy,
    QosPolicyId,
};
use weft_wire::ethernet;
use weft_wire::frame::{self, Ip, Link};
use weft_wire::tcp;
use weft_wire::virtio_net::{Kind, Load, Partial, Segments};

const HEADER_BYTES: usize = 12;

/// Both ports, and a third one on the network that is the other engine's.
fn with_tap() -> HostSnapshot {
    let mut snapshot = snapshot("two-ports-policy.json");
    let (id, mut port) = snapshot
        .ports
        .first_key_value()
        .map(|(i, p)| (*i, p.clone()))
        .unwrap();
    port.mac_address.0[5] = 3;
    port.fixed_ips[0].ip_address = Ipv4Addr::new(10, 0, 0, 3).into();
    port.interface = PortInterface::Tap {
        name: "tap3".to_owned(),
    };
    let mut uuid = *id.0.as_bytes();
    uuid[15] = 0xff;
    let id = weft_model::PortId(uuid::Uuid::from_bytes(uuid));
    snapshot.ports.insert(id, port);
    assert!(snapshot.validate().is_empty());
    snapshot
}

fn to_tap(flags: u8, payload: usize) -> Vec<u8> {
    let link = Link {
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 3],
    };
    let segment = tcp::Repr {
        source_port: 22,
        destination_port: 1_000,
        sequence: 1,
        acknowledgment: 1,
        flags,
        window: 100,
    };
    let addresses = Ip::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 3));
    frame::tcp(link, addresses, segment, &vec![7; payload])
}

/// What came out by a way: virtio's header and the frame.
fn out(end: &OwnedFd) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut bytes = vec![0; 70_000];
    let read = rustix::io::read(end, &mut bytes[..]).ok()?;
    bytes.truncate(read);
    let frame = bytes.split_off(HEADER_BYTES);
    Some((bytes, frame))
}

fn put(end: &OwnedFd, load: &Load, frame: &[u8]) {
    let mut bytes = load.emit().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(frame);
    assert_eq!(rustix::io::write(end, &bytes), Ok(bytes.len()));
}

fn scene() -> (Scene, [OwnedFd; 2]) {
    scene_shared(with_tap())
}

#[test]
fn what_stays_between_the_ports_is_judged_here() {
    let (mut scene, ends) = scene();
    let frame = datagram(1_000, 50);
    scene.guests[0].send(&frame);
    scene.turn();
    assert_eq!(scene.guests[1].received().unwrap().0, frame);
    assert!(ends.iter().all(|end| out(end).is_none()));
    assert_eq!(scene.sessions(), 1);
}

#[test]
fn what_goes_to_the_other_engine_s_guests_is_theirs_to_judge() {
    let (mut scene, ends) = scene();
    // An answer of a stream that was opened there: here it would have no session.
    for frame in [to_tap(tcp::SYN | tcp::ACK, 0), to_tap(tcp::ACK, 500)] {
        scene.guests[0].send(&frame);
        scene.turn();
        assert_eq!(out(&ends[0]).unwrap(), (vec![0; HEADER_BYTES], frame));
    }
    // To nobody, and broadcast: the other engine says why it dies.
    let mut nobody = datagram(1, 10);
    nobody[5] = 99;
    let mut all = datagram(1, 10);
    all[..6].fill(0xff);
    for frame in [nobody, all] {
        scene.guests[0].send(&frame);
        scene.turn();
        assert_eq!(out(&ends[0]).unwrap().1, frame);
    }
    assert_eq!(scene.sessions(), 0);
    // Port security holds here already.
    let mut spoofed = to_tap(tcp::SYN, 0);
    spoofed[11] = 9;
    scene.guests[0].send(&spoofed);
    scene.turn();
    assert!(out(&ends[0]).is_none() && out(&ends[1]).is_none());
    assert_eq!(scene.drops(0, DropReason::SpoofedMac), 1);
}

#[test]
fn what_a_guest_tags_is_the_other_engine_s() {
    let mut snapshot = with_tap();
    let ids: Vec<_> = snapshot.ports.keys().copied().collect();
    let (parent, subport) = (ids[0], ids[2]);
    snapshot.ports.get_mut(&subport).unwrap().interface =
        PortInterface::Subport { parent, vlan_id: 5 };
    assert!(snapshot.validate().is_empty());
    let (mut scene, ends) = scene_shared(snapshot);
    let tagged = ethernet::tag(&datagram(1, 50), 5);
    scene.guests[0].send(&tagged);
    scene.turn();
    assert_eq!(out(&ends[0]).unwrap().1, tagged);
    scene.guests[0].send(&ethernet::tag(&datagram(1, 50), 6));
    scene.turn();
    assert!(out(&ends[0]).is_none());
    assert_eq!(scene.drops(0, DropReason::VlanUnknown), 1);
    scene.guests[1].send(&tagged);
    scene.turn();
    assert_eq!(scene.drops(1, DropReason::VlanUnexpected), 1);
    put(&ends[0], &Load::NONE, &tagged);
    assert_eq!(scene.worker.turn(std::time::Duration::from_secs(6)), 1);
    assert_eq!(scene.guests[0].received().unwrap().0, tagged);
}

#[test]
fn fragments_follow_their_first_one() {
    let (mut scene, ends) = scene();
    let mut first = datagram(1_000, 100);
    first[5] = 3;
    first[33] = 3;
    first[20] = 0x20;
    let mut later = first.clone();
    later[20..22].copy_from_slice(&[0, 16]);
    for frame in [first, later] {
        scene.guests[0].send(&frame);
        scene.turn();
        assert_eq!(out(&ends[0]).unwrap().1, frame);
    }
}

#[test]
fn segments_go_and_come_whole() {
    let (mut scene, ends) = scene();
    let load = Load {
        partial: Some(Partial {
            start: 34,
            offset: 16,
        }),
        segments: Some(Segments {
            kind: Kind::TcpV4,
            ecn: false,
            header_bytes: 54,
            payload_bytes: 1_000,
        }),
        valid: false,
    };
    let frame = to_tap(tcp::ACK, 20_000);
    scene.guests[0].send_with(load.emit(), &frame);
    scene.turn();
    let (header, came) = out(&ends[0]).unwrap();
    assert_eq!((&header[..10], came), (&load.emit()[..], frame));
    // The guest takes no segments: they are cut for it.
    let mut back = to_tap(tcp::ACK, 2_500);
    load.renew(&mut back);
    put(&ends[1], &load, &back);
    assert_eq!(scene.worker.turn(std::time::Duration::from_secs(6)), 1);
    let segments: Vec<usize> = std::iter::from_fn(|| scene.guests[1].received())
        .map(|(frame, _)| frame.len())
        .collect();
    assert_eq!(segments, [1_054, 1_054, 554]);
    assert_eq!(scene.counters[1].totals().tx_packets, 3);
}

#[test]
fn limits_hold_for_what_goes_and_comes_by_the_way_out() {
    let mut snapshot = with_tap();
    let id = QosPolicyId(uuid::Uuid::from_u128(9));
    let limit = |direction| QosBandwidthLimit {
        direction,
        max_kbps: 8,
        max_burst_kbps: 8,
    };
    let policy = QosPolicy {
        bandwidth_limits: vec![limit(QosDirection::Egress), limit(QosDirection::Ingress)],
        packet_rate_limits: Vec::new(),
        dscp_mark: None,
    };
    snapshot.qos_policies.insert(id, policy);
    snapshot
        .ports
        .first_entry()
        .unwrap()
        .get_mut()
        .qos_policy_id = Some(id);
    let (mut scene, ends) = scene_shared(snapshot);
    // 1,000 bytes at once, and the packet that goes beyond.
    for _ in 0..5 {
        scene.guests[0].send(&to_tap(tcp::ACK, 446));
        put(&ends[0], &Load::NONE, &to_tap(tcp::ACK, 446));
    }
    scene.turn();
    assert_eq!(std::iter::from_fn(|| out(&ends[0])).count(), 2);
    assert_eq!(std::iter::from_fn(|| scene.guests[0].received()).count(), 2);
    assert_eq!(scene.drops(0, DropReason::QosRateLimit), 6);
}

#[test]
fn a_sleeping_worker_is_woken_by_what_comes_from_the_other_engine() {
    let (mut scene, ends) = scene();
    scene.turn();
    put(&ends[1], &Load::NONE, &to_tap(tcp::ACK, 10));
    // It would sleep for a second, and then there would be nothing new.
    scene.worker.sleep(std::time::Duration::from_secs(5));
    assert_eq!(scene.worker.turn(std::time::Duration::from_secs(6)), 1);
    assert!(scene.guests[1].received().is_some());
}

#[test]
fn a_port_without_a_way_out_says_so() {
    let (mut scene, ends) = scene();
    drop(ends);
    scene.guests[0].send(&to_tap(tcp::ACK, 10));
    scene.turn();
    assert_eq!(scene.drops(0, DropReason::UplinkMissing), 1);
}
