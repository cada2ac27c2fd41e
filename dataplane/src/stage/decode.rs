//! Decode: frame to packet. docs/pipeline.md, section 1.
//!
//! Guarantees: headers up to layer 4 are whole; ports, ICMP type and TCP flags are those of the text. Assumes nothing.
//! Cost: one pass over the headers.

use crate::flow::key::{GuestVlan, Tuple};
use crate::flow::session::{Seen, Way};
use std::net::IpAddr;
use std::ops::Range;
use weft_model::limits::IPV6_EXTENSION_HEADERS_MAX;
use weft_model::{DropReason, MacAddress};
use weft_wire::ethernet::ethertype;
use weft_wire::{arp, ethernet, icmpv4, ipv4, ipv6, protocol, tcp, udp};

/// A decoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source MAC.
    pub source_mac: MacAddress,
    /// Destination MAC.
    pub destination_mac: MacAddress,
    /// What it carries.
    pub body: Body,
}

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// ARP.
    Arp(arp::Repr),
    /// IPv4 or IPv6.
    Ip(IpPacket),
}

/// Whether a packet is a fragment; with its identification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    Whole,
    /// The first fragment: has a layer 4.
    First(u32),
    /// A later one: has none.
    Later(u32),
}

/// What an ICMP type means for sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// Opens a session.
    Query,
    /// Belongs to one.
    Reply,
    /// Is about a packet of one.
    Error,
    /// None of these.
    Other,
}

/// A decoded IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// Its tuple.
    pub tuple: Tuple,
    /// Type and code, if it is ICMP of its family.
    pub icmp: Option<(u8, u8)>,
    /// TCP's flags, else 0.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes of the IP packet.
    pub ip_bytes: usize,
    /// Where layer 4 (or the later fragment's payload) lies in the frame.
    pub l4: Range<usize>,
    /// Whether it is a fragment.
    pub fragment: Fragment,
}

impl IpPacket {
    /// Whether it is a later fragment.
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        matches!(self.fragment, Fragment::Later(_))
    }

    /// What its ICMP type means.
    #[must_use]
    pub fn icmp_kind(&self) -> Option<IcmpKind> {
        self.icmp
            .map(|(kind, _)| icmp_kind(self.tuple.is_ipv6(), kind))
    }

    /// Whether it can be a packet of this direction of a session that an ICMP type opened (none: anything else opened it).
    #[must_use]
    pub fn belongs_to(&self, opener: Option<(u8, u8)>, way: Way) -> bool {
        match (self.icmp, opener, way) {
            (Some((kind, _)), Some((opener, _)), Way::Forward) => kind == opener,
            (Some((kind, _)), Some((opener, _)), Way::Reply) => {
                icmp_counterpart(self.tuple.is_ipv6(), kind) == opener
            }
            _ => true,
        }
    }

    /// What of it moves a session's state.
    #[must_use]
    pub fn seen(&self) -> Seen {
        match self.tuple.protocol {
            _ if self.is_later_fragment() => Seen::LaterFragment,
            protocol::TCP => Seen::Tcp(self.tcp_flags),
            _ => Seen::Other,
        }
    }

    /// Whether it is an echo request with a layer 4, or a later fragment of one.
    #[must_use]
    pub fn is_echo_request(&self) -> bool {
        self.icmp
            .is_some_and(|(kind, _)| is_echo_request(self.tuple.is_ipv6(), kind))
    }
}

/// Whether an ICMP type is that of an echo request.
#[must_use]
pub fn is_echo_request(v6: bool, kind: u8) -> bool {
    kind == if v6 { 128 } else { 8 }
}

/// What an ICMP type means, by family.
#[must_use]
pub fn icmp_kind(v6: bool, kind: u8) -> IcmpKind {
    match (v6, kind) {
        (false, 8 | 13 | 15 | 17) | (true, 128) => IcmpKind::Query,
        (false, 0 | 14 | 16 | 18) | (true, 129) => IcmpKind::Reply,
        (false, 3 | 11 | 12) | (true, 1..=4) => IcmpKind::Error,
        _ => IcmpKind::Other,
    }
}

/// The type of the answer to a query, of the query to an answer; of all others the type itself.
#[must_use]
pub fn icmp_counterpart(v6: bool, kind: u8) -> u8 {
    match (v6, kind) {
        (false, 8) => 0,
        (false, 0) => 8,
        (false, 13 | 15 | 17) | (true, 128) => kind + 1,
        (false, 14 | 16 | 18) | (true, 129) => kind - 1,
        _ => kind,
    }
}

/// Whether a protocol is ICMP in this family.
#[must_use]
pub fn is_icmp(v6: bool, number: u8) -> bool {
    number == if v6 { protocol::ICMPV6 } else { protocol::ICMP }
}

/// Whether a protocol's first four bytes are its ports.
#[must_use]
pub fn has_ports(number: u8) -> bool {
    matches!(
        number,
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP
    )
}

