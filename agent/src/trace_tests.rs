//! Tests of traces: questions as the command asks them.

use super::*;
use crate::service::fixture::{
    GATEWAY_MAC, GUEST, GUEST_MAC, HOP_MAC, LEG_MAC, OTHER_GUEST, OUTSIDE, ip, snapshot,
};
use crate::socket::{Session, Sessions};
use std::sync::Arc;
use weft_model::Stage;

fn ground(snapshot: HostSnapshot) -> Ground {
    Ground {
        snapshot: Arc::new(snapshot),
        neighbours: vec![(OUTSIDE, ip("203.0.113.1"), HOP_MAC)],
        sessions: Sessions::default(),
    }
}

/// No port security: the fixture has no security groups.
fn open() -> HostSnapshot {
    let mut s = snapshot();
    s.ports
        .values_mut()
        .for_each(|p| p.port_security_enabled = false);
    s
}

fn tuple(protocol: u8, source: &str, destination: &str) -> FiveTuple {
    FiveTuple {
        protocol,
        source: ip(source),
        destination: ip(destination),
        source_port: 4_000,
        destination_port: 22,
    }
}

fn asks(ingress: TraceIngress, tuple: FiveTuple) -> TraceRequest {
    TraceRequest {
        ingress,
        packet: TracePacket::FiveTuple(tuple),
    }
}

#[test]
fn a_neighbour_is_reached_directly_and_the_stages_are_named() {
    let request = asks(
        TraceIngress::Port(GUEST),
        tuple(6, "192.0.2.11", "192.0.2.12"),
    );
    let answer = trace(&request, &ground(open())).unwrap();
    assert_eq!(answer.verdict, "deliver");
    assert_eq!(
        answer.verdict_text,
        format!("delivered to port {OTHER_GUEST}")
    );
    assert!(answer.steps.iter().any(|step| step.stage == Stage::Bridge));
    assert_eq!(answer.output.as_deref(), Some(answer.frame.as_str()));
    assert_eq!(answer.notes.len(), 1);
}

#[test]
fn the_outside_is_reached_by_the_gateway() {
    let request = asks(
        TraceIngress::Port(GUEST),
        tuple(17, "192.0.2.11", "198.51.100.1"),
    );
    let answer = trace(&request, &ground(open())).unwrap();
    assert!(
        answer
            .frame
            .starts_with(&hex([LEG_MAC.0, GUEST_MAC.0].concat()))
    );
    assert_eq!(answer.verdict, "uplink");
    assert!(answer.output.unwrap().starts_with(&hex(HOP_MAC.0)));
    let mut deaf = ground(open());
    deaf.neighbours.clear();
    let answer = trace(&request, &deaf).unwrap();
    assert!(answer.output.unwrap().starts_with("000000000000"));
    assert!(answer.notes[1].contains("next hop"), "{:?}", answer.notes);
}

#[test]
fn from_outside_the_floating_ip_and_the_gateway_are_found() {
    let from = TraceIngress::Network(OUTSIDE);
    let to_guest = asks(from, tuple(1, "203.0.113.9", "203.0.113.20"));
    let answer = trace(&to_guest, &ground(open())).unwrap();
    assert_eq!(answer.verdict_text, format!("delivered to port {GUEST}"));
    let inside = asks(from, tuple(6, "203.0.113.9", "192.0.2.11"));
    let answer = trace(&inside, &ground(open())).unwrap();
    assert!(answer.frame.starts_with(&hex(GATEWAY_MAC.0)));
    assert_eq!(answer.drop_reason, Some(DropReason::NatPrivateDestination));
    assert!(answer.verdict_text.contains("nat_private_destination"));
}

#[test]
fn what_is_denied_is_named() {
    let request = asks(
        TraceIngress::Port(GUEST),
        tuple(6, "192.0.2.11", "192.0.2.12"),
    );
    let answer = trace(&request, &ground(snapshot())).unwrap();
    assert_eq!(answer.verdict, "drop");
    assert_eq!(
        answer.drop_reason,
        Some(DropReason::SecurityGroupEgressDenied)
    );
    assert_eq!(answer.output, None);
}

#[test]
fn a_session_of_the_kernel_is_mentioned() {
    let mut ground = ground(open());
    let tuple = tuple(6, "192.0.2.11", "192.0.2.12");
    ground.sessions.sessions.push(Session {
        ingress: TraceIngress::Port(GUEST),
        egress: None,
        tuple,
        vlan: None,
        translated: None,
        state: "established".to_owned(),
        idle_s: 3,
        packets: 7,
        bytes: 700,
    });
    let answer = trace(&asks(TraceIngress::Port(GUEST), tuple), &ground).unwrap();
    assert!(
        answer.notes[1].contains("established, 7 packets"),
        "{:?}",
        answer.notes
    );
    // Another's: of the same guests within a VLAN of their own.
    ground.sessions.sessions[0].vlan = Some(7);
    let answer = trace(&asks(TraceIngress::Port(GUEST), tuple), &ground).unwrap();
    assert_eq!(answer.notes.len(), 1, "{:?}", answer.notes);
}

#[test]
fn a_question_that_makes_no_sense_is_answered_with_what_to_do() {
    let ground = ground(snapshot());
    let port = TraceIngress::Port(GUEST);
    let frame = |text: &str| TraceRequest {
        ingress: port,
        packet: TracePacket::Frame(text.to_owned()),
    };
    let stranger = TraceIngress::Port(weft_model::PortId(uuid::Uuid::from_u128(9)));
    for (request, expected) in [
        (frame("xyz"), "pairs of hex digits"),
        (frame("abc"), "pairs of hex digits"),
        (frame(""), "pairs of hex digits"),
        (frame(&"00".repeat(FRAME_BYTES_MAX + 1)), "at most"),
        (
            asks(stranger, tuple(6, "192.0.2.11", "192.0.2.12")),
            "not on this host",
        ),
        (asks(port, tuple(6, "192.0.2.11", "fd00::1")), "one family"),
        (
            asks(port, tuple(6, "192.0.2.11", "192.0.2.99")),
            "nobody on the port's network",
        ),
    ] {
        let error = trace(&request, &ground).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let short = trace(&frame("00:11 22"), &ground).unwrap();
    assert_eq!(short.drop_reason, Some(DropReason::Malformed));
}
