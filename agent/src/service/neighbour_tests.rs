//! Tests of `neighbour`, on real bytes and a clock of their own.

use super::super::fixture::{
    FLOATING_MAC, GATEWAY_MAC, HOP_MAC, OUTSIDE, PROJECT, ROUTER, ip, snapshot,
};
use super::*;
use weft_wire::frame::Link;

struct Bench {
    neighbours: Neighbours,
    counters: ServiceCounters,
    now: Millis,
}

impl Bench {
    /// The fixture's routers; the two next hops outside (v4 and v6) are being looked for.
    fn new() -> Self {
        let mut bench = Self {
            neighbours: Neighbours::default(),
            counters: ServiceCounters::default(),
            now: 0,
        };
        assert_eq!(bench.neighbours.apply(&snapshot(), 0), []);
        bench
    }

    /// With both next hops known, so that nothing is due for a while.
    fn settled() -> Self {
        let mut bench = Self::new();
        bench.tick(0);
        for hop in ["203.0.113.1", "2001:db8:203::1"] {
            assert_eq!(bench.hear(&answer(hop, HOP_MAC)), [known(hop, HOP_MAC)]);
        }
        bench
    }

    fn tick(&mut self, now: Millis) -> Vec<Action> {
        self.now = now;
        self.neighbours.tick(now, &mut self.counters)
    }

    fn hear(&mut self, frame: &[u8]) -> Vec<Action> {
        self.neighbours
            .heard(OUTSIDE, frame, self.now, &mut self.counters)
    }

    fn need(&mut self, hop: &str, frame: &[u8]) -> Vec<Action> {
        self.neighbours
            .needed((OUTSIDE, ip(hop)), frame, self.now, &mut self.counters)
    }
}

fn known(address: &str, mac: MacAddress) -> Action {
    put((OUTSIDE, ip(address)), mac)
}

/// The neighbour answers us, by its family.
fn answer(address: &str, mac: MacAddress) -> Vec<u8> {
    let link = Link {
        source: mac.0,
        destination: GATEWAY_MAC.0,
    };
    match ip(address) {
        IpAddr::V4(sender_ip) => frame::arp(
            link,
            &arp::Repr {
                operation: arp::REPLY,
                sender_mac: mac.0,
                sender_ip,
                target_mac: GATEWAY_MAC.0,
                target_ip: [203, 0, 113, 10].into(),
            },
        ),
        IpAddr::V6(target) => advertisement(target, mac, ndisc::FLAG_OVERRIDE),
    }
}

fn advertisement(target: Ipv6Addr, mac: MacAddress, flags: u8) -> Vec<u8> {
    let link = Link {
        source: mac.0,
        destination: GATEWAY_MAC.0,
    };
    let said = ndisc::NeighbourRepr {
        kind: ndisc::NEIGHBOUR_ADVERTISEMENT,
        flags: flags | ndisc::FLAG_SOLICITED,
        target,
        mac: Some(mac.0),
    };
    let to = "2001:db8:203::10".parse().unwrap();
    frame::neighbour_advertisement(link, target, to, &said)
}

fn question(address: &str) -> Action {
    let frame = match ip(address) {
        IpAddr::V4(target) => frame::arp_request(GATEWAY_MAC.0, [203, 0, 113, 10].into(), target),
        IpAddr::V6(target) => {
            let source = "2001:db8:203::10".parse().unwrap();
            frame::neighbour_solicitation(GATEWAY_MAC.0, source, target)
        }
    };
    let to = Place::Network(OUTSIDE);
    Action::Send { to, frame }
}

/// A finished frame from the gateway's MAC or a floating IP's, its last byte a mark.
fn finished(source: MacAddress, mark: u8) -> Vec<u8> {
    let mut frame = vec![0; 6];
    frame.extend(source.0);
    frame.extend([8, 0, 0x45, mark]);
    frame
}

fn sent(source: MacAddress, mark: u8) -> Action {
    let mut frame = finished(source, mark);
    frame[..6].copy_from_slice(&HOP_MAC.0);
    let to = Place::Network(OUTSIDE);
    Action::Send { to, frame }
}

#[test]
fn the_next_hops_of_routers_are_resolved_before_they_are_needed() {
    let mut bench = Bench::new();
    let asked = bench.tick(0);
    assert_eq!(
        asked,
        [question("203.0.113.1"), question("2001:db8:203::1")]
    );
    assert_eq!(bench.hear(&answer("203.0.113.1", HOP_MAC)).len(), 1);
    assert_eq!(bench.hear(&answer("2001:db8:203::1", HOP_MAC)).len(), 1);
    assert_eq!(bench.tick(RETRY_MS), []);
    assert_eq!(bench.neighbours.known().count(), 2);
}

