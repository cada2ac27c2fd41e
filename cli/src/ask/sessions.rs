//! `weft sessions` for people.

use super::place;
use crate::table::{Table, bytes, count};
use std::net::{IpAddr, SocketAddr};
use weft_agent::socket::{FiveTuple, Session, Sessions};

pub(super) fn text(sessions: &Sessions) -> String {
    if sessions.sessions.is_empty() {
        return "no sessions\n".to_owned();
    }
    let mut table = Table::new(&[
        "opened by",
        "proto",
        "packet",
        "leaves as",
        "state",
        "idle s",
        "pkt",
        "bytes",
    ]);
    for session in &sessions.sessions {
        table.row([
            place(&session.ingress),
            protocol(session.tuple.protocol),
            packet(session),
            session.translated.as_ref().map(ends).unwrap_or_default(),
            session.state.clone(),
            session.idle_s.to_string(),
            count(session.packets),
            bytes(session.bytes),
        ]);
    }
    let more = if sessions.truncated {
        "… and more: ask with --limit\n"
    } else {
        ""
    };
    format!("{}{more}", table.text())
}

/// The opener's packets: their two ends, and the VLAN of the guests' own.
fn packet(session: &Session) -> String {
    let ends = ends(&session.tuple);
    match session.vlan {
        Some(vlan) => format!("{ends} in VLAN {vlan}"),
        None => ends,
    }
}

/// The two ends of a packet: `192.0.2.1:40000 → 198.51.100.2:22`.
pub(super) fn ends(tuple: &FiveTuple) -> String {
    let end = |address: IpAddr, port: u16| match port {
        0 => address.to_string(),
        port => SocketAddr::new(address, port).to_string(),
    };
    format!(
        "{} → {}",
        end(tuple.source, tuple.source_port),
        end(tuple.destination, tuple.destination_port)
    )
}

/// A protocol's usual name, or its number.
pub(super) fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        number => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_agent::socket::TraceIngress;
    use weft_model::PortId;

    #[test]
    fn sessions_are_shown_with_their_translation() {
        assert_eq!(text(&Sessions::default()), "no sessions\n");
        let tuple = FiveTuple {
            protocol: 6,
            source: "192.0.2.1".parse().unwrap(),
            destination: "2001:db8::1".parse().unwrap(),
            source_port: 4,
            destination_port: 0,
        };
        let port = PortId::random();
        let session = Session {
            ingress: TraceIngress::Port(port),
            egress: None,
            tuple,
            vlan: Some(7),
            translated: Some(FiveTuple {
                source_port: 1_024,
                ..tuple
            }),
            state: "opening".to_owned(),
            idle_s: 3,
            packets: 1,
            bytes: 60,
        };
        let text = text(&Sessions {
            sessions: vec![session],
            truncated: true,
        });
        assert!(
            text.contains(&format!(
                "port {port}  tcp    192.0.2.1:4 → 2001:db8::1 in VLAN 7  192.0.2.1:1024 →"
            )),
            "{text}"
        );
        assert!(text.ends_with("ask with --limit\n"));
    }
}
