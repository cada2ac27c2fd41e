//! Transit: what hosts hand each other of an external network that they share. docs/pipeline.md, section 8.
//!
//! Guarantees: what came from another host is handed on at most once more, and only if that host left it to this one where
//! to; so nothing circles. Assumes decode. Cost: the routers and floating IPs of the snapshot.

use super::decode::{IcmpKind, IpPacket, has_ports, is_icmp};
use super::icmp_error::{self, Inside};
use super::router::{Target, longest_prefix};
use super::{Sight, floating_ip, nat, tunnel};
use crate::flow::key::Tuple;
use crate::flow::session::{ByTransit, Tunnel};
use crate::topology::{self, Found, Owner};
use crate::walk::Neighbours;
use std::net::IpAddr;
use weft_model::{
    DropReason, HostName, HostSnapshot, MacAddress, NetworkId, Router, RouterGateway, RouterId,
};

/// The tunnel of a network's transit to a host.
///
/// # Errors
/// There is none.
pub fn to_host(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    host: &HostName,
) -> Result<Tunnel, DropReason> {
    tunnel::transit_to_host(snapshot, network_id, host).ok_or(DropReason::TunnelUnsupported)
}

/// Whether frames to a network's outside leave by this host's own interface.
#[must_use]
pub fn has_uplink(snapshot: &HostSnapshot, network_id: NetworkId) -> bool {
    let network = snapshot.networks.get(&network_id);
    network.is_some_and(|n| n.transit.is_none_or(|transit| transit.uplink))
}

/// A destination of another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere<'a> {
    /// Whose it is.
    pub host: &'a HostName,
    /// The MAC address that answers for it outside, if it is one of the network itself.
    pub mac: Option<MacAddress>,
}

/// The packet inside, if it is an ICMP error that 4b can read.
#[must_use]
pub fn quoted(frame: &[u8], ip: &IpPacket) -> Option<Inside> {
    let error = ip.icmp_kind() == Some(IcmpKind::Error);
    icmp_error::inside(frame, ip).filter(|_| error)
}

/// The port that tells whose a packet is.
#[must_use]
pub fn port_of(tuple: Tuple, inside: Option<&Inside>) -> u16 {
    inside.map_or(tuple.destination_port, |inside| inside.tuple.source_port)
}

/// Whose an address of the network is, by the address and the port alone.
#[must_use]
pub fn whose_address<'a>(
    snapshot: &'a HostSnapshot,
    network_id: NetworkId,
    (protocol, address, port): (u8, IpAddr, u16),
) -> Option<Elsewhere<'a>> {
    snapshot.networks.get(&network_id)?.transit?;
    let floating = whose_floating(snapshot, network_id, (protocol, address, port));
    if let Some((host, mac)) = floating {
        let mac = Some(mac);
        return Some(Elsewhere { host, mac });
    }
    let router = snapshot.routers.values().find(|router| {
        let gateway = router.gateway.as_ref();
        gateway.is_some_and(|g| g.network_id == network_id)
            && topology::snat_address(router).map(IpAddr::V4) == Some(address)
    })?;
    let gateway = router.gateway.as_ref()?;
    let v6 = address.is_ipv6();
    let host = if has_ports(protocol) || is_icmp(v6, protocol) {
        let mut others = gateway.snat_port_blocks_elsewhere.iter();
        others
            .find(|(_, block)| block.contains(port))
            .map(|(host, _)| host)
    } else {
        portless(gateway)
    };
    Some(Elsewhere {
        host: host?,
        mac: Some(gateway.mac_address),
    })
}

/// The host that a floating IP leads to, or one of its ports, and the MAC address that answers for it.
#[must_use]
pub fn whose_floating(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    (protocol, address, port): (u8, IpAddr, u16),
) -> Option<(&HostName, MacAddress)> {
    if let Some(floating) = topology::remote_floating_ip(snapshot, network_id, address) {
        return Some((&floating.host, floating.mac_address));
    }
    let forwarded = topology::forwarded_ip(snapshot, network_id, address)?;
    let host = floating_ip::forwarded_host(forwarded, protocol, port)?;
    Some((host, forwarded.mac_address))
}

fn portless(gateway: &RouterGateway) -> Option<&HostName> {
    let others = gateway.snat_port_blocks_elsewhere.iter();
    let first = others.min_by_key(|(_, block)| block.first);
    first
        .filter(|_| !gateway.has_portless())
        .map(|(host, _)| host)
}

/// Whose a destination is, if it is another host's.
#[must_use]
pub fn whose<'a>(
    sight: &Sight<'a>,
    router: &Router,
    (protocol, address, port): (u8, IpAddr, u16),
) -> Option<Elsewhere<'a>> {
    let snapshot = sight.snapshot;
    snapshot.networks.get(&sight.network_id)?.transit?;
    let known = whose_address(snapshot, sight.network_id, (protocol, address, port));
    if known.is_some() {
        return known;
    }
    let own = topology::is_interface_address(router, address)
        || topology::is_gateway_address(router, address);
    if own || nat::hides(sight, router, address) {
        return None;
    }
    let Some(Target::Inside(interface, next_hop)) = longest_prefix(sight, router, address, false)
    else {
        return None;
    };
    let network_id = interface.network_id;
    let Some(Found::Remote(remote)) = topology::port_by_address(snapshot, network_id, next_hop)
    else {
        return None;
    };
    Some(Elsewhere {
        host: &remote.host,
        mac: None,
    })
}

