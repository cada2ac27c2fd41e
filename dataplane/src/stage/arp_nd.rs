//! ARP and ND: answered here for every address that the host knows. docs/pipeline.md, section 3.
//!
//! Guarantees: an answer goes only back to where the question came from, and no ND or MLD packet gets further. Assumes
//! port security. Cost: everything in the snapshot is looked at.

use super::Sight;
use super::decode::{IpPacket, Packet};
use crate::mutant::Mutant;
use crate::topology::{self, Owner};
use std::net::{IpAddr, Ipv6Addr};
use weft_model::{DropReason, MacAddress, PortId, eui64_link_local};
use weft_wire::frame::{Link, neighbour_advertisement};
use weft_wire::{arp, ethernet, ndisc};

/// What becomes of an ARP or ND packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Dead.
    Drop(DropReason),
    /// Answered with this frame; from the uplink the agent gets a copy of the question.
    Reply(Vec<u8>),
    /// Out by the uplink as it is.
    Uplink,
    /// To a local port as it is.
    Deliver(PortId),
    /// To the agent: it tells a neighbour.
    Neighbour,
    /// To the agent: a guest says that an address is its own; on a physical network it goes out, too.
    Claim,
    /// To the agent: a router solicitation.
    RouterSolicitation,
    /// For everybody on the wire: copies, and the host's own; told the agent if it says something of a neighbour.
    Overheard {
        /// Whether it does.
        tells: bool,
    },
    /// The host's own.
    Pass,
}

impl Answer {
    /// The answer in words.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Drop(reason) => format!("no answer: {reason}"),
            Self::Reply(_) => "answered here".to_owned(),
            Self::Uplink => "nobody here: to the uplink".to_owned(),
            Self::Deliver(port) => format!("for port {port}"),
            Self::Neighbour => "tells the agent of a neighbour".to_owned(),
            Self::Claim => "the guest claims an address of its pairs".to_owned(),
            Self::RouterSolicitation => "for the agent: a router solicitation".to_owned(),
            Self::Overheard { .. } => "for everybody on the wire".to_owned(),
            Self::Pass => "not ours".to_owned(),
        }
    }
}

/// An ARP packet.
#[must_use]
pub fn process_arp(
    sight: &Sight<'_>,
    packet: &Packet,
    request: &arp::Repr,
    frame: &[u8],
) -> Answer {
    let target = IpAddr::V4(request.target_ip);
    let owner = find_owner(sight, target);
    let Some((_, port)) = sight.port else {
        let tells = request.sender_ip == request.target_ip;
        let answer = match (request.operation, owner) {
            (arp::REQUEST, Some(owner)) if !tells => {
                Answer::Reply(arp_reply(frame, request, owner))
            }
            (arp::REPLY, _) => told(sight, packet.destination_mac),
            _ => Answer::Pass,
        };
        return overheard(packet, answer, tells);
    };
    let own = port.fixed_ips.iter().any(|f| f.ip_address == target);
    let gratuitous = request.sender_ip == request.target_ip && !request.sender_ip.is_unspecified();
    if gratuitous && port.port_security_enabled && !own {
        return Answer::Claim;
    }
    if request.operation != arp::REQUEST || request.sender_ip == request.target_ip || own {
        return Answer::Drop(DropReason::ArpIgnored);
    }
    match owner {
        Some(owner) if is_asker(sight, &owner) => Answer::Drop(DropReason::ArpIgnored),
        Some(owner) => Answer::Reply(arp_reply(frame, request, owner)),
        None => unanswered(sight, DropReason::ArpUnanswered),
    }
}

fn find_owner(sight: &Sight<'_>, target: IpAddr) -> Option<Owner> {
    let asker = sight.port.map(|(id, _)| id);
    let local = topology::local_owner(sight.snapshot, sight.network_id, target, asker);
    match asker {
        Some(_) => {
            local.or_else(|| topology::remote_owner(sight.snapshot, sight.network_id, target))
        }
        None => local,
    }
}

/// What passes and was sent to everybody.
fn overheard(packet: &Packet, answer: Answer, tells: bool) -> Answer {
    match answer {
        Answer::Pass if packet.destination_mac.is_multicast() => Answer::Overheard { tells },
        answer => answer,
    }
}

/// Whether a guest asks for what it has claimed itself.
fn is_asker(sight: &Sight<'_>, owner: &Owner) -> bool {
    let asker = sight.port.map(|(id, _)| id);
    asker.is_some() && owner.claimant == asker
}

/// An ARP reply or NA from the uplink.
fn told(sight: &Sight<'_>, destination: MacAddress) -> Answer {
    if topology::is_router_mac(sight.snapshot, sight.network_id, destination) {
        return Answer::Neighbour;
    }
    match topology::port_by_mac(sight.snapshot, sight.network_id, destination) {
        Some(port)
            if sight
                .snapshot
                .ports
                .get(&port)
                .is_some_and(|p| topology::is_up(sight.snapshot, p)) =>
        {
            Answer::Deliver(port)
        }
        Some(_) => Answer::Drop(DropReason::DestinationPortDown),
        None => Answer::Pass,
    }
}

fn unanswered(sight: &Sight<'_>, reason: DropReason) -> Answer {
    if sight.is_physical() {
        Answer::Uplink
    } else {
        Answer::Drop(reason)
    }
}

fn arp_reply(frame: &[u8], request: &arp::Repr, owner: Owner) -> Vec<u8> {
    let source = ethernet::Frame::new_checked(frame)
        .map(|f| f.source())
        .unwrap_or_default();
    let reply = arp::Repr {
        operation: arp::REPLY,
        sender_mac: owner.mac.0,
        sender_ip: request.target_ip,
        target_mac: request.sender_mac,
        target_ip: request.sender_ip,
    };
    let mut bytes = reply.emit().to_vec();
    bytes.extend(&frame[ethernet::HEADER_BYTES + arp::PACKET_BYTES..]);
    let ethertype = ethernet::ethertype::ARP;
    ethernet::Repr {
        source: owner.mac.0,
        destination: source,
        ethertype,
    }
    .emit(&bytes)
}

