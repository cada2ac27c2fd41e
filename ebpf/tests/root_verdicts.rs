//! Frames through the loaded programs (BPF_PROG_TEST_RUN): one of each way of docs/pipeline.md. The vectors and the
//! differential test go further; this tells at once what is broken. Needs root.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{
    ACK, SYN, TestEngine, arp_request, echo, ipv4, ipv4_checksums_hold, mac, network, port,
    snapshot, tcp,
};
use weft_ebpf::{EventKind, Ingress, Verdict};
use weft_model::DropReason;

const ONE: [u8; 4] = [192, 0, 2, 11];
const TWO: [u8; 4] = [192, 0, 2, 12];
const THREE: [u8; 4] = [198, 51, 100, 13];
const OUTSIDE: [u8; 4] = [203, 0, 113, 77];
const GATEWAY: [u8; 4] = [203, 0, 113, 10];
const FLOATING: [u8; 4] = [203, 0, 113, 12];

fn engine() -> TestEngine {
    let mut engine = TestEngine::open();
    engine.apply(&snapshot()).unwrap();
    engine
}

#[test]
fn bridge_by_policy_and_session() {
    let mut engine = engine();
    let (one, two) = (Ingress::Port(port(1)), Ingress::Port(port(2)));
    let there = |l4: &[u8]| ipv4((mac(2), mac(1)), ONE, TWO, 6, l4);
    let back = |l4: &[u8]| ipv4((mac(1), mac(2)), TWO, ONE, 6, l4);
    let run = engine
        .test_run(one, &there(&tcp(4000, 23, SYN)), 10)
        .unwrap();
    assert_eq!(
        run.verdict,
        Verdict::Drop(DropReason::SecurityGroupIngressDenied)
    );
    let run = engine
        .test_run(one, &there(&tcp(4000, 22, SYN | ACK)), 10)
        .unwrap();
    assert_eq!(run.verdict, Verdict::Drop(DropReason::TcpNoSession));
    let syn = there(&tcp(4000, 22, SYN));
    let run = engine.test_run(one, &syn, 10).unwrap();
    assert_eq!((run.verdict, &run.frame), (Verdict::Deliver(port(2)), &syn));
    let run = engine
        .test_run(two, &back(&tcp(22, 4000, SYN | ACK)), 10)
        .unwrap();
    assert_eq!(run.verdict, Verdict::Deliver(port(1)));
    assert_eq!(engine.sessions(10).unwrap().len(), 1);
    let run = engine
        .test_run(two, &back(&tcp(23, 4000, ACK)), 10)
        .unwrap();
    assert_eq!(run.verdict, Verdict::Drop(DropReason::TcpNoSession));
    assert_eq!(engine.expire(Some(10_000)).unwrap(), 1);
    assert_eq!(engine.sessions(10).unwrap(), []);
}

#[test]
fn a_removed_rule_cuts_the_session() {
    let mut engine = engine();
    let syn = ipv4((mac(2), mac(1)), ONE, TWO, 6, &tcp(4000, 22, SYN));
    let one = Ingress::Port(port(1));
    assert_eq!(
        engine.test_run(one, &syn, 1).unwrap().verdict,
        Verdict::Deliver(port(2))
    );
    let mut less = snapshot();
    less.security_group_rules
        .retain(|_, rule| rule.protocol != Some(6));
    engine.apply(&less).unwrap();
    let ack = ipv4((mac(2), mac(1)), ONE, TWO, 6, &tcp(4000, 22, ACK));
    let run = engine.test_run(one, &ack, 1).unwrap();
    assert_eq!(
        run.verdict,
        Verdict::Drop(DropReason::SecurityGroupIngressDenied)
    );
    assert!(run.stale);
    assert_eq!(engine.sessions(10).unwrap(), []);
}

