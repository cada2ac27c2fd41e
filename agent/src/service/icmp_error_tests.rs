//! Tests of `icmp_error`, on real bytes and a clock of their own.

use super::super::fixture::{
    FLOATING_MAC, GATEWAY_MAC, GUEST, GUEST_MAC, HOP_MAC, LEG_MAC, OTHER_GUEST, OUTSIDE, ip,
    snapshot,
};
use super::*;
use weft_wire::{icmpv4, icmpv6, protocol, udp};

fn packet(source_mac: MacAddress, router_mac: MacAddress, from: &str, to: &str) -> Vec<u8> {
    let link = frame::Link {
        source: source_mac.0,
        destination: router_mac.0,
    };
    let ports = udp::Repr {
        source_port: 1_000,
        destination_port: 33_434,
    };
    let addresses = frame::Ip::new(ip(from), ip(to)).with_ttl(1);
    frame::udp(link, addresses, ports, &[7; 1_420])
}

fn ask(place: Place, frame: &[u8], what: IcmpError) -> Option<Vec<u8>> {
    let mut counters = ServiceCounters::default();
    let action = answer(&snapshot(), place, frame, what, &mut counters);
    let sent = u64::from(action.is_some());
    assert_eq!(
        (counters.icmp_errors, counters.icmp_errors_withheld),
        (sent, 1 - sent)
    );
    action.map(|action| match action {
        Action::Send { to, frame } => {
            assert_eq!(to, place, "back to where it came from");
            frame
        }
        other => panic!("{other:?}"),
    })
}

/// Source MAC, destination MAC, source, destination, type, code, rest of the header, what is quoted.
type Error = ([u8; 6], [u8; 6], IpAddr, IpAddr, u8, u8, u32, Vec<u8>);

fn parse(frame: &[u8]) -> Error {
    let ethernet = ethernet::Frame::new_checked(frame).unwrap();
    let (macs, body) = (
        (ethernet.source(), ethernet.destination()),
        ethernet.payload(),
    );
    let (source, destination, message) = if ethernet.ethertype() == ethertype::IPV4 {
        let packet = ipv4::Packet::new_checked(body).unwrap();
        assert_eq!(packet.protocol(), protocol::ICMP);
        assert_eq!(weft_wire::checksum::checksum(packet.payload()), 0);
        assert!(body.len() <= 576, "RFC 1812 4.3.2.3");
        let (s, d) = (packet.source().into(), packet.destination().into());
        (s, d, packet.payload().to_vec())
    } else {
        let packet = ipv6::Packet::new_checked(body).unwrap();
        assert_eq!(packet.next_header(), protocol::ICMPV6);
        assert!(body.len() <= 1_280, "RFC 4443 2.4 c");
        let (s, d) = (packet.source().into(), packet.destination().into());
        (s, d, packet.payload().to_vec())
    };
    let rest = u32::from_be_bytes(message[4..8].try_into().unwrap());
    let (kind, code) = (message[0], message[1]);
    (
        macs.0,
        macs.1,
        source,
        destination,
        kind,
        code,
        rest,
        message[8..].to_vec(),
    )
}

#[test]
fn a_guest_hears_of_its_ttl_from_the_address_of_its_own_subnet() {
    for (from, to, router, kind) in [
        (
            "192.0.2.11",
            "203.0.113.9",
            "192.0.2.1",
            icmpv4::TIME_EXCEEDED,
        ),
        (
            "fd00:192:0:2::11",
            "2001:db8::9",
            "fd00:192:0:2::1",
            icmpv6::TIME_EXCEEDED,
        ),
    ] {
        let about = packet(GUEST_MAC, LEG_MAC, from, to);
        let error = ask(Place::Port(GUEST), &about, IcmpError::TtlExceeded).unwrap();
        let (source_mac, mac, source, destination, k, code, rest, quoted) = parse(&error);
        assert_eq!((source_mac, mac), (LEG_MAC.0, GUEST_MAC.0));
        assert_eq!((source, destination), (ip(router), ip(from)));
        assert_eq!((k, code, rest), (kind, 0, 0));
        assert_eq!(quoted, about[14..14 + quoted.len()]);
        assert!(quoted.len() >= 28);
    }
}

#[test]
fn a_guest_hears_the_mtu() {
    for (from, to, kind, code) in [
        (
            "192.0.2.11",
            "198.51.100.9",
            icmpv4::UNREACHABLE,
            icmpv4::FRAGMENTATION_NEEDED,
        ),
        ("fd00:192:0:2::11", "2001:db8::9", icmpv6::PACKET_TOO_BIG, 0),
    ] {
        let about = packet(GUEST_MAC, LEG_MAC, from, to);
        let error = ask(Place::Port(GUEST), &about, IcmpError::MtuExceeded(1_400)).unwrap();
        let (.., k, c, rest, _) = parse(&error);
        assert_eq!((k, c, rest), (kind, code, 1_400));
    }
}

#[test]
fn outside_hears_from_the_gateway_also_about_floating_ips() {
    for (mac, to) in [
        (GATEWAY_MAC, "203.0.113.10"),
        (FLOATING_MAC, "203.0.113.20"),
    ] {
        let about = packet(HOP_MAC, mac, "203.0.113.9", to);
        let place = Place::Network(OUTSIDE);
        let error = ask(place, &about, IcmpError::TtlExceeded).unwrap();
        let (source_mac, _, source, destination, ..) = parse(&error);
        assert_eq!(source_mac, mac.0);
        assert_eq!(
            (source, destination),
            (ip("203.0.113.10"), ip("203.0.113.9"))
        );
    }
}

#[test]
fn a_cut_frame_has_an_answer_too() {
    for (from, to) in [
        ("192.0.2.11", "198.51.100.9"),
        ("fd00:192:0:2::11", "2001:db8::9"),
    ] {
        let mut about = packet(GUEST_MAC, LEG_MAC, from, to);
        about.truncate(1_000);
        let error = ask(Place::Port(GUEST), &about, IcmpError::MtuExceeded(1_400)).unwrap();
        let quoted = parse(&error).7;
        assert!(quoted.len() >= 500);
        assert_eq!(quoted, about[14..14 + quoted.len()]);
    }
}

#[test]
fn none_where_the_rfcs_forbid_one_or_nobody_can_speak() {
    let good = packet(GUEST_MAC, LEG_MAC, "192.0.2.11", "203.0.113.9");
    let mut fragment = good.clone();
    fragment[14 + 7] = 1;
    let mut icmp_error = good.clone();
    icmp_error[14 + 9] = protocol::ICMP;
    icmp_error[34] = icmpv4::UNREACHABLE;
    let multicast = packet(GUEST_MAC, LEG_MAC, "192.0.2.11", "224.0.0.5");
    let to_nobody = packet(GUEST_MAC, HOP_MAC, "192.0.2.11", "203.0.113.9");
    for about in [
        fragment,
        icmp_error,
        multicast,
        to_nobody,
        vec![0; 14],
        vec![],
    ] {
        assert_eq!(
            ask(Place::Port(GUEST), &about, IcmpError::TtlExceeded),
            None
        );
    }
    let gone = Place::Port(weft_model::PortId(uuid::Uuid::from_u128(0x99)));
    assert_eq!(ask(gone, &good, IcmpError::TtlExceeded), None);
    assert!(ask(Place::Port(OTHER_GUEST), &good, IcmpError::TtlExceeded).is_some());
}
