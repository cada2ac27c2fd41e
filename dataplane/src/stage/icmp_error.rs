//! ICMP errors: they follow the session of the packet inside. docs/pipeline.md, section 4b.
//!
//! Guarantees: an error without a session goes nowhere, and it reaches only who sent the packet inside. Assumes decode.
//! Cost: as a session lookup.

use super::decode::{IcmpKind, IpPacket, icmp_kind, ports};
use super::deliver::{endpoints, link_rewrite};
use crate::flow::key::Tuple;
use crate::flow::session::Transformation;
use crate::mutant::Mutant;
use std::net::IpAddr;
use weft_model::limits::IPV6_EXTENSION_HEADERS_MAX;
use weft_wire::translate::{self, Endpoints};
use weft_wire::{ethernet, icmpv4, ipv4, ipv6};

/// Bytes of layer 4 that must be quoted.
const L4_BYTES_MIN: usize = 8;

/// The packet inside of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Its tuple.
    pub tuple: Tuple,
    /// Where its layer 4 starts, behind its IP header's start.
    pub l4_offset: usize,
}

/// The packet inside, if it is whole enough to name a session.
#[must_use]
pub fn inside(frame: &[u8], ip: &IpPacket) -> Option<Inside> {
    if ip.is_later_fragment() {
        return None;
    }
    let quoted = frame.get(ip.l4.clone())?.get(icmpv4::HEADER_BYTES..)?;
    let v6 = ip.tuple.is_ipv6();
    let (source, destination, protocol, l4_offset) = if v6 {
        let packet = ipv6::Packet::new_header_checked(quoted).ok()?;
        let behind = &quoted[ipv6::HEADER_BYTES..];
        let upper = ipv6::walk(packet.next_header(), behind, IPV6_EXTENSION_HEADERS_MAX).ok()?;
        if upper.fragment.is_some_and(|f| f.offset != 0) {
            return None;
        }
        let (source, destination) = (packet.source(), packet.destination());
        let offset = ipv6::HEADER_BYTES + upper.offset;
        (
            IpAddr::V6(source),
            IpAddr::V6(destination),
            upper.protocol,
            offset,
        )
    } else {
        let packet = ipv4::Packet::new_header_checked(quoted).ok()?;
        if packet.fragment_offset() != 0 {
            return None;
        }
        let (source, destination) = (packet.source(), packet.destination());
        (
            IpAddr::V4(source),
            IpAddr::V4(destination),
            packet.protocol(),
            packet.header_bytes(),
        )
    };
    let l4 = quoted
        .get(l4_offset..)
        .filter(|l4| l4.len() >= L4_BYTES_MIN)?;
    let (source_port, destination_port, icmp) = ports(v6, protocol, l4);
    let error = icmp.is_some_and(|(kind, _)| icmp_kind(v6, kind) == IcmpKind::Error);
    if error || source != ip.tuple.destination {
        return None;
    }
    let tuple = Tuple {
        protocol,
        source,
        destination,
        source_port,
        destination_port,
        vlan: ip.tuple.vlan,
    };
    Some(Inside { tuple, l4_offset })
}

/// An error's own tuple behind the transformation of the session's direction that it travels in.
#[must_use]
pub fn outer(tuple: Tuple, transformation: &Transformation) -> Tuple {
    let Transformation { from, to, .. } = transformation;
    let kept = tuple.source != from.source;
    Tuple {
        source: if kept { tuple.source } else { to.source },
        destination: to.destination,
        ..tuple
    }
}

/// The error behind the transformation of the session's direction that it travels in.
#[must_use]
pub fn process(
    frame: &[u8],
    ip: &IpPacket,
    inside: &Inside,
    transformation: &Transformation,
    mutant: Option<Mutant>,
) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if let Some(hop) = &transformation.hop {
        link_rewrite(&mut bytes, ip.tuple.is_ipv6(), ip.ttl, hop, mutant);
    }
    let (from, to) = (endpoints(transformation.from), endpoints(transformation.to));
    if from == to {
        return bytes;
    }
    let outer_to = endpoints(outer(ip.tuple, transformation));
    translate::addresses(&mut bytes[ethernet::HEADER_BYTES..], &outer_to);
    if mutant == Some(Mutant::IcmpErrorInside) {
        return bytes;
    }
    let message = &mut bytes[ip.l4.clone()];
    let before = message[icmpv4::HEADER_BYTES..].to_vec();
    let quoted = &mut message[icmpv4::HEADER_BYTES..];
    let (inner_from, inner_to) = (endpoints(inside.tuple), reversed(&to));
    translate::addresses(quoted, &inner_to);
    let number = inside.tuple.protocol;
    translate::transport(
        number,
        &mut quoted[inside.l4_offset..],
        &inner_from,
        &inner_to,
    );
    translate::icmp_quote_changed(message, &before);
    bytes
}

fn reversed(ends: &Endpoints) -> Endpoints {
    Endpoints {
        source: ends.destination,
        destination: ends.source,
        source_port: ends.destination_port,
        destination_port: ends.source_port,
    }
}
