//! Port security: what a guest may claim to be. docs/pipeline.md, section 2.
//!
//! Guarantees: behind it, source MAC and source address of a guest with port security are its own or of its allowed
//! pairs, and it is no DHCP server and no router. Assumes decode. Cost: the port's addresses, one after the other.

use super::Sight;
use super::decode::{Body, IpPacket, Packet};
use crate::mutant::Mutant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_model::{DropReason, MacAddress, Port, eui64_link_local};
use weft_wire::{arp, ndisc, protocol};

/// Judges a packet of a port with port security.
///
/// # Errors
/// The reason to drop it.
pub fn process(
    sight: &Sight<'_>,
    port: &Port,
    packet: &Packet,
    frame: &[u8],
) -> Result<(), DropReason> {
    if !is_mac_allowed(port, packet.source_mac) {
        return Err(DropReason::SpoofedMac);
    }
    match &packet.body {
        Body::Arp(arp) => arp_judge(sight, port, packet.source_mac, arp),
        Body::Ip(ip) if ip.is_later_fragment() => {
            if sight.has(Mutant::FragmentSource) {
                return Ok(());
            }
            let source = ip.tuple.source;
            let own = is_allowed(port, packet.source_mac, source)
                || is_own_link_local(packet.source_mac, source);
            if own {
                Ok(())
            } else {
                Err(DropReason::SpoofedIp)
            }
        }
        Body::Ip(ip) if ip.tuple.is_ipv6() => ipv6_judge(port, packet.source_mac, ip, frame),
        Body::Ip(ip) => ipv4_judge(port, packet.source_mac, ip),
    }
}

fn is_mac_allowed(port: &Port, mac: MacAddress) -> bool {
    port.mac_address == mac
        || port
            .allowed_address_pairs
            .iter()
            .any(|p| p.mac_address == mac)
}

/// Whether the port may use an address with this MAC.
fn is_allowed(port: &Port, mac: MacAddress, address: IpAddr) -> bool {
    let own = port.mac_address == mac && port.fixed_ips.iter().any(|f| f.ip_address == address);
    let pairs = &port.allowed_address_pairs;
    own || pairs
        .iter()
        .any(|p| p.mac_address == mac && p.ip_address.contains(&address))
}

fn is_own_link_local(mac: MacAddress, address: IpAddr) -> bool {
    address == IpAddr::V6(eui64_link_local(mac))
}

fn arp_judge(
    sight: &Sight<'_>,
    port: &Port,
    mac: MacAddress,
    arp: &arp::Repr,
) -> Result<(), DropReason> {
    let sender = arp.sender_ip;
    let honest = MacAddress(arp.sender_mac) == mac
        && (sender.is_unspecified()
            || is_allowed(port, mac, IpAddr::V4(sender))
            || sight.has(Mutant::ArpSender));
    if honest {
        Ok(())
    } else {
        Err(DropReason::SpoofedArp)
    }
}

fn ipv4_judge(port: &Port, mac: MacAddress, ip: &IpPacket) -> Result<(), DropReason> {
    let t = ip.tuple;
    if t.protocol == protocol::UDP {
        match (t.source_port, t.destination_port) {
            (67, 68) => return Err(DropReason::RogueDhcp),
            (68, 67)
                if t.source == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
                    && t.destination == IpAddr::V4(Ipv4Addr::BROADCAST) =>
            {
                return Ok(());
            }
            _ => {}
        }
    }
    if is_allowed(port, mac, t.source) {
        Ok(())
    } else {
        Err(DropReason::SpoofedIp)
    }
}

fn ipv6_judge(port: &Port, mac: MacAddress, ip: &IpPacket, frame: &[u8]) -> Result<(), DropReason> {
    let t = ip.tuple;
    let kind = ip.icmp.map(|(kind, _)| kind);
    if matches!(kind, Some(ndisc::ROUTER_ADVERTISEMENT | ndisc::REDIRECT)) {
        return Err(DropReason::RogueRa);
    }
    if t.protocol == protocol::UDP && (t.source_port, t.destination_port) == (547, 546) {
        return Err(DropReason::RogueDhcp);
    }
    let without_address = t.source == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        && matches!(kind, Some(131 | 132 | 133 | 135 | 143));
    if !is_allowed(port, mac, t.source) && !is_own_link_local(mac, t.source) && !without_address {
        return Err(DropReason::SpoofedIp);
    }
    if kind == Some(ndisc::NEIGHBOUR_ADVERTISEMENT)
        && let Ok(message) = ndisc::Neighbour::new_checked(&frame[ip.l4.clone()])
    {
        let target = IpAddr::V6(message.target());
        if !is_allowed(port, mac, target) && !is_own_link_local(mac, target) {
            return Err(DropReason::SpoofedNd);
        }
    }
    Ok(())
}