#[test]
fn a_next_hop_that_does_not_answer_is_asked_for_again_and_again() {
    let mut bench = Bench::new();
    let mut asked = 0;
    while let Some(due) = bench.neighbours.due().filter(|due| *due < 30_000) {
        asked += bench.tick(due).len();
    }
    assert_eq!(asked, 2 * 9, "three times three in thirty seconds, each");
    assert_eq!(bench.counters.neighbours_lost, 0);
}

#[test]
fn frames_wait_for_their_neighbour_and_the_oldest_make_room() {
    let mut bench = Bench::settled();
    let hop = "203.0.113.50";
    assert_eq!(bench.need(hop, &finished(GATEWAY_MAC, 0)), [question(hop)]);
    for mark in 1..=4 {
        let source = if mark == 4 { FLOATING_MAC } else { GATEWAY_MAC };
        assert_eq!(bench.need(hop, &finished(source, mark)), []);
    }
    let actions = bench.hear(&answer(hop, HOP_MAC));
    let expected = [
        known(hop, HOP_MAC),
        sent(GATEWAY_MAC, 1),
        sent(GATEWAY_MAC, 2),
        sent(GATEWAY_MAC, 3),
        sent(FLOATING_MAC, 4),
    ];
    assert_eq!(actions, expected);
    assert_eq!(bench.counters.neighbour_frames_dropped, 1);
    assert_eq!(bench.counters.neighbour_frames_sent, 4);
    // An event that was under way when the answer came.
    let late = bench.need(hop, &finished(GATEWAY_MAC, 9));
    assert_eq!(late, [known(hop, HOP_MAC), sent(GATEWAY_MAC, 9)]);
}

#[test]
fn after_three_questions_without_an_answer_it_is_dead() {
    let mut bench = Bench::settled();
    let hop = "203.0.113.50";
    assert_eq!(bench.need(hop, &finished(GATEWAY_MAC, 0)).len(), 1);
    assert_eq!(bench.tick(RETRY_MS - 1), []);
    assert_eq!(bench.tick(RETRY_MS), [question(hop)]);
    assert_eq!(bench.tick(2 * RETRY_MS), [question(hop)]);
    assert_eq!(bench.tick(3 * RETRY_MS), []);
    assert_eq!(bench.counters.neighbour_frames_dropped, 1);
    assert_eq!(bench.neighbours.entries.len(), 2, "the next hops stay");
}

#[test]
fn what_is_known_is_asked_for_before_it_is_stale_and_forgotten_if_dead() {
    let mut bench = Bench::settled();
    assert_eq!(bench.tick(REACHABLE_MS - 1), []);
    assert_eq!(bench.tick(REACHABLE_MS).len(), 2, "both next hops");
    assert_eq!(bench.hear(&answer("203.0.113.1", HOP_MAC)), []);
    let (a, b) = (REACHABLE_MS + RETRY_MS, REACHABLE_MS + 2 * RETRY_MS);
    assert_eq!(bench.tick(a), [question("2001:db8:203::1")]);
    assert_eq!(bench.tick(b), [question("2001:db8:203::1")]);
    let gone = delete((OUTSIDE, ip("2001:db8:203::1")));
    assert_eq!(bench.tick(b + RETRY_MS), [gone]);
    assert_eq!(bench.counters.neighbours_lost, 1);
    assert_eq!(bench.neighbours.known().count(), 1);
    // It comes back, and someone needs it before the next look.
    let woken = bench.need("2001:db8:203::1", &finished(GATEWAY_MAC, 1));
    assert_eq!(woken, [question("2001:db8:203::1")]);
}

#[test]
fn who_asks_us_is_learned_and_a_new_mac_replaces_the_old() {
    let mut bench = Bench::settled();
    let asks = frame::arp_request(
        HOP_MAC.0,
        [203, 0, 113, 77].into(),
        [203, 0, 113, 20].into(),
    );
    assert_eq!(bench.hear(&asks), [known("203.0.113.77", HOP_MAC)]);
    assert_eq!(bench.hear(&asks), []);
    let other = MacAddress([0x52, 0x54, 0, 0, 0, 2]);
    let moved = answer("203.0.113.77", other);
    assert_eq!(bench.hear(&moved), [known("203.0.113.77", other)]);
    let source: Ipv6Addr = "2001:db8:203::77".parse().unwrap();
    let target = "2001:db8:203::10".parse().unwrap();
    let solicits = frame::neighbour_solicitation(HOP_MAC.0, source, target);
    assert_eq!(bench.hear(&solicits), [known("2001:db8:203::77", HOP_MAC)]);
    let weak = advertisement(source, other, 0);
    assert_eq!(bench.hear(&weak), [], "no override flag: RFC 4861 7.2.5");
}