#[test]
fn spoofs_are_named() {
    let mut engine = engine();
    let one = Ingress::Port(port(1));
    let l4 = tcp(1, 22, SYN);
    for (frame, reason) in [
        (
            ipv4((mac(2), mac(9)), ONE, TWO, 6, &l4),
            DropReason::SpoofedMac,
        ),
        (
            ipv4((mac(2), mac(1)), TWO, TWO, 6, &l4),
            DropReason::SpoofedIp,
        ),
        (arp_request(mac(1), TWO, ONE), DropReason::SpoofedArp),
        (arp_request(mac(1), ONE, ONE), DropReason::ArpIgnored),
        (
            arp_request(mac(1), ONE, [192, 0, 2, 99]),
            DropReason::ArpUnanswered,
        ),
    ] {
        assert_eq!(
            engine.test_run(one, &frame, 1).unwrap().verdict,
            Verdict::Drop(reason)
        );
    }
    let counters = engine.counters().unwrap();
    let drops = &counters.ports[&port(1)].drops;
    assert_eq!(
        (
            drops[&DropReason::SpoofedMac],
            drops[&DropReason::SpoofedArp]
        ),
        (1, 1)
    );
}

#[test]
fn arp_is_answered_for_the_router() {
    let mut engine = engine();
    let frame = arp_request(mac(1), ONE, [192, 0, 2, 1]);
    let run = engine.test_run(Ingress::Port(port(1)), &frame, 1).unwrap();
    assert_eq!(run.verdict, Verdict::Reply);
    assert_eq!(run.frame[..6], mac(1));
    assert_eq!(run.frame[6..12], mac(101));
    assert_eq!(run.frame[20..22], [0, 2]);
    assert_eq!(run.frame[22..28], mac(101));
    assert_eq!(run.frame[28..32], [192, 0, 2, 1]);
    assert_eq!(run.frame[38..42], ONE);
}

#[test]
fn routed_between_networks_with_one_less_ttl() {
    let mut engine = engine();
    let frame = ipv4((mac(101), mac(1)), ONE, THREE, 1, &echo(8, 7));
    let run = engine.test_run(Ingress::Port(port(1)), &frame, 1).unwrap();
    assert_eq!(run.verdict, Verdict::Deliver(port(3)));
    assert_eq!(
        (&run.frame[..6], &run.frame[6..12], run.frame[22]),
        (&mac(3)[..], &mac(102)[..], 63)
    );
    assert!(ipv4_checksums_hold(&run.frame));
    let back = ipv4((mac(102), mac(3)), THREE, ONE, 1, &echo(0, 7));
    let run = engine.test_run(Ingress::Port(port(3)), &back, 1).unwrap();
    assert_eq!(run.verdict, Verdict::Deliver(port(1)));
    assert_eq!(
        (&run.frame[..6], &run.frame[6..12], run.frame[22]),
        (&mac(1)[..], &mac(101)[..], 63)
    );
    let own = ipv4((mac(101), mac(1)), ONE, [192, 0, 2, 1], 1, &echo(8, 8));
    let run = engine.test_run(Ingress::Port(port(1)), &own, 1).unwrap();
    assert_eq!((run.verdict, run.frame[34]), (Verdict::Reply, 0));
    assert!(ipv4_checksums_hold(&run.frame));
}

#[test]
fn snat_out_and_back() {
    let mut engine = engine();
    engine
        .neighbour_put(network(3), OUTSIDE.into(), weft_model::MacAddress(mac(77)))
        .unwrap();
    let uplink = Ingress::Network(network(3));
    for (n, from) in [(1u8, ONE), (3, THREE)] {
        let leg = if n == 1 { 101 } else { 102 };
        let frame = ipv4((mac(leg), mac(n)), from, OUTSIDE, 6, &tcp(4000, 80, SYN));
        let run = engine.test_run(Ingress::Port(port(n)), &frame, 1).unwrap();
        assert_eq!(run.verdict, Verdict::Uplink(network(3)));
        assert_eq!(
            (&run.frame[..6], &run.frame[6..12]),
            (&mac(77)[..], &mac(103)[..])
        );
        assert_eq!(run.frame[26..30], GATEWAY);
        assert!(ipv4_checksums_hold(&run.frame));
        let translated = u16::from_be_bytes([run.frame[34], run.frame[35]]);
        assert_eq!(
            translated == 4000,
            n == 1,
            "the second guest's port is taken"
        );
        let back = ipv4(
            (mac(103), mac(77)),
            OUTSIDE,
            GATEWAY,
            6,
            &tcp(80, translated, SYN | ACK),
        );
        let run = engine.test_run(uplink, &back, 1).unwrap();
        assert_eq!(run.verdict, Verdict::Deliver(port(n)));
        assert_eq!(
            (&run.frame[30..34], &run.frame[36..38]),
            (&from[..], &4000u16.to_be_bytes()[..])
        );
        assert!(ipv4_checksums_hold(&run.frame));
    }
    let stray = ipv4((mac(103), mac(77)), OUTSIDE, GATEWAY, 6, &tcp(80, 5, SYN));
    assert_eq!(
        engine.test_run(uplink, &stray, 1).unwrap().verdict,
        Verdict::Drop(DropReason::NatNoSession)
    );
}

