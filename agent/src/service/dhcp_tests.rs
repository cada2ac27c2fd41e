//! Tests of `dhcp`, on real bytes and a clock of their own.

use super::super::fixture::{GUEST, GUEST_MAC, LEG_MAC, PROJECT, SUBNET4, ip, snapshot};
use super::*;
use proptest::prelude::*;
use weft_model::{HostRoute, SubnetId};

const CLIENT_ID: [u8; 7] = [1, 0xfa, 0x16, 0x3e, 0, 0, 0x30];

/// A client's message: fixed fields, then options.
struct Client {
    ciaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    flags: u16,
    mac: MacAddress,
    options: Vec<(u8, Vec<u8>)>,
}

impl Client {
    fn new(kind: u8) -> Self {
        Self {
            ciaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            flags: 0,
            mac: GUEST_MAC,
            options: vec![(53, vec![kind]), (61, CLIENT_ID.to_vec())],
        }
    }

    fn with(mut self, number: u8, body: &[u8]) -> Self {
        self.options.push((number, body.to_vec()));
        self
    }

    fn frame(&self) -> Vec<u8> {
        let mut m = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 3];
        m.extend(self.flags.to_be_bytes());
        m.extend(self.ciaddr.octets());
        m.extend([0; 8]);
        m.extend(self.giaddr.octets());
        m.extend(self.mac.0);
        m.extend([0; 10 + 64 + 128]);
        m.extend([99, 130, 83, 99]);
        for (number, body) in &self.options {
            m.push(*number);
            m.push(u8::try_from(body.len()).unwrap());
            m.extend(body);
        }
        m.push(255);
        let link = frame::Link {
            source: self.mac.0,
            destination: ethernet::BROADCAST,
        };
        let addresses = frame::Ip::new(self.ciaddr, Ipv4Addr::BROADCAST);
        let ports = udp::Repr {
            source_port: 68,
            destination_port: 67,
        };
        frame::udp(link, addresses, ports, &m)
    }
}

/// A server's message, taken apart byte by byte.
#[derive(Debug)]
struct Reply {
    destination: [u8; 6],
    source: [u8; 6],
    from: Ipv4Addr,
    to: Ipv4Addr,
    message: Vec<u8>,
}

