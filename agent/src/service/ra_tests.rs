//! Tests of `ra`, on real bytes and a clock of their own.

use super::super::fixture::{
    GUEST, GUEST_MAC, LEG, LEG_MAC, OTHER_GUEST, ROUTER, SUBNET6, snapshot,
};
use super::*;
use weft_model::SubnetId;
use weft_wire::protocol;

/// An advertisement taken apart.
struct Heard {
    destination: [u8; 6],
    to: Ipv6Addr,
    said: RouterAdvertisement,
}

fn parse(action: &Action) -> (PortId, Heard) {
    let Action::Send {
        to: Place::Port(port_id),
        frame,
    } = action
    else {
        panic!("{action:?}")
    };
    let ethernet = ethernet::Frame::new_checked(frame).unwrap();
    assert_eq!(ethernet.source(), LEG_MAC.0);
    let packet = ipv6::Packet::new_checked(ethernet.payload()).unwrap();
    assert_eq!(packet.source(), eui64_link_local(LEG_MAC), "RFC 4861 4.2");
    assert_eq!(packet.hop_limit(), 255);
    let sum = weft_wire::checksum::transport(
        packet.source().into(),
        packet.destination().into(),
        protocol::ICMPV6,
        packet.payload(),
    );
    assert!(matches!(sum, 0 | 0xffff));
    let heard = Heard {
        destination: ethernet.destination(),
        to: packet.destination(),
        said: RouterAdvertisement::parse(packet.payload()).unwrap(),
    };
    (*port_id, heard)
}

struct Bench {
    ra: RaServer,
    counters: ServiceCounters,
}

impl Bench {
    fn new(snapshot: &HostSnapshot, guests: &[PortId]) -> Self {
        let mut bench = Self {
            ra: RaServer::default(),
            counters: ServiceCounters::default(),
        };
        assert_eq!(bench.apply(snapshot, guests, 0), []);
        bench
    }

    fn apply(&mut self, s: &HostSnapshot, guests: &[PortId], now: Millis) -> Vec<Action> {
        let guests = guests.iter().copied().collect();
        self.ra.apply(s, &guests, now, &mut self.counters)
    }

    fn tick(&mut self, now: Millis) -> Vec<Action> {
        self.ra.tick(now, &mut || 0.5, &mut self.counters)
    }
}

#[test]
fn a_port_hears_at_once_soon_again_and_then_periodically() {
    let mut bench = Bench::new(&snapshot(), &[GUEST]);
    let mut heard = Vec::new();
    while let Some(due) = bench.ra.due().filter(|due| *due < 200_000) {
        let actions = bench.tick(due);
        assert_eq!(actions.len(), 1);
        assert_eq!(parse(&actions[0]).0, GUEST);
        heard.push(due);
    }
    assert_eq!(heard, [0, 16_000, 32_000, 97_000, 162_000]);
    assert_eq!(bench.counters.router_advertisements, 5);
}

#[test]
fn it_says_what_the_subnet_and_network_say() {
    let mut bench = Bench::new(&snapshot(), &[GUEST]);
    let (_, heard) = parse(&bench.tick(0)[0]);
    assert_eq!(heard.to, ALL_NODES);
    assert_eq!(heard.destination, [0x33, 0x33, 0, 0, 0, 1]);
    let said = heard.said;
    assert_eq!((said.managed, said.other), (false, false));
    assert_eq!(said.lifetime_s, 300);
    assert_eq!(said.mtu, Some(1_450));
    assert_eq!(said.source_mac, Some(LEG_MAC.0));
    assert_eq!(said.rdnss, ["2001:db8::53".parse::<Ipv6Addr>().unwrap()]);
    let prefix = Prefix {
        prefix: "fd00:192:0:2::".parse().unwrap(),
        length: 64,
        on_link: true,
        autonomous: true,
        valid_s: 86_400,
        preferred_s: 14_400,
    };
    assert_eq!(said.prefixes, [prefix]);
}

#[test]
fn modes_set_the_flags() {
    for (mode, managed, other, autonomous) in [
        (Ipv6Mode::Slaac, false, false, true),
        (Ipv6Mode::Dhcpv6Stateless, false, true, true),
        (Ipv6Mode::Dhcpv6Stateful, true, true, false),
    ] {
        let mut s = snapshot();
        s.subnets.get_mut(&SUBNET6).unwrap().ipv6_ra_mode = Some(mode);
        let mut bench = Bench::new(&s, &[GUEST]);
        let (_, heard) = parse(&bench.tick(0)[0]);
        let flags = (heard.said.managed, heard.said.other);
        assert_eq!(flags, (managed, other), "{mode:?}");
        assert_eq!(heard.said.prefixes[0].autonomous, autonomous, "{mode:?}");
    }
    let mut silent = snapshot();
    silent.subnets.get_mut(&SUBNET6).unwrap().ipv6_ra_mode = None;
    assert_eq!(Bench::new(&silent, &[GUEST]).ra.due(), None);
    let mut down = snapshot();
    down.routers.get_mut(&ROUTER).unwrap().admin_state_up = false;
    assert_eq!(Bench::new(&down, &[GUEST]).ra.due(), None);
}

