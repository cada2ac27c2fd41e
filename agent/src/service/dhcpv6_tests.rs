//! DHCPv6 on real bytes: each kind of message, what must be discarded, and noise.

use super::super::fixture::{GUEST, GUEST_MAC, LEG_MAC, SUBNET6, snapshot};
use super::*;
use proptest::prelude::*;

const CLIENT: [u8; 10] = [0, 3, 0, 1, 0xfa, 0x16, 0x3e, 0, 0, 0x30];
const MINE: &str = "fd00:192:0:2::11";

fn server(mode: Ipv6Mode) -> Dhcpv6Server {
    let mut s = snapshot();
    s.subnets.get_mut(&SUBNET6).unwrap().ipv6_address_mode = Some(mode);
    Dhcpv6Server::new(&s, 3_600)
}

fn frame_of(message: &[u8]) -> Vec<u8> {
    let all = "ff02::1:2".parse().unwrap();
    let link = frame::Link {
        source: GUEST_MAC.0,
        destination: ethernet::ipv6_multicast(all),
    };
    let ports = udp::Repr {
        source_port: 546,
        destination_port: 547,
    };
    let from = eui64_link_local(GUEST_MAC);
    frame::udp(link, frame::Ip::new(from, all), ports, message)
}

fn message(kind: u8, options: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![kind, 7, 8, 9];
    for (code, body) in options {
        wire::push_option(&mut bytes, *code, body);
    }
    bytes
}