/// Where an ICMP error from the uplink goes that no session is known for.
///
/// # Errors
/// No tunnel leads there.
pub fn error_relay(
    sight: &Sight<'_>,
    destination_mac: MacAddress,
    ip: &IpPacket,
    inside: Option<&Inside>,
) -> Result<Option<Tunnel>, DropReason> {
    let about = sight.is_uplink() && ip.icmp_kind() == Some(IcmpKind::Error);
    if !about || sight.tag.is_some() {
        return Ok(None);
    }
    let router = topology::router_by_outside(sight.snapshot, sight.network_id, destination_mac);
    let Some((_, router)) = router.filter(|(_, router)| router.admin_state_up) else {
        return Ok(None);
    };
    let Some(inside) = inside else {
        return Ok(None);
    };
    let about = inside.tuple;
    let port = port_of(ip.tuple, Some(inside));
    let end = (about.protocol, ip.tuple.destination, port);
    let Some(to) = whose(sight, router, end) else {
        return Ok(None);
    };
    to_host(sight.snapshot, sight.network_id, to.host).map(Some)
}

/// How a session that entered from a physical network sends its replies there, if not by the uplink.
///
/// # Errors
/// No tunnel leads there.
pub fn back(
    sight: &Sight<'_>,
    tuple: Tuple,
    [source_mac, destination_mac]: [MacAddress; 2],
) -> Result<Option<ByTransit>, DropReason> {
    let (snapshot, network_id) = (sight.snapshot, sight.network_id);
    let source = topology::router_by_outside(snapshot, network_id, source_mac);
    let end = (tuple.protocol, tuple.source, tuple.source_port);
    if let Some(to) = source.and_then(|(_, router)| whose(sight, router, end)) {
        let tunnel = to_host(snapshot, network_id, to.host)?;
        return Ok(Some(ByTransit {
            tunnel,
            resolved: true,
        }));
    }
    if has_uplink(snapshot, network_id) {
        return Ok(None);
    }
    let router = topology::router_by_outside(snapshot, network_id, destination_mac);
    let (_, router) = router.ok_or(DropReason::TunnelUnsupported)?;
    to_gateway_host(snapshot, router).map(Some)
}

/// To the host that answers for a router outside.
///
/// # Errors
/// There is none, or no tunnel leads there.
pub fn to_gateway_host(snapshot: &HostSnapshot, router: &Router) -> Result<ByTransit, DropReason> {
    let gateway = router.gateway.as_ref().ok_or(DropReason::NoRoute)?;
    let host = gateway.gateway_host.as_ref();
    let host = host.ok_or(DropReason::TunnelUnsupported)?;
    Ok(ByTransit {
        tunnel: to_host(snapshot, gateway.network_id, host)?,
        resolved: false,
    })
}

/// What becomes of a frame that another host left to this one, to bring it outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// With this destination MAC to another host.
    Relay(MacAddress, Tunnel),
    /// With this destination MAC it is for this host.
    Here(MacAddress),
    /// With this destination MAC out by the uplink; zero: this neighbour is not known yet.
    Uplink(MacAddress, IpAddr),
}

/// Resolves such a frame.
///
/// # Errors
/// The reason to drop it.
pub fn outbound(
    sight: &Sight<'_>,
    source_mac: MacAddress,
    ip: &IpPacket,
    inside: Option<&Inside>,
    neighbours: &Neighbours,
) -> Result<Outbound, DropReason> {
    let (snapshot, network_id) = (sight.snapshot, sight.network_id);
    if !has_uplink(snapshot, network_id) {
        return Err(DropReason::DestinationMacUnknown);
    }
    let (_, router): (RouterId, &Router) =
        topology::router_by_outside(snapshot, network_id, source_mac)
            .ok_or(DropReason::RogueSource)?;
    if !router.admin_state_up {
        return Err(DropReason::RouterDown);
    }
    let Tuple {
        source,
        destination,
        ..
    } = ip.tuple;
    if topology::is_never_routed(source) || topology::is_never_routed(destination) {
        return Err(DropReason::LinkLocalNotRouted);
    }
    let Some(Target::Outside(next_hop)) = longest_prefix(sight, router, destination, true) else {
        return Err(DropReason::NoRoute);
    };
    let protocol = inside.map_or(ip.tuple.protocol, |inside| inside.tuple.protocol);
    let end = (protocol, destination, port_of(ip.tuple, inside));
    if next_hop == destination
        && let Some(Elsewhere {
            host,
            mac: Some(mac),
        }) = whose_address(snapshot, network_id, end)
    {
        return Ok(Outbound::Relay(mac, to_host(snapshot, network_id, host)?));
    }
    let owner = topology::local_owner(snapshot, network_id, next_hop, None);
    if let Some(Owner { mac, .. }) = owner {
        return Ok(Outbound::Here(mac));
    }
    let mac = neighbours.get(&(network_id, next_hop)).copied();
    Ok(Outbound::Uplink(mac.unwrap_or_default(), next_hop))
}