impl Reply {
    fn parse(frame: &[u8]) -> Self {
        let ethernet = ethernet::Frame::new_checked(frame).unwrap();
        let packet = ipv4::Packet::new_checked(ethernet.payload()).unwrap();
        assert!(packet.header_checksum_is_right());
        let sum = weft_wire::checksum::transport(
            packet.source().into(),
            packet.destination().into(),
            protocol::UDP,
            packet.payload(),
        );
        assert!(matches!(sum, 0 | 0xffff), "UDP checksum");
        let datagram = udp::Datagram::new_checked(packet.payload()).unwrap();
        assert_eq!(datagram.source_port(), 67);
        assert_eq!(datagram.destination_port(), 68);
        let message = datagram.payload().to_vec();
        assert!(message.len() >= 300, "BOOTP minimum");
        assert_eq!(message[..8], [2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(message[28..34], GUEST_MAC.0);
        assert_eq!(message[236..240], [99, 130, 83, 99]);
        Self {
            destination: ethernet.destination(),
            source: ethernet.source(),
            from: packet.source(),
            to: packet.destination(),
            message,
        }
    }

    fn yiaddr(&self) -> [u8; 4] {
        self.message[16..20].try_into().unwrap()
    }

    fn siaddr(&self) -> [u8; 4] {
        self.message[20..24].try_into().unwrap()
    }

    /// The option's body, pieces joined (RFC 3396).
    fn option(&self, wanted: u8) -> Option<Vec<u8>> {
        let mut at = &self.message[240..];
        let mut found: Option<Vec<u8>> = None;
        while at[0] != 255 {
            let length = usize::from(at[1]);
            if at[0] == wanted {
                found.get_or_insert_default().extend(&at[2..2 + length]);
            }
            at = &at[2 + length..];
        }
        found
    }
}

fn ask_of(s: &HostSnapshot, client: &Client) -> (Option<Reply>, ServiceCounters) {
    let mut counters = ServiceCounters::default();
    let server = DhcpServer::new(s, LEASE_S_DEFAULT);
    let reply = server
        .answer(GUEST, &client.frame(), &mut counters)
        .map(|action| match action {
            Action::Send { to, frame } => {
                assert_eq!(to, Place::Port(GUEST));
                Reply::parse(&frame)
            }
            other => panic!("{other:?}"),
        });
    (reply, counters)
}

fn ask(client: &Client) -> Option<Reply> {
    ask_of(&snapshot(), client).0
}

#[test]
fn discover_is_offered_the_ports_address_with_everything() {
    let (offer, counters) = ask_of(&snapshot(), &Client::new(1));
    let offer = offer.unwrap();
    assert_eq!(offer.source, LEG_MAC.0, "the router's interface speaks");
    assert_eq!(offer.destination, GUEST_MAC.0);
    assert_eq!(offer.from, Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(offer.to, Ipv4Addr::new(192, 0, 2, 11));
    assert_eq!(offer.yiaddr(), [192, 0, 2, 11]);
    assert_eq!(offer.option(53).unwrap(), [2]);
    assert_eq!(offer.option(54).unwrap(), [192, 0, 2, 1]);
    assert_eq!(offer.option(51).unwrap(), 86_400u32.to_be_bytes());
    assert_eq!(offer.option(58).unwrap(), 43_200u32.to_be_bytes());
    assert_eq!(offer.option(59).unwrap(), 75_600u32.to_be_bytes());
    assert_eq!(offer.option(1).unwrap(), [255, 255, 255, 0]);
    assert_eq!(offer.option(3).unwrap(), [192, 0, 2, 1]);
    assert_eq!(offer.option(6).unwrap(), [9, 9, 9, 9]);
    assert_eq!(offer.option(26).unwrap(), 1_450u16.to_be_bytes());
    assert_eq!(offer.option(28).unwrap(), [192, 0, 2, 255]);
    assert_eq!(offer.option(15).unwrap(), b"example.org");
    assert_eq!(offer.option(12).unwrap(), b"vm1");
    assert_eq!(offer.option(61).unwrap(), CLIENT_ID, "RFC 6842");
    assert_eq!(offer.option(121), None, "option 3 says it all");
    assert_eq!(counters.dhcp_offers, 1);
}

#[test]
fn routes_are_told_with_the_default_route() {
    let mut s = snapshot();
    let route = HostRoute {
        destination: "10.0.0.0/8".parse().unwrap(),
        nexthop: ip("192.0.2.254"),
    };
    s.subnets.get_mut(&SUBNET4).unwrap().host_routes = vec![route];
    let mut sibling = s.subnets[&SUBNET4].clone();
    sibling.cidr = "198.51.100.0/25".parse().unwrap();
    sibling.gateway_ip = None;
    s.subnets
        .insert(SubnetId(uuid::Uuid::from_u128(0x29)), sibling);
    let (offer, _) = ask_of(&s, &Client::new(1));
    let expected = [
        25, 198, 51, 100, 0, 0, 0, 0, 0, // the sibling, on link
        8, 10, 192, 0, 2, 254, // the host route
        0, 192, 0, 2, 1, // the default route
    ];
    let offer = offer.unwrap();
    assert_eq!(offer.option(121).unwrap(), expected);
    assert_eq!(offer.option(249).unwrap(), expected);
}

#[test]
fn without_a_gateway_there_is_no_router_and_a_link_local_server() {
    let mut s = snapshot();
    s.subnets.get_mut(&SUBNET4).unwrap().gateway_ip = None;
    let offer = ask_of(&s, &Client::new(1)).0.unwrap();
    assert_eq!(offer.option(3), None);
    assert_eq!(offer.option(54).unwrap(), SERVICE_ADDRESS.octets());
    assert_eq!(offer.source, SERVICE_MAC.0);
}

#[test]
fn request_is_acknowledged_in_every_state_of_the_client() {
    let mine = [192, 0, 2, 11];
    let selecting = Client::new(3).with(50, &mine).with(54, &[192, 0, 2, 1]);
    let rebooting = Client::new(3).with(50, &mine);
    let mut renewing = Client::new(3);
    renewing.ciaddr = mine.into();
    for client in [selecting, rebooting, renewing] {
        let (ack, counters) = ask_of(&snapshot(), &client);
        let ack = ack.unwrap();
        assert_eq!(ack.option(53).unwrap(), [5]);
        assert_eq!(ack.yiaddr(), mine);
        assert_eq!(ack.message[12..16], client.ciaddr.octets());
        assert_eq!(ack.to, Ipv4Addr::from(mine));
        assert_eq!(counters.dhcp_acks, 1);
    }
}

#[test]
fn an_address_that_is_not_the_ports_is_refused_to_all_who_hear() {
    let (nak, counters) = ask_of(&snapshot(), &Client::new(3).with(50, &[192, 0, 2, 12]));
    let nak = nak.unwrap();
    assert_eq!(nak.option(53).unwrap(), [6]);
    assert_eq!(nak.yiaddr(), [0; 4]);
    assert_eq!(nak.destination, ethernet::BROADCAST);
    assert_eq!(nak.to, Ipv4Addr::BROADCAST);
    assert_eq!(nak.option(51), None);
    assert_eq!(nak.option(61).unwrap(), CLIENT_ID);
    assert_eq!(counters.dhcp_naks, 1);
}

#[test]
fn broadcast_is_used_when_asked_for() {
    let mut client = Client::new(1);
    client.flags = 0x8000;
    let offer = ask(&client).unwrap();
    assert_eq!(offer.destination, ethernet::BROADCAST);
    assert_eq!(offer.to, Ipv4Addr::BROADCAST);
    assert_eq!(offer.message[10..12], [0x80, 0]);
}

#[test]
fn inform_is_told_all_but_an_address_and_times() {
    let mut client = Client::new(8);
    client.ciaddr = [192, 0, 2, 11].into();
    let ack = ask(&client).unwrap();
    assert_eq!(ack.option(53).unwrap(), [5]);
    assert_eq!(ack.yiaddr(), [0; 4]);
    assert_eq!(ack.option(51), None);
    assert_eq!(ack.option(58), None);
    assert_eq!(ack.option(6).unwrap(), [9, 9, 9, 9]);
    assert_eq!(ack.to, client.ciaddr);
}

#[test]
fn what_needs_no_answer_gets_none_and_is_counted() {
    for kind in [4, 7] {
        let (reply, counters) = ask_of(&snapshot(), &Client::new(kind));
        assert!(reply.is_none());
        assert_eq!((counters.dhcp_releases, counters.dhcp_ignored), (1, 0));
    }
    let mut relayed = Client::new(1);
    relayed.giaddr = [192, 0, 2, 99].into();
    let mut stranger = Client::new(1);
    stranger.mac = MacAddress([0xfa, 0x16, 0x3e, 9, 9, 9]);
    let elsewhere = Client::new(3)
        .with(50, &[192, 0, 2, 11])
        .with(54, &[192, 0, 2, 77]);
    let offer_from_a_guest = Client::new(2);
    let empty_request = Client::new(3);
    for client in [
        relayed,
        stranger,
        elsewhere,
        offer_from_a_guest,
        empty_request,
    ] {
        let (reply, counters) = ask_of(&snapshot(), &client);
        assert!(reply.is_none());
        assert_eq!((counters.dhcp_releases, counters.dhcp_ignored), (0, 1));
    }
}

#[test]
fn without_dhcp_there_is_no_answer() {
    let mut s = snapshot();
    s.subnets.get_mut(&SUBNET4).unwrap().enable_dhcp = false;
    assert!(ask_of(&s, &Client::new(1)).0.is_none());
}

fn with_extra(options: &[(&str, Option<&str>, u8)]) -> HostSnapshot {
    let mut s = snapshot();
    let port = s.ports.get_mut(&GUEST).unwrap();
    let each = options.iter();
    port.extra_dhcp_opts = each
        .map(|(name, value, ip_version)| DhcpOption {
            opt_name: (*name).to_owned(),
            opt_value: value.map(str::to_owned),
            ip_version: *ip_version,
        })
        .collect();
    s
}

#[test]
fn extra_options_replace_add_and_withhold() {
    let s = with_extra(&[
        ("mtu", Some("1400"), 4),
        ("router", None, 4),
        ("bootfile-name", Some("pxelinux.0"), 4),
        ("150", Some("192.0.2.5"), 4),
        ("server-ip-address", Some("192.0.2.6"), 4),
        ("lease-time", Some("600"), 4),
        ("dns-server", Some("2001:db8::1"), 6),
    ]);
    let server = DhcpServer::new(&s, 1);
    assert_eq!(server.unsupported().len(), 1, "the one for DHCPv6");
    let offer = ask_of(&s, &Client::new(1)).0.unwrap();
    assert_eq!(offer.option(26).unwrap(), 1_400u16.to_be_bytes());
    assert_eq!(offer.option(3), None);
    assert_eq!(offer.option(67).unwrap(), b"pxelinux.0");
    assert_eq!(offer.option(150).unwrap(), [192, 0, 2, 5]);
    assert_eq!(offer.siaddr(), [192, 0, 2, 6]);
    assert_eq!(offer.option(51).unwrap(), 600u32.to_be_bytes());
    assert_eq!(offer.option(58).unwrap(), 300u32.to_be_bytes());
    assert_eq!(offer.option(6).unwrap(), [9, 9, 9, 9]);
}

#[test]
fn extra_options_that_cannot_be_told_are_reported() {
    let s = with_extra(&[
        ("nonsense", Some("1"), 4),
        ("mtu", Some("huge"), 4),
        ("54", Some("192.0.2.66"), 4),
    ]);
    let server = DhcpServer::new(&s, 1);
    let paths: Vec<&str> = server
        .unsupported()
        .iter()
        .map(|u| u.path.as_str())
        .collect();
    let at = |n: usize| format!("ports.{GUEST}.extra_dhcp_opts[{n}]");
    assert_eq!(paths, [at(0), at(1), at(2)]);
    let offer = ask_of(&s, &Client::new(1)).0.unwrap();
    assert_eq!(offer.option(26).unwrap(), 1_450u16.to_be_bytes());
    assert_eq!(offer.option(54).unwrap(), [192, 0, 2, 1]);
}

#[test]
fn what_the_client_asked_for_comes_first_when_room_is_short() {
    let long = "x".repeat(250);
    let s = with_extra(&[
        ("root-path", Some(&long), 4),
        ("posix-timezone", Some("UTC"), 4),
    ]);
    let small = ask_of(&s, &Client::new(1).with(55, &[100, 15, 3]))
        .0
        .unwrap();
    assert_eq!(small.option(100).unwrap(), b"UTC");
    assert_eq!(small.option(3).unwrap(), [192, 0, 2, 1]);
    assert_eq!(small.option(17), None, "no room in 576 bytes");
    assert!(small.message.len() + 28 <= 576);
    let roomy = Client::new(1).with(57, &1_500u16.to_be_bytes());
    let large = ask_of(&s, &roomy).0.unwrap();
    assert_eq!(large.option(17).unwrap(), long.as_bytes());
}

#[test]
fn long_options_come_in_pieces() {
    let mut s = snapshot();
    let route = |n: u8| HostRoute {
        destination: format!("10.{n}.0.0/24").parse().unwrap(),
        nexthop: ip("192.0.2.254"),
    };
    let routes: Vec<HostRoute> = (0..32).map(route).collect();
    s.subnets.get_mut(&SUBNET4).unwrap().host_routes = routes;
    assert_eq!(s.validate(), []);
    let client = Client::new(1)
        .with(55, &[121])
        .with(57, &1_500u16.to_be_bytes());
    let offer = ask_of(&s, &client).0.unwrap();
    assert_eq!(offer.option(121).unwrap().len(), 32 * 8 + 5);
}

#[test]
fn a_second_address_is_given_to_who_asks_for_it() {
    let mut s = snapshot();
    let id = SubnetId(uuid::Uuid::from_u128(0x29));
    let mut second = s.subnets[&SUBNET4].clone();
    second.cidr = "198.51.100.0/24".parse().unwrap();
    second.gateway_ip = Some(ip("198.51.100.1"));
    second.network_id = PROJECT;
    s.subnets.insert(id, second);
    let fixed = FixedIp {
        subnet_id: id,
        ip_address: ip("198.51.100.9"),
    };
    s.ports.get_mut(&GUEST).unwrap().fixed_ips.push(fixed);
    let first = ask_of(&s, &Client::new(1)).0.unwrap();
    assert_eq!(first.yiaddr(), [192, 0, 2, 11]);
    let wanted = Client::new(1).with(50, &[198, 51, 100, 9]);
    let second = ask_of(&s, &wanted).0.unwrap();
    assert_eq!(second.yiaddr(), [198, 51, 100, 9]);
    assert_eq!(second.option(54).unwrap(), [198, 51, 100, 1]);
    assert_eq!(second.source, SERVICE_MAC.0, "no router has that gateway");
}

proptest! {
    #[test]
    fn no_bytes_are_too_wild(tail in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..700) {
        let server = DhcpServer::new(&snapshot(), LEASE_S_DEFAULT);
        let mut frame = Client::new(1).frame();
        let options = 14 + 20 + 8 + 240;
        frame.truncate(options);
        frame.extend(&tail);
        frame.truncate(cut.max(14));
        // Lengths of IP and UDP that fit what is there, so that the options are reached.
        let ip = u16::try_from(frame.len().saturating_sub(14)).unwrap();
        if frame.len() > 42 {
            frame[16..18].copy_from_slice(&ip.to_be_bytes());
            frame[38..40].copy_from_slice(&(ip - 20).to_be_bytes());
        }
        let mut counters = ServiceCounters::default();
        let answer = server.answer(GUEST, &frame, &mut counters);
        let answered = counters.dhcp_offers + counters.dhcp_acks + counters.dhcp_naks;
        prop_assert_eq!(answered, u64::from(answer.is_some()));
    }
}