/// The ports and the ICMP type that a layer 4 of at least 8 bytes shows; 0 and none where there is nothing.
#[must_use]
pub fn ports(v6: bool, number: u8, l4: &[u8]) -> (u16, u16, Option<(u8, u8)>) {
    if is_icmp(v6, number)
        && let Ok(message) = icmpv4::Message::new_checked(l4)
    {
        let icmp = Some((message.kind(), message.code()));
        return match icmp_kind(v6, message.kind()) {
            IcmpKind::Query => (message.identifier(), 0, icmp),
            IcmpKind::Reply => (0, message.identifier(), icmp),
            IcmpKind::Error | IcmpKind::Other => (0, 0, icmp),
        };
    }
    match udp::Datagram::new_checked(l4) {
        Ok(l4) if has_ports(number) => (l4.source_port(), l4.destination_port(), None),
        _ => (0, 0, None),
    }
}

fn l4_bytes_min(v6: bool, number: u8) -> usize {
    match number {
        protocol::TCP => tcp::HEADER_BYTES_MIN,
        protocol::UDP | protocol::UDP_LITE => udp::HEADER_BYTES,
        protocol::SCTP | protocol::DCCP => 12,
        icmp if is_icmp(v6, icmp) => icmpv4::HEADER_BYTES,
        _ => 0,
    }
}

/// A frame's packet.
///
/// # Errors
/// The reason to drop it; from the uplink, such frames pass.
pub fn process(frame: &[u8]) -> Result<Packet, DropReason> {
    let malformed = |_| DropReason::Malformed;
    let ethernet = ethernet::Frame::new_checked(frame).map_err(malformed)?;
    let body = match ethernet.ethertype() {
        ethertype::VLAN | ethertype::SERVICE_VLAN => return Err(DropReason::VlanUnexpected),
        ethertype::ARP => {
            let packet = arp::Packet::new_checked(ethernet.payload()).map_err(malformed)?;
            Body::Arp(arp::Repr::parse(&packet))
        }
        ethertype::IPV4 => Body::Ip(ipv4_decode(ethernet.payload())?),
        ethertype::IPV6 => Body::Ip(ipv6_decode(ethernet.payload())?),
        _ => return Err(DropReason::EthertypeUnsupported),
    };
    Ok(Packet {
        source_mac: MacAddress(ethernet.source()),
        destination_mac: MacAddress(ethernet.destination()),
        body,
    })
}

fn ipv4_decode(bytes: &[u8]) -> Result<IpPacket, DropReason> {
    let packet = ipv4::Packet::new_checked(bytes).map_err(|_short| DropReason::Malformed)?;
    let identification = u32::from(packet.identification());
    let fragment = match (packet.fragment_offset(), packet.more_fragments()) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First(identification),
        (_, _) => Fragment::Later(identification),
    };
    let start = ethernet::HEADER_BYTES + packet.header_bytes();
    let found = IpPacket {
        tuple: Tuple {
            protocol: packet.protocol(),
            source: IpAddr::V4(packet.source()),
            destination: IpAddr::V4(packet.destination()),
            source_port: 0,
            destination_port: 0,
            vlan: GuestVlan::default(),
        },
        icmp: None,
        tcp_flags: 0,
        ttl: packet.ttl(),
        ip_bytes: packet.total_length(),
        l4: start..ethernet::HEADER_BYTES + packet.total_length(),
        fragment,
    };
    l4_decode(found, packet.payload())
}

fn ipv6_decode(bytes: &[u8]) -> Result<IpPacket, DropReason> {
    let packet = ipv6::Packet::new_checked(bytes).map_err(|_short| DropReason::Malformed)?;
    let upper = packet
        .upper_layer(IPV6_EXTENSION_HEADERS_MAX)
        .map_err(|error| match error {
            ipv6::WalkError::Refused => DropReason::Ipv6ExtensionHeaders,
            ipv6::WalkError::Malformed => DropReason::Malformed,
        })?;
    let fragment = match upper.fragment {
        None => Fragment::Whole,
        Some(f) if f.offset == 0 => Fragment::First(f.identification),
        Some(f) => Fragment::Later(f.identification),
    };
    let start = ethernet::HEADER_BYTES + ipv6::HEADER_BYTES;
    let found = IpPacket {
        tuple: Tuple {
            protocol: upper.protocol,
            source: IpAddr::V6(packet.source()),
            destination: IpAddr::V6(packet.destination()),
            source_port: 0,
            destination_port: 0,
            vlan: GuestVlan::default(),
        },
        icmp: None,
        tcp_flags: 0,
        ttl: packet.hop_limit(),
        ip_bytes: ipv6::HEADER_BYTES + packet.payload_length(),
        l4: start + upper.offset..start + packet.payload_length(),
        fragment,
    };
    l4_decode(found, &packet.payload()[upper.offset..])
}

fn l4_decode(mut packet: IpPacket, l4: &[u8]) -> Result<IpPacket, DropReason> {
    if packet.is_later_fragment() {
        return Ok(packet);
    }
    let (v6, number) = (packet.tuple.is_ipv6(), packet.tuple.protocol);
    if l4.len() < l4_bytes_min(v6, number) {
        return Err(DropReason::Malformed);
    }
    if number == protocol::TCP {
        let segment = tcp::Segment::new_checked(l4).map_err(|_short| DropReason::Malformed)?;
        packet.tcp_flags = segment.flags();
    }
    (
        packet.tuple.source_port,
        packet.tuple.destination_port,
        packet.icmp,
    ) = ports(v6, number, l4);
    Ok(packet)
}
