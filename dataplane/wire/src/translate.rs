//! Rewriting addresses and ports with their checksums, in whole packets and in those that an ICMP error quotes.
//!
//! Checksums follow incrementally (RFC 1624 equation 3) and only from fields that change. UDP and UDP-Lite: 0 means
//! none and stays, a result of 0 becomes 0xffff. SCTP's CRC32c is not touched. What is cut off is left out.

use crate::bytes::{put, u16_at};
use crate::{checksum, icmpv4, ipv4, protocol};
use std::net::IpAddr;

/// Both ends of a packet. ICMP queries have their identifier as source port, replies as destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// What changes from one packet to another, as pairs of old and new bytes.
fn address_changes(from: &Endpoints, to: &Endpoints) -> (Vec<u8>, Vec<u8>) {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for (a, b) in [(from.source, to.source), (from.destination, to.destination)] {
        if a != b {
            old.extend(checksum::octets(a));
            new.extend(checksum::octets(b));
        }
    }
    (old, new)
}

/// Rewrites the addresses of an IP header, and IPv4's checksum. Bytes that hold no header stay.
pub fn addresses(packet: &mut [u8], to: &Endpoints) {
    match (to.source, to.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            if let Ok(mut header) = ipv4::Packet::new_header_checked(packet) {
                if header.source() != source {
                    header.set_source(source);
                }
                if header.destination() != destination {
                    header.set_destination(destination);
                }
            }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            if let Ok(mut header) = crate::ipv6::Packet::new_header_checked(packet) {
                header.set_source(source);
                header.set_destination(destination);
            }
        }
        _ => {}
    }
}

/// Where a protocol keeps its checksum, and whether the pseudo-header is part of it. ICMP exists in IPv4 only, ICMPv6 in
/// IPv6 only: elsewhere their numbers are protocols without ports.
fn checksum_place(number: u8, v6: bool) -> Option<(usize, bool)> {
    match number {
        protocol::TCP => Some((16, true)),
        protocol::UDP | protocol::UDP_LITE | protocol::DCCP => Some((6, true)),
        protocol::ICMP if !v6 => Some((2, false)),
        protocol::ICMPV6 if v6 => Some((2, true)),
        _ => None,
    }
}

/// Where ICMP keeps its identifier, by the ends' ports; nothing for messages without one.
fn identifier_change(message: &[u8], from: &Endpoints, to: &Endpoints) -> Option<(u16, u16)> {
    match message.first()? {
        0 | 14 | 16 | 18 | 129 => Some((from.destination_port, to.destination_port)),
        8 | 13 | 15 | 17 | 128 => Some((from.source_port, to.source_port)),
        _ => None,
    }
}

/// Rewrites the ports of a layer-4 message and its checksum, which covers both ends' addresses.
pub fn transport(number: u8, message: &mut [u8], from: &Endpoints, to: &Endpoints) {
    let Some((at, pseudo_header)) = checksum_place(number, to.source.is_ipv6()) else {
        if number == protocol::SCTP && message.len() >= 4 {
            put(message, 0, to.source_port.to_be_bytes());
            put(message, 2, to.destination_port.to_be_bytes());
        }
        return;
    };
    let (mut old, mut new) = if pseudo_header {
        address_changes(from, to)
    } else {
        Default::default()
    };
    let icmp = matches!(number, protocol::ICMP | protocol::ICMPV6);
    let ports = if icmp {
        let change =
            identifier_change(message, from, to).filter(|_| message.len() >= icmpv4::HEADER_BYTES);
        change
            .map(|(a, b)| (4, a, b))
            .into_iter()
            .collect::<Vec<_>>()
    } else {
        vec![
            (0, from.source_port, to.source_port),
            (2, from.destination_port, to.destination_port),
        ]
    };
    for (place, a, b) in ports {
        if a != b && message.len() >= place + 2 {
            put(message, place, b.to_be_bytes());
            old.extend(a.to_be_bytes());
            new.extend(b.to_be_bytes());
        }
    }
    if old.is_empty() || message.len() < at + 2 {
        return;
    }
    let udp = matches!(number, protocol::UDP | protocol::UDP_LITE);
    let before = u16_at(message, at);
    if udp && before == 0 {
        return;
    }
    let after = match checksum::update(before, &old, &new) {
        0 if udp => 0xffff,
        sum => sum,
    };
    put(message, at, after.to_be_bytes());
}

/// Writes an ICMP message's checksum anew from what its quoted packet was and is; both of equal length. An odd last
/// byte counts as if padded with zero.
pub fn icmp_quote_changed(message: &mut [u8], before: &[u8]) {
    let (Some(sum), Some(after)) = (message.get(2..4), message.get(icmpv4::HEADER_BYTES..)) else {
        return;
    };
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for (a, b) in before.chunks(2).zip(after.chunks(2)) {
        if a != b {
            old.extend([a[0], a.get(1).copied().unwrap_or_default()]);
            new.extend([b[0], b.get(1).copied().unwrap_or_default()]);
        }
    }
    if !old.is_empty() {
        let sum = checksum::update(u16::from_be_bytes([sum[0], sum[1]]), &old, &new);
        put(message, 2, sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp;
    use std::net::Ipv4Addr;

    fn ends(source: [u8; 4], source_port: u16) -> Endpoints {
        Endpoints {
            source: Ipv4Addr::from(source).into(),
            destination: Ipv4Addr::new(203, 0, 113, 50).into(),
            source_port,
            destination_port: 53,
        }
    }

    fn datagram(ends: &Endpoints) -> Vec<u8> {
        udp::Repr {
            source_port: ends.source_port,
            destination_port: ends.destination_port,
        }
        .emit(ends.source, ends.destination, b"question")
    }

    #[test]
    fn a_translated_datagram_is_as_if_sent_so() {
        let (from, to) = (ends([192, 0, 2, 11], 1000), ends([203, 0, 113, 10], 50_000));
        let mut message = datagram(&from);
        transport(protocol::UDP, &mut message, &from, &to);
        assert_eq!(message, datagram(&to));
    }

    #[test]
    fn a_datagram_without_checksum_stays_without() {
        let (from, to) = (ends([192, 0, 2, 11], 1000), ends([203, 0, 113, 10], 50_000));
        let mut message = datagram(&from);
        message[6..8].fill(0);
        transport(protocol::UDP, &mut message, &from, &to);
        assert_eq!(
            (&message[..2], &message[6..8]),
            (&50_000u16.to_be_bytes()[..], &[0u8, 0][..])
        );
    }

    #[test]
    fn a_cut_segment_gets_its_ports_only() {
        let (from, to) = (ends([192, 0, 2, 11], 1000), ends([203, 0, 113, 10], 50_000));
        let mut message = vec![0x03, 0xe8, 0, 53, 1, 2, 3, 4];
        transport(protocol::TCP, &mut message, &from, &to);
        assert_eq!(message, [0xc3, 0x50, 0, 53, 1, 2, 3, 4]);
    }
}
