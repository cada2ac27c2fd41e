//! Deliver: the transformation applied to a frame's bytes. docs/pipeline.md, section 6.
//!
//! Guarantees: length and everything that the transformation does not name stay. Assumes that TTL and MTU were checked.
//! Cost: one copy of the frame.

use super::decode::IpPacket;
use crate::flow::key::Tuple;
use crate::flow::session::{Hop, Transformation};
use crate::mutant::Mutant;
use std::net::IpAddr;
use weft_wire::translate::{self, Endpoints};
use weft_wire::{ethernet, icmpv4, ipv4, ipv6, protocol};

/// The ends that a tuple speaks of.
#[must_use]
pub fn endpoints(tuple: Tuple) -> Endpoints {
    Endpoints {
        source: tuple.source,
        destination: tuple.destination,
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
    }
}

/// The frame behind a transformation.
#[must_use]
pub fn process(
    frame: &[u8],
    ip: &IpPacket,
    transformation: &Transformation,
    mutant: Option<Mutant>,
) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if let Some(hop) = &transformation.hop {
        link_rewrite(&mut bytes, ip.tuple.is_ipv6(), ip.ttl, hop, mutant);
    }
    if transformation.from == transformation.to {
        return bytes;
    }
    let (from, to) = (endpoints(transformation.from), endpoints(transformation.to));
    translate::addresses(&mut bytes[ethernet::HEADER_BYTES..], &to);
    if !ip.is_later_fragment() {
        let l4 = &mut bytes[ip.l4.clone()];
        let number = ip.tuple.protocol;
        if mutant == Some(Mutant::UdpZeroChecksum) && number == protocol::UDP && l4[6..8] == [0, 0]
        {
            l4[7] = 1;
        }
        translate::transport(number, l4, &from, &to);
    }
    bytes
}

/// Writes MACs and TTL.
pub fn link_rewrite(bytes: &mut [u8], v6: bool, ttl: u8, hop: &Hop, mutant: Option<Mutant>) {
    let Ok(mut frame) = ethernet::Frame::new_checked(bytes) else {
        return;
    };
    frame.set_source(hop.source_mac.0);
    frame.set_destination(hop.destination_mac.0);
    if mutant == Some(Mutant::Ttl) {
        return;
    }
    let ttl = ttl.saturating_sub(hop.ttl_decrement);
    if v6 {
        if let Ok(mut packet) = ipv6::Packet::new_header_checked(frame.payload_mut()) {
            packet.set_hop_limit(ttl);
        }
    } else if let Ok(mut packet) = ipv4::Packet::new_header_checked(frame.payload_mut()) {
        packet.set_ttl(ttl);
    }
}

/// The answer to an echo request, in place: MACs and addresses swapped, TTL 64.
#[must_use]
pub fn echo_reply(frame: &[u8], ip: &IpPacket) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if let Ok(mut link) = ethernet::Frame::new_checked(&mut bytes[..]) {
        let (source, destination) = (link.source(), link.destination());
        link.set_source(destination);
        link.set_destination(source);
    }
    let v6 = ip.tuple.is_ipv6();
    let packet = &mut bytes[ethernet::HEADER_BYTES..];
    match (ip.tuple.source, ip.tuple.destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            if let Ok(mut packet) = ipv6::Packet::new_header_checked(packet) {
                packet.set_source(destination);
                packet.set_destination(source);
                packet.set_hop_limit(64);
            }
        }
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            if let Ok(mut packet) = ipv4::Packet::new_header_checked(packet) {
                packet.set_source(destination);
                packet.set_destination(source);
                packet.set_ttl(64);
            }
        }
        _ => {}
    }
    icmpv4::set_kind(&mut bytes[ip.l4.clone()], if v6 { 129 } else { 0 });
    bytes
}