#[test]
fn lies_are_not_learned() {
    let mut bench = Bench::settled();
    let before = bench.neighbours.entries.clone();
    let says = |ip: [u8; 4], mac| frame::arp_request(mac, ip.into(), [203, 0, 113, 20].into());
    for frame in [
        answer("203.0.113.60", HOP_MAC),    // an answer to no question
        says([203, 0, 113, 10], HOP_MAC.0), // the router's own address
        says([203, 0, 113, 20], HOP_MAC.0), // a floating IP
        says([198, 51, 100, 1], HOP_MAC.0), // of no subnet there
        says([203, 0, 113, 61], [0xff; 6]), // broadcast
        says([203, 0, 113, 61], [0; 6]),    // nobody
        says([0, 0, 0, 0], HOP_MAC.0),      // a probe
        vec![0; 60],
        answer("203.0.113.1", HOP_MAC)[..30].to_vec(),
    ] {
        assert_eq!(bench.hear(&frame), [], "{frame:02x?}");
    }
    let mut routed = answer("2001:db8:203::1", MacAddress([2, 0, 0, 0, 0, 9]));
    routed[14 + 7] = 254;
    assert_eq!(bench.hear(&routed), [], "it crossed a router");
    assert_eq!(bench.neighbours.entries, before);
    let inside = bench.neighbours.heard(
        PROJECT,
        &says([192, 0, 2, 77], HOP_MAC.0),
        0,
        &mut bench.counters,
    );
    assert_eq!(inside, [], "not a physical network");
}

#[test]
fn a_scan_fills_only_its_part_of_the_table() {
    let mut snapshot = snapshot();
    let outside = snapshot.subnets.values_mut();
    outside
        .filter(|s| s.network_id == OUTSIDE && !s.cidr.addr().is_ipv6())
        .for_each(|s| s.cidr = "203.0.0.0/16".parse().unwrap());
    let mut bench = Bench::settled();
    assert_eq!(bench.neighbours.apply(&snapshot, 0), []);
    for n in 0..=u16::try_from(UNRESOLVED_MAX).unwrap() {
        let [a, b] = n.to_be_bytes();
        bench.need(&format!("203.0.{a}.{b}"), &finished(GATEWAY_MAC, 0));
    }
    let unresolved = bench.neighbours.entries.values();
    let unresolved = unresolved.filter(|e| e.mac.is_none()).count();
    assert_eq!(unresolved, UNRESOLVED_MAX);
    assert_eq!(bench.counters.neighbour_frames_dropped, 1);
    assert_eq!(bench.neighbours.known().count(), 2);
}

#[test]
fn the_table_is_bounded() {
    let mut bench = Bench::settled();
    for n in 0..=NEIGHBOURS_MAX {
        let [.., a, b] = n.to_be_bytes();
        let source = Ipv6Addr::new(0x2001, 0xdb8, 0x203, 0, 1, 0, u16::from(a), u16::from(b));
        let target = "2001:db8:203::10".parse().unwrap();
        bench.hear(&frame::neighbour_solicitation(HOP_MAC.0, source, target));
    }
    assert_eq!(bench.neighbours.entries.len(), NEIGHBOURS_MAX);
}

#[test]
fn what_the_snapshot_gives_up_is_forgotten() {
    let mut bench = Bench::settled();
    let mut s = snapshot();
    s.routers.remove(&ROUTER);
    s.floating_ips.clear();
    let actions = bench.neighbours.apply(&s, 1);
    let gone = |address| delete((OUTSIDE, ip(address)));
    assert_eq!(actions, [gone("203.0.113.1"), gone("2001:db8:203::1")]);
    assert_eq!(bench.need("203.0.113.1", &finished(GATEWAY_MAC, 0)), []);
    assert_eq!(bench.counters.neighbour_frames_dropped, 1);
}

#[test]
fn an_interface_that_appears_is_asked_at_once() {
    let mut bench = Bench::new();
    for n in 0..=3 {
        bench.tick(n * RETRY_MS);
    }
    assert_eq!(bench.tick(4 * RETRY_MS), [], "left alone");
    bench.neighbours.attached(OUTSIDE, bench.now);
    assert_eq!(bench.tick(4 * RETRY_MS).len(), 2);
}