/// An IPv6 packet; none if it is neither ND nor MLD.
#[must_use]
pub fn process_nd(
    sight: &Sight<'_>,
    packet: &Packet,
    ip: &IpPacket,
    frame: &[u8],
) -> Option<Answer> {
    let (kind, code) = ip.icmp.filter(|_| ip.tuple.is_ipv6())?;
    if !matches!(kind, 130..=137 | 143) {
        return None;
    }
    if sight.is_tunnel() {
        return Some(Answer::Drop(DropReason::NdIgnored));
    }
    let uplink = sight.port.is_none();
    let message = &frame[ip.l4.clone()];
    let neighbour = ndisc::Neighbour::new_checked(message);
    let crossed_router = ip.ttl != ndisc::HOP_LIMIT && !sight.has(Mutant::NdHopLimit);
    let wrong = crossed_router || code != 0 || (matches!(kind, 135 | 136) && neighbour.is_err());
    let answer = match (kind, neighbour) {
        (133..=137, _) if wrong && uplink => return Some(Answer::Pass),
        (133..=137, _) if wrong => Answer::Drop(DropReason::Malformed),
        (ndisc::NEIGHBOUR_SOLICITATION, Ok(question))
            if uplink && question.target().is_multicast() =>
        {
            return Some(Answer::Pass);
        }
        (ndisc::NEIGHBOUR_SOLICITATION, Ok(question)) => {
            nd_solicited(sight, packet, ip, question.target())
        }
        (ndisc::NEIGHBOUR_ADVERTISEMENT, _) if uplink => told(sight, packet.destination_mac),
        (_, _) if uplink => Answer::Pass,
        (ndisc::NEIGHBOUR_ADVERTISEMENT, Ok(said)) if claims(sight, &said) => Answer::Claim,
        (ndisc::ROUTER_SOLICITATION, _) if announces(sight) => Answer::RouterSolicitation,
        (ndisc::ROUTER_SOLICITATION, _) => unanswered(sight, DropReason::ServiceOff),
        (_, _) => Answer::Drop(DropReason::NdIgnored),
    };
    Some(match kind {
        133..=137 => overheard(packet, answer, kind == ndisc::NEIGHBOUR_ADVERTISEMENT),
        _ => answer,
    })
}

/// Whether an NA of a guest says that an address of its pairs is its own.
fn claims<T: AsRef<[u8]>>(sight: &Sight<'_>, said: &ndisc::Neighbour<T>) -> bool {
    let (solicited, target) = (said.flags() & ndisc::FLAG_SOLICITED != 0, said.target());
    sight.port.is_some_and(|(_, port)| {
        let mut fixed = port.fixed_ips.iter();
        let own = fixed.any(|f| f.ip_address == IpAddr::V6(target))
            || target == eui64_link_local(port.mac_address);
        port.port_security_enabled && !solicited && !own && !target.is_multicast()
    })
}

fn nd_solicited(sight: &Sight<'_>, packet: &Packet, ip: &IpPacket, target: Ipv6Addr) -> Answer {
    let address = IpAddr::V6(target);
    if let Some((_, port)) = sight.port {
        if target.is_multicast() {
            return Answer::Drop(DropReason::Malformed);
        }
        let own = port.fixed_ips.iter().any(|f| f.ip_address == address);
        if own || target == eui64_link_local(port.mac_address) {
            return Answer::Drop(DropReason::NdIgnored);
        }
    }
    match (find_owner(sight, address), ip.tuple.source) {
        (Some(owner), _) if is_asker(sight, &owner) => Answer::Drop(DropReason::NdIgnored),
        (Some(owner), IpAddr::V6(asker)) => {
            Answer::Reply(nd_reply(packet.source_mac, asker, target, owner))
        }
        (_, _) if sight.port.is_none() => Answer::Pass,
        (_, _) => unanswered(sight, DropReason::NdUnanswered),
    }
}

fn nd_reply(asker_mac: MacAddress, asker: Ipv6Addr, target: Ipv6Addr, owner: Owner) -> Vec<u8> {
    let mut flags = ndisc::FLAG_OVERRIDE | if owner.router { ndisc::FLAG_ROUTER } else { 0 };
    let (destination, destination_mac) = if asker.is_unspecified() {
        (ndisc::ALL_NODES, ethernet::ipv6_multicast(ndisc::ALL_NODES))
    } else {
        flags |= ndisc::FLAG_SOLICITED;
        (asker, asker_mac.0)
    };
    let link = Link {
        source: owner.mac.0,
        destination: destination_mac,
    };
    let advertisement = ndisc::NeighbourRepr {
        kind: ndisc::NEIGHBOUR_ADVERTISEMENT,
        flags,
        target,
        mac: Some(owner.mac.0),
    };
    neighbour_advertisement(link, target, destination, &advertisement)
}

/// Whether a router of ours sends router advertisements on the packet's network.
fn announces(sight: &Sight<'_>) -> bool {
    let snapshot = sight.snapshot;
    snapshot
        .routers
        .values()
        .filter(|r| r.admin_state_up)
        .flat_map(|r| &r.interfaces)
        .filter(|i| i.network_id == sight.network_id)
        .flat_map(|i| &i.addresses)
        .filter_map(|a| snapshot.subnets.get(&a.subnet_id))
        .any(|s| s.cidr.addr().is_ipv6() && s.ipv6_ra_mode.is_some())
}