#[test]
fn a_solicitation_is_answered_to_who_asked() {
    let s = snapshot();
    let bench = Bench::new(&s, &[GUEST]);
    let mut counters = ServiceCounters::default();
    let address = eui64_link_local(GUEST_MAC);
    let asked = frame::router_solicitation(GUEST_MAC.0, address);
    let actions = bench.ra.solicited(&s, GUEST, &asked, &mut counters);
    let (port, heard) = parse(&actions[0]);
    assert_eq!((port, heard.to), (GUEST, address));
    assert_eq!(heard.destination, GUEST_MAC.0);
    assert_eq!(counters.router_advertisements_solicited, 1);
    let nobody = frame::router_solicitation(GUEST_MAC.0, Ipv6Addr::UNSPECIFIED);
    let actions = bench.ra.solicited(&s, GUEST, &nobody, &mut counters);
    assert_eq!(parse(&actions[0]).1.to, ALL_NODES);
    let mut routed = asked;
    routed[14 + 7] = 64; // hop limit: crossed a router
    assert_eq!(bench.ra.solicited(&s, GUEST, &routed, &mut counters), []);
    assert_eq!(bench.ra.solicited(&s, GUEST, &[0; 60], &mut counters), []);
}

#[test]
fn only_new_ports_and_changed_routers_start_again() {
    let mut s = snapshot();
    let mut bench = Bench::new(&s, &[GUEST]);
    bench.tick(0);
    assert_eq!(bench.apply(&s, &[GUEST, OTHER_GUEST], 1_000), []);
    let actions = bench.tick(1_000);
    assert_eq!(actions.len(), 1);
    assert_eq!(parse(&actions[0]).0, OTHER_GUEST);
    s.networks.values_mut().for_each(|n| n.mtu = 1_300);
    assert_eq!(bench.apply(&s, &[GUEST, OTHER_GUEST], 2_000), []);
    let actions = bench.tick(2_000);
    assert_eq!(actions.len(), 2);
    assert_eq!(parse(&actions[0]).1.said.mtu, Some(1_300));
    assert_eq!(bench.apply(&s, &[OTHER_GUEST], 3_000), []);
    assert_eq!(bench.tick(1_000_000).len(), 1);
}

#[test]
fn a_router_that_goes_says_so() {
    let mut s = snapshot();
    let mut bench = Bench::new(&s, &[GUEST, OTHER_GUEST]);
    s.routers.get_mut(&ROUTER).unwrap().interfaces.clear();
    let farewells = bench.apply(&s, &[GUEST, OTHER_GUEST], 1);
    assert_eq!(farewells.len(), 2);
    let (_, heard) = parse(&farewells[0]);
    assert_eq!(heard.said.lifetime_s, 0);
    assert_eq!(heard.said.prefixes[0].preferred_s, 0);
    assert_eq!(heard.to, ALL_NODES);
    assert_eq!(bench.ra.due(), None);
}

#[test]
fn a_prefix_that_goes_is_deprecated_while_the_router_stays() {
    let mut s = snapshot();
    let second = SubnetId(uuid::Uuid::from_u128(0x2a));
    let mut subnet = s.subnets[&SUBNET6].clone();
    subnet.cidr = "fd00:192:0:3::/64".parse().unwrap();
    s.subnets.insert(second, subnet);
    let leg = &mut s.routers.get_mut(&ROUTER).unwrap().interfaces[0];
    assert_eq!(leg.port_id, LEG);
    leg.addresses.push(weft_model::RouterAddress {
        subnet_id: second,
        ip_address: "fd00:192:0:3::1".parse().unwrap(),
    });
    let mut bench = Bench::new(&s, &[GUEST]);
    assert_eq!(parse(&bench.tick(0)[0]).1.said.prefixes.len(), 2);
    let leg = &mut s.routers.get_mut(&ROUTER).unwrap().interfaces[0];
    leg.addresses.pop();
    let farewells = bench.apply(&s, &[GUEST], 1);
    let (_, heard) = parse(&farewells[0]);
    assert_eq!(heard.said.lifetime_s, 300);
    assert_eq!(heard.said.prefixes.len(), 1);
    assert_eq!(heard.said.prefixes[0].preferred_s, 0);
    let gone: Ipv6Addr = "fd00:192:0:3::".parse().unwrap();
    assert_eq!(heard.said.prefixes[0].prefix, gone);
}
