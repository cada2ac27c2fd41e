//! Whatever bytes arrive, views do not panic and read only what they were given; what is emitted parses to the same.

use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_wire::frame::{self, Echo, IcmpError, Ip, Link};
use weft_wire::{arp, ethernet, icmpv4, icmpv6, ipv4, ipv6, ndisc, tcp, udp};

const LINK: Link = Link {
    source: [2, 0, 0, 0, 0, 1],
    destination: [2, 0, 0, 0, 0, 2],
};

fn touch_all(bytes: &[u8]) {
    if let Ok(v) = ethernet::Frame::new_checked(bytes) {
        let _ = (ethernet::Repr::parse(&v), v.payload());
    }
    if let Ok(v) = arp::Packet::new_checked(bytes) {
        let _ = arp::Repr::parse(&v);
    }
    for v in [
        ipv4::Packet::new_checked(bytes),
        ipv4::Packet::new_header_checked(bytes),
    ]
    .into_iter()
    .flatten()
    {
        let _ = (
            ipv4::Repr::parse(&v),
            v.payload(),
            v.header_checksum_is_right(),
        );
        let mut copy = bytes.to_vec();
        let mut m = ipv4::Packet::new_header_checked(&mut copy[..]).expect("checked before");
        m.set_ttl(1);
        m.set_source(Ipv4Addr::LOCALHOST);
        m.payload_mut().fill(0);
    }
    for v in [
        ipv6::Packet::new_checked(bytes),
        ipv6::Packet::new_header_checked(bytes),
    ]
    .into_iter()
    .flatten()
    {
        let _ = (ipv6::Repr::parse(&v), v.upper_layer(4));
        let mut copy = bytes.to_vec();
        ipv6::Packet::new_header_checked(&mut copy[..])
            .expect("checked before")
            .payload_mut()
            .fill(0);
    }
    if let Ok(v) = tcp::Segment::new_checked(bytes) {
        let _ = (tcp::Repr::parse(&v), v.payload(), v.checksum());
    }
    if let Ok(v) = udp::Datagram::new_checked(bytes) {
        let _ = (udp::Repr::parse(&v), v.payload(), v.checksum());
    }
    if let Ok(v) = icmpv4::Message::new_checked(bytes) {
        let _ = (icmpv4::Repr::parse(&v), v.payload());
    }
    if let Ok(v) = icmpv6::Message::new_checked(bytes) {
        let _ = (icmpv6::Repr::parse(&v), v.payload());
    }
    if let Ok(v) = ndisc::Neighbour::new_checked(bytes) {
        let _ = ndisc::NeighbourRepr::parse(&v);
    }
    let _ = ndisc::RouterAdvertisement::parse(bytes);
    let _ = ipv6::walk(44, bytes, 8);
    for source in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let _ = frame::icmp_error(LINK, source, IcmpError::MtuExceeded(1280), bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        touch_all(&bytes);
    }

    #[test]
    fn damaged_packets_never_panic(
        start in prop::sample::select(vec![
            vec![0, 1, 8, 0, 6, 4], vec![0x45, 0, 0, 40], vec![0x4f, 0, 0, 90], vec![0x60, 0, 0, 0, 0, 40, 0],
            vec![134, 0, 0, 0], vec![135, 0, 0, 0], vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0, 0x45],
            vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x86, 0xdd, 0x60],
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..160),
    ) {
        let bytes: Vec<u8> = start.into_iter().chain(rest).collect();
        touch_all(&bytes);
    }

    #[test]
    fn udp_frame_round_trip(a in any::<u32>(), b in any::<u32>(), source_port in any::<u16>(),
                            destination_port in any::<u16>(), payload in prop::collection::vec(any::<u8>(), 0..64)) {
        let ports = udp::Repr { source_port, destination_port };
        let bytes = frame::udp(LINK, Ip::new(Ipv4Addr::from(a), Ipv4Addr::from(b)), ports, &payload);
        let eth = ethernet::Frame::new_checked(&bytes).unwrap();
        let packet = ipv4::Packet::new_checked(eth.payload()).unwrap();
        prop_assert!(packet.header_checksum_is_right());
        prop_assert_eq!(packet.source(), Ipv4Addr::from(a));
        let datagram = udp::Datagram::new_checked(packet.payload()).unwrap();
        prop_assert_eq!(udp::Repr::parse(&datagram), ports);
        prop_assert_eq!(datagram.payload(), &payload[..]);
    }

    #[test]
    fn rewriting_ipv4_keeps_the_checksum_right(a in any::<u32>(), b in any::<u32>(), ttl in any::<u8>()) {
        let mut bytes = ipv4::Repr::new(Ipv4Addr::from(b), Ipv4Addr::from(a), 17).emit(b"payload");
        let mut packet = ipv4::Packet::new_checked(&mut bytes[..]).unwrap();
        packet.set_source(Ipv4Addr::from(a));
        packet.set_destination(Ipv4Addr::from(b));
        packet.set_ttl(ttl);
        prop_assert!(packet.header_checksum_is_right());
        prop_assert_eq!((packet.source(), packet.ttl()), (Ipv4Addr::from(a), ttl));
    }
}