fn ia(addresses: &[&str]) -> (u16, Vec<u8>) {
    let mut body = vec![0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
    for address in addresses {
        push_address(&mut body, address.parse().unwrap(), 1);
    }
    (option::IA_NA, body)
}

fn id() -> (u16, Vec<u8>) {
    (option::CLIENT_ID, CLIENT.to_vec())
}

fn to_us() -> (u16, Vec<u8>) {
    (option::SERVER_ID, SERVER_DUID.to_vec())
}

/// The reply's bytes behind UDP.
fn ask(server: &Dhcpv6Server, kind: u8, options: &[(u16, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut counters = ServiceCounters::default();
    let asked = frame_of(&message(kind, options));
    let action = server.answer(GUEST, &asked, &mut counters);
    let answered = u64::from(action.is_some());
    assert_eq!(
        (counters.dhcpv6_answers, counters.dhcpv6_ignored),
        (answered, 1 - answered)
    );
    let Action::Send { to, frame } = action? else {
        panic!("something else than a frame")
    };
    assert_eq!(to, Place::Port(GUEST));
    let view = ethernet::Frame::new_checked(&frame).unwrap();
    assert_eq!(
        (view.source(), view.destination()),
        (LEG_MAC.0, GUEST_MAC.0)
    );
    let packet = ipv6::Packet::new_checked(view.payload()).unwrap();
    assert_eq!(packet.source(), eui64_link_local(LEG_MAC));
    assert_eq!(packet.destination(), eui64_link_local(GUEST_MAC));
    let datagram = udp::Datagram::new_checked(packet.payload()).unwrap();
    assert_eq!(
        (datagram.source_port(), datagram.destination_port()),
        (547, 546)
    );
    Some(datagram.payload().to_vec())
}

/// Address and valid lifetime of each address in the reply's associations.
fn given(reply: &[u8]) -> Vec<(Ipv6Addr, u32)> {
    let message = Message::new_checked(reply).unwrap();
    let associations = message.options().filter(|(c, _)| *c == option::IA_NA);
    let inner = associations.flat_map(|(_, body)| wire::options(&body[12..]));
    inner
        .filter(|(c, _)| *c == option::IA_ADDRESS)
        .map(|(_, b)| {
            let address: [u8; 16] = b[..16].try_into().unwrap();
            let valid: [u8; 4] = b[20..24].try_into().unwrap();
            (address.into(), u32::from_be_bytes(valid))
        })
        .collect()
}

#[test]
fn stateful_clients_get_the_ports_addresses() {
    let server = server(Ipv6Mode::Dhcpv6Stateful);
    let mine: Ipv6Addr = MINE.parse().unwrap();
    for (kind, options, expected) in [
        (1, vec![id(), ia(&[])], 2),
        (1, vec![id(), ia(&[]), (option::RAPID_COMMIT, vec![])], 7),
        (3, vec![id(), to_us(), ia(&[MINE])], 7),
        (5, vec![id(), to_us(), ia(&[MINE])], 7),
        (6, vec![id(), ia(&[MINE])], 7),
    ] {
        let reply = ask(&server, kind, &options).unwrap();
        let view = Message::new_checked(&reply).unwrap();
        assert_eq!(view.kind(), expected);
        assert_eq!(view.transaction_id(), [7, 8, 9]);
        assert_eq!(view.option(option::CLIENT_ID), Some(&CLIENT[..]));
        assert_eq!(view.option(option::SERVER_ID), Some(&SERVER_DUID[..]));
        assert_eq!(given(&reply), [(mine, 3_600)]);
        let association = view.option(option::IA_NA).unwrap();
        assert_eq!(
            association[..12],
            [0, 0, 0, 5, 0, 0, 7, 8, 0, 0, 0x0b, 0x40]
        );
        let dns: Ipv6Addr = "2001:db8::53".parse().unwrap();
        assert_eq!(view.option(option::DNS_SERVERS), Some(&dns.octets()[..]));
        assert_eq!(
            view.option(option::DOMAIN_LIST),
            Some(&b"\x07example\x03org\0"[..])
        );
    }
}

#[test]
fn an_address_that_is_not_the_ports_must_go() {
    let server = server(Ipv6Mode::Dhcpv6Stateful);
    let other = "fd00:192:0:2::12";
    let reply = ask(&server, 6, &[id(), ia(&[other])]).unwrap();
    let expected = [(MINE.parse().unwrap(), 3_600), (other.parse().unwrap(), 0)];
    assert_eq!(given(&reply), expected);
    let status_of = |addresses: &[&str]| {
        let reply = ask(&server, 4, &[id(), ia(addresses)])?;
        let status = Message::new_checked(&reply)
            .unwrap()
            .option(option::STATUS)?;
        Some(status.to_vec())
    };
    assert_eq!(status_of(&[MINE]), Some(vec![0, 0]));
    assert_eq!(status_of(&["fd00::1"]), Some(vec![0, 4]));
    assert_eq!(status_of(&[]), None);
}

#[test]
fn stateless_clients_get_options_and_no_address() {
    let server = server(Ipv6Mode::Dhcpv6Stateless);
    let reply = ask(&server, 11, &[]).unwrap();
    let view = Message::new_checked(&reply).unwrap();
    assert_eq!(view.kind(), 7);
    assert!(view.option(option::DNS_SERVERS).is_some());
    let reply = ask(&server, 1, &[id(), ia(&[])]).unwrap();
    assert_eq!(given(&reply), []);
    let association = Message::new_checked(&reply)
        .unwrap()
        .option(option::IA_NA)
        .unwrap();
    let (code, body) = wire::options(&association[12..]).next().unwrap();
    assert_eq!((code, body), (option::STATUS, &[0, 2][..]));
}

#[test]
fn what_rfc_8415_discards_is_ignored() {
    let stateful = server(Ipv6Mode::Dhcpv6Stateful);
    let elsewhere = (option::SERVER_ID, vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 9]);
    for (kind, options) in [
        (1, vec![ia(&[])]),
        (1, vec![id(), to_us()]),
        (3, vec![id(), ia(&[])]),
        (3, vec![id(), elsewhere.clone()]),
        (11, vec![elsewhere]),
        (2, vec![id()]),
        (7, vec![id(), to_us()]),
        (12, vec![]),
    ] {
        assert_eq!(ask(&stateful, kind, &options), None, "{kind} {options:?}");
    }
    assert!(ask(&stateful, 8, &[id(), to_us()]).is_some());
    assert_eq!(ask(&server(Ipv6Mode::Slaac), 11, &[]), None);
}

proptest! {
    #[test]
    fn no_bytes_are_too_wild(kind in 0u8..14, tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = message(kind, &[id()]);
        bytes.extend(&tail);
        let mut counters = ServiceCounters::default();
        server(Ipv6Mode::Dhcpv6Stateful).answer(GUEST, &frame_of(&bytes), &mut counters);
        prop_assert_eq!(counters.dhcpv6_answers + counters.dhcpv6_ignored, 1);
    }
}
