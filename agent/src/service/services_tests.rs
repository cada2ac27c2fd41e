//! Tests of `services`, on real bytes and a clock of their own.

use super::super::fixture::{
    FLOATING_MAC, GATEWAY_MAC, GUEST, GUEST_MAC, HOP_MAC, OUTSIDE, ip, snapshot,
};
use super::*;
use weft_model::{Epoch, eui64_link_local};
use weft_wire::{arp, ethernet, frame};

fn services() -> Services {
    let empty = HostSnapshot::empty("host1".parse().unwrap(), Epoch::random());
    let mut services = Services::new(Arc::new(empty), 3_600);
    let attached = [GUEST].into();
    assert_eq!(services.apply(Arc::new(snapshot()), &attached, 0), []);
    services
}

fn solicitation() -> ServiceEvent {
    ServiceEvent {
        kind: EventKind::Ra,
        ingress: Place::Port(GUEST),
        needed: None,
        mtu: 0,
        cut: false,
        frame: frame::router_solicitation(GUEST_MAC.0, eui64_link_local(GUEST_MAC)),
    }
}

#[test]
fn a_port_may_ask_so_often_and_no_more() {
    let mut services = services();
    let asks = solicitation();
    let burst = limits::SERVICE_PACKETS_BURST;
    for n in 0..burst {
        assert_eq!(services.event(&asks, 0).len(), 1, "{n}");
    }
    assert_eq!(services.event(&asks, 999), []);
    assert_eq!(services.counters().rate_limited, 1);
    for n in 0..limits::SERVICE_PACKETS_PER_SECOND {
        assert_eq!(services.event(&asks, 1_000).len(), 1, "{n}");
    }
    assert_eq!(services.event(&asks, 1_999), []);
}

#[test]
fn who_is_not_in_the_snapshot_is_not_heard() {
    let mut services = services();
    let mut asks = solicitation();
    asks.ingress = Place::Port(PortId(uuid::Uuid::from_u128(0x99)));
    assert_eq!(services.event(&asks, 0), []);
    assert!(services.buckets.is_empty());
    let stray = ServiceEvent {
        kind: EventKind::Dhcp,
        ingress: Place::Network(OUTSIDE),
        ..solicitation()
    };
    assert_eq!(services.event(&stray, 0), []);
    assert_eq!(services.counters().unanswered, 1);
}

#[test]
fn addresses_that_appear_outside_are_announced_twice() {
    let mut services = services();
    let mut announced = Vec::new();
    let mut times = Vec::new();
    for now in [0, 1_999, 2_000, 4_000] {
        for action in services.tick(now, &mut || 0.0) {
            let Action::Send {
                to: Place::Network(OUTSIDE),
                frame,
            } = action
            else {
                continue;
            };
            let view = ethernet::Frame::new_checked(&frame).unwrap();
            if let Ok(packet) = arp::Packet::new_checked(view.payload())
                && packet.sender_ip() == packet.target_ip()
            {
                announced.push((IpAddr::from(packet.sender_ip()), MacAddress(view.source())));
                times.push(now);
            }
        }
    }
    let both = [
        (ip("203.0.113.10"), GATEWAY_MAC),
        (ip("203.0.113.20"), FLOATING_MAC),
    ];
    assert_eq!(announced, [both, both].concat());
    assert_eq!(times, [0, 0, 2_000, 2_000]);
    assert_eq!(services.counters().announcements, 6, "and the v6 address");
    services.network_attached(OUTSIDE, 9_000);
    services.tick(9_000, &mut || 0.0);
    assert_eq!(services.counters().announcements, 9);
}

#[test]
fn the_next_tick_is_known() {
    let mut services = services();
    assert_eq!(services.due(), Some(0));
    services.tick(0, &mut || 0.0);
    assert_eq!(services.due(), Some(1_000), "neighbours are asked again");
}

#[test]
fn frames_for_a_neighbour_leave_whole_and_with_their_checksum() {
    let mut services = services();
    let link = frame::Link {
        source: GATEWAY_MAC.0,
        destination: [0; 6],
    };
    let addresses = frame::Ip::new(ip("203.0.113.10"), ip("203.0.113.99"));
    let ports = weft_wire::udp::Repr {
        source_port: 1_024,
        destination_port: 53,
    };
    let whole = frame::udp(link, addresses, ports, b"question");
    let mut offloaded = whole.clone();
    offloaded[14 + 20 + 6..14 + 20 + 8].copy_from_slice(&[0x12, 0x34]);
    let needed = ServiceEvent {
        kind: EventKind::NeighbourNeeded,
        ingress: Place::Port(GUEST),
        needed: Some((OUTSIDE, ip("203.0.113.99"))),
        mtu: 0,
        cut: false,
        frame: offloaded,
    };
    let cut = ServiceEvent {
        cut: true,
        ..needed.clone()
    };
    services.event(&cut, 0);
    assert_eq!(services.counters().neighbour_frames_dropped, 1);
    services.event(&needed, 0);
    let asks = ServiceEvent {
        kind: EventKind::Neighbour,
        ingress: Place::Network(OUTSIDE),
        needed: None,
        frame: frame::arp_request(
            HOP_MAC.0,
            [203, 0, 113, 99].into(),
            [203, 0, 113, 10].into(),
        ),
        ..needed
    };
    let actions = services.event(&asks, 0);
    let mut expected = whole;
    expected[..6].copy_from_slice(&HOP_MAC.0);
    let sent = Action::Send {
        to: Place::Network(OUTSIDE),
        frame: expected,
    };
    assert_eq!(actions.last(), Some(&sent));
}

#[test]
fn a_snapshot_with_other_rules_only_costs_nothing() {
    let mut services = services();
    services.tick(0, &mut || 0.5);
    let due = services.due();
    let mut s = snapshot();
    s.revision = weft_model::Revision(9);
    assert_eq!(services.apply(Arc::new(s), &[GUEST].into(), 10), []);
    assert_eq!(services.due(), due);
    assert_eq!(services.snapshot.revision, weft_model::Revision(9));
}
