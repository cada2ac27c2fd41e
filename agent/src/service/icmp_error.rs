//! ICMP and ICMPv6 errors (RFC 792, 1812 4.3, 4443) in a router's name, about packets whose TTL ran out or that are
//! larger than the MTU of the network they were to leave by.
//!
//! Guarantees: the error goes back to where the packet came from, from the router address that its sender sees; none is
//! sent about what RFC 1812 4.3.2.7 and RFC 4443 2.4 (e) exclude (that is `weft_wire::frame::icmp_error`'s part).

use super::{Action, Place, ServiceCounters, network_of};
use std::net::IpAddr;
use weft_model::{HostSnapshot, MacAddress, NetworkId, RouterAddress, eui64_link_local};
use weft_wire::frame::IcmpError;
use weft_wire::{ethernet, ethernet::ethertype, frame, ipv4, ipv6};

/// The packet as it came in.
struct About<'a> {
    frame: &'a [u8],
    sender_mac: MacAddress,
    router_mac: MacAddress,
    source: IpAddr,
}

/// The error about a frame that came from `place`, if one may be sent.
pub fn answer(
    snapshot: &HostSnapshot,
    place: Place,
    frame: &[u8],
    what: IcmpError,
    counters: &mut ServiceCounters,
) -> Option<Action> {
    let answer = error(snapshot, place, frame, what);
    match answer {
        Some(frame) => {
            counters.icmp_errors += 1;
            Some(Action::Send { to: place, frame })
        }
        None => {
            counters.icmp_errors_withheld += 1;
            None
        }
    }
}

fn error(snapshot: &HostSnapshot, place: Place, bytes: &[u8], what: IcmpError) -> Option<Vec<u8>> {
    let about = About::parse(bytes)?;
    let network_id = network_of(snapshot, place)?;
    let addresses = router_at(snapshot, network_id, about.router_mac)?;
    let source = address(addresses, snapshot, &about)?;
    let link = frame::Link {
        source: about.router_mac.0,
        destination: about.sender_mac.0,
    };
    frame::icmp_error(link, source, what, about.frame)
}

impl<'a> About<'a> {
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let ethernet = ethernet::Frame::new_checked(frame).ok()?;
        let packet = ethernet.payload();
        let source: IpAddr = match ethernet.ethertype() {
            ethertype::IPV4 => ipv4::Packet::new_header_checked(packet)
                .ok()?
                .source()
                .into(),
            ethertype::IPV6 => ipv6::Packet::new_header_checked(packet)
                .ok()?
                .source()
                .into(),
            _ => return None,
        };
        Some(Self {
            frame,
            sender_mac: MacAddress(ethernet.source()),
            router_mac: MacAddress(ethernet.destination()),
            source,
        })
    }
}

/// The addresses of the router that answers to a MAC address on a network. A floating IP's is its router's gateway.
fn router_at(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    mac: MacAddress,
) -> Option<&[RouterAddress]> {
    let at = |id: NetworkId, leg_mac: MacAddress| id == network_id && leg_mac == mac;
    for router in snapshot.routers.values() {
        if let Some(leg) = router
            .interfaces
            .iter()
            .find(|leg| at(leg.network_id, leg.mac_address))
        {
            return Some(&leg.addresses);
        }
        if let Some(leg) = &router.gateway
            && at(leg.network_id, leg.mac_address)
        {
            return Some(&leg.addresses);
        }
    }
    let whole = snapshot.floating_ips.values();
    let whole = whole.map(|ip| (ip.floating_network_id, ip.mac_address, ip.router_id));
    let by_ports = snapshot.forwarded_ips.values();
    let by_ports = by_ports.map(|ip| (ip.floating_network_id, ip.mac_address, ip.router_id));
    let mut all = whole.chain(by_ports);
    let (.., router_id) = all.find(|(network, mac, _)| at(*network, *mac))?;
    let router = snapshot.routers.get(&router_id)?;
    Some(&router.gateway.as_ref()?.addresses)
}

/// The router's address of the packet's family: the one in the sender's subnet if there is one, else the first, else
/// (v6) the link-local one.
fn address(
    addresses: &[RouterAddress],
    snapshot: &HostSnapshot,
    about: &About<'_>,
) -> Option<IpAddr> {
    let mut family = addresses
        .iter()
        .filter(|a| a.ip_address.is_ipv6() == about.source.is_ipv6());
    let near = |a: &&RouterAddress| {
        let subnet = snapshot.subnets.get(&a.subnet_id);
        subnet.is_some_and(|subnet| subnet.cidr.contains(&about.source))
    };
    let link_local = || {
        let v6 = about.source.is_ipv6();
        v6.then(|| eui64_link_local(about.router_mac).into())
    };
    family
        .clone()
        .find(near)
        .or(family.next())
        .map(|a| a.ip_address)
        .or_else(link_local)
}

#[cfg(test)]
#[path = "icmp_error_tests.rs"]
mod tests;