#[test]
fn neighbour_solicitation_round_trip() {
    let target = "2001:db8::5".parse().unwrap();
    let bytes = frame::neighbour_solicitation(LINK.source, "fe80::1".parse().unwrap(), target);
    let eth = ethernet::Frame::new_checked(&bytes).unwrap();
    assert_eq!(eth.destination(), [0x33, 0x33, 0xff, 0, 0, 5]);
    let packet = ipv6::Packet::new_checked(eth.payload()).unwrap();
    assert_eq!(packet.hop_limit(), 255);
    let message = ndisc::Neighbour::new_checked(packet.payload()).unwrap();
    assert_eq!(
        (message.target(), message.mac()),
        (target, Some(LINK.source))
    );
}

#[test]
fn extension_headers_are_walked_to_the_limit() {
    let destination_options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let chain = |count: usize| {
        let mut payload: Vec<u8> = (1..count).flat_map(|_| destination_options(60)).collect();
        payload.extend(destination_options(17));
        payload.extend([0; 8]);
        payload
    };
    assert_eq!(ipv6::walk(60, &chain(4), 4).unwrap().offset, 32);
    assert_eq!(ipv6::walk(60, &chain(5), 4), Err(ipv6::WalkError::Refused));
    assert_eq!(
        ipv6::walk(43, &[17, 0, 0, 0, 0, 0, 0, 0], 4),
        Err(ipv6::WalkError::Refused),
        "type 0 routing"
    );
    assert_eq!(
        ipv6::walk(60, &[17, 1, 0, 0, 0, 0, 0, 0], 4),
        Err(ipv6::WalkError::Malformed)
    );
    let fragment = ipv6::Fragment {
        offset: 3,
        more: true,
        identification: 7,
    };
    let later = ipv6::fragment_header(60, fragment);
    let upper = ipv6::walk(44, &later, 4).unwrap();
    assert_eq!(
        (upper.protocol, upper.fragment),
        (60, Some(fragment)),
        "nothing is walked behind a later fragment"
    );
}

#[test]
fn no_icmp_error_about_an_icmp_error() {
    let (guest, router) = (Ipv4Addr::new(192, 0, 2, 11), Ipv4Addr::new(192, 0, 2, 1));
    let ping = frame::echo(
        LINK,
        Ip::new(guest, router),
        Echo {
            reply: false,
            identifier: 1,
            sequence: 1,
        },
        b"x",
    );
    let error = frame::icmp_error(LINK, router.into(), IcmpError::TtlExceeded, &ping).unwrap();
    let packet = ipv4::Packet::new_checked(&error[14..]).unwrap();
    assert_eq!((packet.source(), packet.destination()), (router, guest));
    let message = icmpv4::Message::new_checked(packet.payload()).unwrap();
    assert_eq!(
        (message.kind(), message.payload()),
        (icmpv4::TIME_EXCEEDED, &ping[14..])
    );
    assert_eq!(
        frame::icmp_error(LINK, guest.into(), IcmpError::TtlExceeded, &error),
        None
    );
}
