//! Whole frames from values: what the agent sends, and what tests throw at engines.
//!
//! Lengths and checksums are right; nothing else is checked, so that tests can build nonsense.

use crate::{
    Mac, arp, ethernet, ethernet::ethertype, icmpv4, icmpv6, ipv4, ipv6, ndisc, protocol, tcp, udp,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an IPv4 packet that carries an ICMP error at most (RFC 1812 4.3.2.3).
const ICMPV4_ERROR_BYTES_MAX: usize = 576;
/// Bytes of an IPv6 packet that carries an ICMPv6 error at most (RFC 4443 2.4 c).
const ICMPV6_ERROR_BYTES_MAX: usize = 1280;

/// The two MAC addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Source.
    pub source: Mac,
    /// Destination.
    pub destination: Mac,
}

/// The IP header's part of a frame. Both addresses must be of one family; if not, the source's family is taken and
/// the destination becomes unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
}

impl Ip {
    /// With TTL 64.
    #[must_use]
    pub fn new(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            ttl: 64,
        }
    }

    /// The same with another TTL.
    #[must_use]
    pub fn with_ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }
}

/// A frame with an IP packet of any protocol.
#[must_use]
pub fn ip(link: Link, ip: Ip, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (ethertype, packet) = match (ip.source, ip.destination) {
        (IpAddr::V4(source), destination) => {
            let destination = match destination {
                IpAddr::V4(a) => a,
                IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
            };
            let header = ipv4::Repr {
                ttl: ip.ttl,
                ..ipv4::Repr::new(source, destination, protocol)
            };
            (ethertype::IPV4, header.emit(payload))
        }
        (IpAddr::V6(source), destination) => {
            let destination = match destination {
                IpAddr::V6(a) => a,
                IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
            };
            let header = ipv6::Repr {
                source,
                destination,
                next_header: protocol,
                hop_limit: ip.ttl,
            };
            (ethertype::IPV6, header.emit(payload))
        }
    };
    ethernet::Repr {
        source: link.source,
        destination: link.destination,
        ethertype,
    }
    .emit(&packet)
}

/// A frame with a UDP datagram.
#[must_use]
pub fn udp(link: Link, addresses: Ip, ports: udp::Repr, payload: &[u8]) -> Vec<u8> {
    let datagram = ports.emit(addresses.source, addresses.destination, payload);
    ip(link, addresses, protocol::UDP, &datagram)
}

/// A frame with a TCP segment.
#[must_use]
pub fn tcp(link: Link, addresses: Ip, segment: tcp::Repr, payload: &[u8]) -> Vec<u8> {
    let segment = segment.emit(addresses.source, addresses.destination, payload);
    ip(link, addresses, protocol::TCP, &segment)
}

/// Echo request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// A reply, or a request.
    pub reply: bool,
    /// Identifier.
    pub identifier: u16,
    /// Sequence number.
    pub sequence: u16,
}

/// A frame with an ICMP or ICMPv6 echo, by the source's family.
#[must_use]
pub fn echo(link: Link, addresses: Ip, echo: Echo, payload: &[u8]) -> Vec<u8> {
    match (addresses.source, addresses.destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let kind = if echo.reply {
                icmpv6::ECHO_REPLY
            } else {
                icmpv6::ECHO_REQUEST
            };
            let header = icmpv6::Repr::echo(kind, echo.identifier, echo.sequence);
            ip(
                link,
                addresses,
                protocol::ICMPV6,
                &header.emit(source, destination, payload),
            )
        }
        _ => {
            let kind = if echo.reply {
                icmpv4::ECHO_REPLY
            } else {
                icmpv4::ECHO_REQUEST
            };
            let header = icmpv4::Repr {
                kind,
                code: 0,
                identifier: echo.identifier,
                sequence: echo.sequence,
            };
            ip(link, addresses, protocol::ICMP, &header.emit(payload))
        }
    }
}

/// A frame with an ARP packet.
#[must_use]
pub fn arp(link: Link, packet: &arp::Repr) -> Vec<u8> {
    let Link {
        source,
        destination,
    } = link;
    ethernet::Repr {
        source,
        destination,
        ethertype: ethertype::ARP,
    }
    .emit(&packet.emit())
}

/// Asks the whole network who has `target`.
#[must_use]
pub fn arp_request(sender_mac: Mac, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Vec<u8> {
    let link = Link {
        source: sender_mac,
        destination: ethernet::BROADCAST,
    };
    let packet = arp::Repr {
        operation: arp::REQUEST,
        sender_mac,
        sender_ip,
        target_mac: [0; 6],
        target_ip,
    };
    arp(link, &packet)
}

/// Asks the solicited-node group who has `target` (RFC 4861 7.2.2).
#[must_use]
pub fn neighbour_solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let group = ndisc::solicited_node(target);
    let link = Link {
        source: mac,
        destination: ethernet::ipv6_multicast(group),
    };
    let told = if source.is_unspecified() {
        None
    } else {
        Some(mac)
    };
    let message = ndisc::NeighbourRepr {
        kind: ndisc::NEIGHBOUR_SOLICITATION,
        flags: 0,
        target,
        mac: told,
    };
    let addresses = Ip::new(source, group).with_ttl(ndisc::HOP_LIMIT);
    ip(
        link,
        addresses,
        protocol::ICMPV6,
        &message.emit(source, group),
    )
}