#[test]
fn floating_ip_both_ways() {
    let mut engine = engine();
    let uplink = Ingress::Network(network(3));
    let frame = ipv4(
        (mac(112), mac(77)),
        OUTSIDE,
        FLOATING,
        6,
        &tcp(4000, 22, SYN),
    );
    let run = engine.test_run(uplink, &frame, 1).unwrap();
    assert_eq!(run.verdict, Verdict::Deliver(port(2)));
    assert_eq!(
        (&run.frame[..6], &run.frame[6..12]),
        (&mac(2)[..], &mac(101)[..])
    );
    assert_eq!(run.frame[30..34], TWO);
    assert!(ipv4_checksums_hold(&run.frame));
    let back = ipv4(
        (mac(101), mac(2)),
        TWO,
        OUTSIDE,
        6,
        &tcp(22, 4000, SYN | ACK),
    );
    let run = engine.test_run(Ingress::Port(port(2)), &back, 1).unwrap();
    assert_eq!(run.verdict, Verdict::Uplink(network(3)));
    assert_eq!(
        (&run.frame[..6], &run.frame[6..12]),
        (&mac(77)[..], &mac(112)[..])
    );
    assert_eq!(run.frame[26..30], FLOATING);
    assert!(ipv4_checksums_hold(&run.frame));
    let denied = ipv4(
        (mac(112), mac(77)),
        OUTSIDE,
        FLOATING,
        6,
        &tcp(4000, 23, SYN),
    );
    let run = engine.test_run(uplink, &denied, 1).unwrap();
    assert_eq!(
        run.verdict,
        Verdict::Drop(DropReason::SecurityGroupIngressDenied)
    );
}

#[test]
fn services_reach_the_agent() {
    let mut engine = engine();
    let mut dhcp = vec![0, 68, 0, 67, 0, 12, 0, 0, 1, 1, 6, 0];
    let frame = ipv4(([0xff; 6], mac(1)), [0; 4], [255; 4], 17, &dhcp);
    let run = engine.test_run(Ingress::Port(port(1)), &frame, 1).unwrap();
    assert_eq!(run.verdict, Verdict::Service(EventKind::Dhcp));
    let events = engine.events();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].kind, events[0].ingress),
        (EventKind::Dhcp, Ingress::Port(port(1)))
    );
    assert_eq!(events[0].frame, frame);
    dhcp.swap(1, 3);
    let rogue = ipv4(([0xff; 6], mac(1)), ONE, [255; 4], 17, &dhcp);
    let run = engine.test_run(Ingress::Port(port(1)), &rogue, 1).unwrap();
    assert_eq!(run.verdict, Verdict::Drop(DropReason::RogueDhcp));
    let unknown = ipv4((mac(101), mac(1)), ONE, OUTSIDE, 6, &tcp(4000, 80, SYN));
    let run = engine
        .test_run(Ingress::Port(port(1)), &unknown, 1)
        .unwrap();
    assert_eq!(run.verdict, Verdict::Uplink(network(3)));
    assert_eq!(run.frame[..6], [0; 6]);
    let events = engine.events();
    assert_eq!(events[0].kind, EventKind::NeighbourNeeded);
    assert_eq!(events[0].next_hop, Some(OUTSIDE.into()));
}
