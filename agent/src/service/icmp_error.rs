//! ICMP and ICMPv6 errors (RFC 792, 1812 4.3, 4443) in a router's name, about packets whose TTL ran out or that are
//! larger than the MTU of the network they were to leave by.
//!
//! Guarantees: the error goes back to where the packet came from, from the router address that its sender sees; none is
//! sent about what RFC 1812 4.3.2.7 and RFC 4443 2.4 (e) exclude (that is `weft_wire::frame::icmp_error`'s part).
//!
//! The MTU told is that of the network to which the route leads; where translation hides the destination, the smallest
//! of the router's inner networks.

use super::{Action, Place, ServiceCounters, network_of};
use std::net::IpAddr;
use weft_model::{
    HostSnapshot, MacAddress, NetworkId, Router, RouterAddress, RouterId, eui64_link_local,
};
use weft_wire::{ethernet, ethernet::ethertype, frame, ipv4, ipv6};

/// What happened to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its TTL or hop limit ran out.
    TtlExceeded,
    /// It was too large for the way out.
    MtuExceeded,
}

/// The packet as it came in.
struct About<'a> {
    frame: &'a [u8],
    sender_mac: MacAddress,
    router_mac: MacAddress,
    source: IpAddr,
    destination: IpAddr,
}

/// The error about a frame that came from `place`, if one may be sent.
pub fn answer(
    snapshot: &HostSnapshot,
    place: Place,
    frame: &[u8],
    cause: Cause,
    counters: &mut ServiceCounters,
) -> Option<Action> {
    let answer = error(snapshot, place, frame, cause);
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

fn error(snapshot: &HostSnapshot, place: Place, bytes: &[u8], cause: Cause) -> Option<Vec<u8>> {
    let about = About::parse(bytes)?;
    let network_id = network_of(snapshot, place)?;
    let (router, addresses) = router_at(snapshot, network_id, about.router_mac)?;
    let source = address(addresses, snapshot, &about)?;
    let what = match cause {
        Cause::TtlExceeded => frame::IcmpError::TtlExceeded,
        Cause::MtuExceeded => frame::IcmpError::MtuExceeded(mtu(snapshot, router, &about)?),
    };
    let link = frame::Link {
        source: about.router_mac.0,
        destination: about.sender_mac.0,
    };
    frame::icmp_error(link, source, what, about.frame)
}

impl<'a> About<'a> {
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let ethernet = ethernet::Frame::new_checked(frame).ok()?;
        let (source, destination): (IpAddr, IpAddr) = match ethernet.ethertype() {
            ethertype::IPV4 => {
                let packet = ipv4::Packet::new_header_checked(ethernet.payload()).ok()?;
                (packet.source().into(), packet.destination().into())
            }
            ethertype::IPV6 => {
                let packet = ipv6::Packet::new_header_checked(ethernet.payload()).ok()?;
                (packet.source().into(), packet.destination().into())
            }
            _ => return None,
        };
        Some(Self {
            frame,
            sender_mac: MacAddress(ethernet.source()),
            router_mac: MacAddress(ethernet.destination()),
            source,
            destination,
        })
    }
}

/// The router that answers to a MAC address on a network, and its addresses there. A floating IP's is its router's
/// gateway.
fn router_at(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    mac: MacAddress,
) -> Option<(&Router, &[RouterAddress])> {
    let at = |id: NetworkId, leg_mac: MacAddress| id == network_id && leg_mac == mac;
    for router in snapshot.routers.values() {
        if let Some(leg) = router
            .interfaces
            .iter()
            .find(|leg| at(leg.network_id, leg.mac_address))
        {
            return Some((router, &leg.addresses));
        }
        if let Some(leg) = &router.gateway
            && at(leg.network_id, leg.mac_address)
        {
            return Some((router, &leg.addresses));
        }
    }
    let floating_ip = snapshot
        .floating_ips
        .values()
        .find(|ip| at(ip.floating_network_id, ip.mac_address))?;
    let router = gateway_of(snapshot, floating_ip.router_id)?;
    Some((router, &router.gateway.as_ref()?.addresses))
}

fn gateway_of(snapshot: &HostSnapshot, router_id: RouterId) -> Option<&Router> {
    snapshot.routers.get(&router_id)
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

/// The MTU of the network that the packet was to leave by.
fn mtu(snapshot: &HostSnapshot, router: &Router, about: &About<'_>) -> Option<u32> {
    let of = |id: NetworkId| snapshot.networks.get(&id).map(|network| network.mtu);
    let to = inner_destination(snapshot, about.destination);
    let gateway = router.gateway.as_ref();
    let to_the_gateway =
        gateway.is_some_and(|leg| leg.addresses.iter().any(|a| a.ip_address == to));
    if to_the_gateway {
        let inner = router
            .interfaces
            .iter()
            .filter_map(|leg| of(leg.network_id));
        return inner.min();
    }
    of(way_out(snapshot, router, to)?)
}

/// A floating IP's fixed address, else the address itself.
fn inner_destination(snapshot: &HostSnapshot, destination: IpAddr) -> IpAddr {
    let mut floating_ips = snapshot.floating_ips.values();
    floating_ips
        .find(|ip| IpAddr::from(ip.floating_ip_address) == destination)
        .map_or(destination, |ip| ip.fixed_ip_address.into())
}

/// The network of the longest matching prefix, as docs/pipeline.md (route 4) chooses it.
fn way_out(snapshot: &HostSnapshot, router: &Router, to: IpAddr) -> Option<NetworkId> {
    let connected = |to: IpAddr| {
        let legs = router
            .interfaces
            .iter()
            .flat_map(|leg| leg.addresses.iter().map(|a| (leg.network_id, a)));
        let gateway = router
            .gateway
            .iter()
            .flat_map(|leg| leg.addresses.iter().map(|a| (leg.network_id, a)));
        let mut best: Option<(u8, NetworkId)> = None;
        for (network_id, a) in legs.chain(gateway) {
            let Some(subnet) = snapshot.subnets.get(&a.subnet_id) else {
                continue;
            };
            let length = subnet.cidr.prefix_len();
            if subnet.cidr.contains(&to) && best.is_none_or(|(b, _)| length > b) {
                best = Some((length, network_id));
            }
        }
        best
    };
    let mut best = connected(to);
    for route in &router.routes {
        let length = route.destination.prefix_len();
        if route.destination.contains(&to) && best.is_none_or(|(b, _)| length > b) {
            best = connected(route.nexthop)
                .map(|(_, id)| (length, id))
                .or(best);
        }
    }
    best.map(|(_, id)| id)
        .or(router.gateway.as_ref().map(|leg| leg.network_id))
}

#[cfg(test)]
#[path = "icmp_error_tests.rs"]
mod tests;