/// Tells `destination` that `target` is at `mac`; `flags` as in [`ndisc`].
#[must_use]
pub fn neighbour_advertisement(
    link: Link,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    advertisement: &ndisc::NeighbourRepr,
) -> Vec<u8> {
    let addresses = Ip::new(source, destination).with_ttl(ndisc::HOP_LIMIT);
    ip(
        link,
        addresses,
        protocol::ICMPV6,
        &advertisement.emit(source, destination),
    )
}

/// Asks for router advertisements (RFC 4861 4.1).
#[must_use]
pub fn router_solicitation(mac: Mac, source: Ipv6Addr) -> Vec<u8> {
    let destination = ndisc::ALL_ROUTERS;
    let link = Link {
        source: mac,
        destination: ethernet::ipv6_multicast(destination),
    };
    let header = icmpv6::Repr {
        kind: ndisc::ROUTER_SOLICITATION,
        code: 0,
        rest: [0; 4],
    };
    let body: &[u8] = if source.is_unspecified() {
        &[]
    } else {
        &[1, 1, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]]
    };
    let addresses = Ip::new(source, destination).with_ttl(ndisc::HOP_LIMIT);
    ip(
        link,
        addresses,
        protocol::ICMPV6,
        &header.emit(source, destination, body),
    )
}

/// A router advertisement.
#[must_use]
pub fn router_advertisement(
    link: Link,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    advertisement: &ndisc::RouterAdvertisement,
) -> Vec<u8> {
    let addresses = Ip::new(source, destination).with_ttl(ndisc::HOP_LIMIT);
    ip(
        link,
        addresses,
        protocol::ICMPV6,
        &advertisement.emit(source, destination),
    )
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// The TTL or hop limit ran out.
    TtlExceeded,
    /// The packet is larger than this MTU (bytes) and must not be fragmented here.
    MtuExceeded(u32),
}

/// The ICMP or ICMPv6 error about a frame, sent back to its sender from `source` (of the frame's family) at `link`.
///
/// None where RFC 1812 4.3.2.7 and RFC 4443 2.4 (e) forbid one: about an ICMP error, a later fragment, a packet to or
/// from a multicast, broadcast or unspecified address; and where the frame is no IP packet.
#[must_use]
pub fn icmp_error(link: Link, source: IpAddr, error: IcmpError, about: &[u8]) -> Option<Vec<u8>> {
    let frame = ethernet::Frame::new_checked(about).ok()?;
    if ethernet::is_multicast(frame.destination()) {
        return None;
    }
    match (frame.ethertype(), source) {
        (ethertype::IPV4, IpAddr::V4(source)) => icmpv4_error(link, source, error, frame.payload()),
        (ethertype::IPV6, IpAddr::V6(source)) => icmpv6_error(link, source, error, frame.payload()),
        _ => None,
    }
}

fn icmpv4_error(link: Link, source: Ipv4Addr, error: IcmpError, about: &[u8]) -> Option<Vec<u8>> {
    let packet = ipv4::Packet::new_header_checked(about).ok()?;
    let (from, to) = (packet.source(), packet.destination());
    let no_host =
        |a: Ipv4Addr| a.is_unspecified() || a.is_multicast() || a.is_broadcast() || a.is_loopback();
    if no_host(from) || no_host(to) || packet.fragment_offset() != 0 {
        return None;
    }
    let query = about
        .get(packet.header_bytes())
        .is_some_and(|kind| matches!(kind, 0 | 8 | 13..=18));
    if packet.protocol() == protocol::ICMP && !query {
        return None;
    }
    let (kind, code, sequence) = match error {
        IcmpError::TtlExceeded => (icmpv4::TIME_EXCEEDED, 0, 0),
        IcmpError::MtuExceeded(mtu) => {
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            (icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED, mtu)
        }
    };
    let room = ICMPV4_ERROR_BYTES_MAX - ipv4::HEADER_BYTES_MIN - icmpv4::HEADER_BYTES;
    let quoted = &about[..packet.total_length().min(room).min(about.len())];
    let message = icmpv4::Repr {
        kind,
        code,
        identifier: 0,
        sequence,
    }
    .emit(quoted);
    Some(ip(link, Ip::new(source, from), protocol::ICMP, &message))
}

fn icmpv6_error(link: Link, source: Ipv6Addr, error: IcmpError, about: &[u8]) -> Option<Vec<u8>> {
    let packet = ipv6::Packet::new_header_checked(about).ok()?;
    let (from, to) = (packet.source(), packet.destination());
    if from.is_unspecified() || from.is_multicast() || to.is_multicast() {
        return None;
    }
    let upper = packet.upper_layer(8).ok()?;
    let is_error = upper.protocol == protocol::ICMPV6
        && packet
            .payload()
            .get(upper.offset)
            .is_none_or(|kind| *kind < 128 || *kind == ndisc::REDIRECT);
    if is_error || upper.fragment.is_some_and(|f| f.offset != 0) {
        return None;
    }
    let (kind, rest) = match error {
        IcmpError::TtlExceeded => (icmpv6::TIME_EXCEEDED, [0; 4]),
        IcmpError::MtuExceeded(mtu) => (icmpv6::PACKET_TOO_BIG, mtu.to_be_bytes()),
    };
    let room = ICMPV6_ERROR_BYTES_MAX - ipv6::HEADER_BYTES - icmpv6::HEADER_BYTES;
    let length = ipv6::HEADER_BYTES + packet.payload_length();
    let message = icmpv6::Repr {
        kind,
        code: 0,
        rest,
    }
    .emit(source, from, &about[..length.min(room).min(about.len())]);
    Some(ip(link, Ip::new(source, from), protocol::ICMPV6, &message))
}
