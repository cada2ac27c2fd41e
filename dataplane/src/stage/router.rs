//! Router: routes, next hops, hairpins, and what comes from outside. docs/pipeline.md, section 5.
//!
//! Guarantees: what leaves a router goes to a neighbour that the snapshot or the neighbour table knows, or to the uplink
//! unresolved. Assumes the bridge stage's choice of a router. Cost: all routes of the router.

use super::floating_ip::{self, Known};
use super::{Sight, nat, transit, tunnel};
use crate::flow::key::{Ingress, Tuple};
use crate::flow::session::{Back, ByTransit, Hop, Path, Tunnel};
use crate::mutant::Mutant;
use crate::topology::{self, Found, Scopes};
use crate::walk::{End, Walk};
use std::net::IpAddr;
use weft_model::{
    Direction, DropReason, MacAddress, NetworkId, Router, RouterId, RouterInterface, Stage,
};

/// Where a route leads.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// By an interface to this neighbour.
    Inside(&'a RouterInterface, IpAddr),
    /// By the gateway to this neighbour.
    Outside(IpAddr),
    /// Its next hop is in no connected subnet.
    Unreachable,
}

/// From a guest through a router.
///
/// # Errors
/// The reason to drop it.
pub fn route(walk: &mut Walk<'_>, id: RouterId, router: &Router) -> Result<End, DropReason> {
    let (sight, tuple) = (walk.sight, walk.opening.tuple);
    if topology::is_never_routed(tuple.source) || topology::is_never_routed(tuple.destination) {
        return Err(DropReason::LinkLocalNotRouted);
    }
    let own = topology::is_interface_address(router, tuple.destination)
        || topology::is_gateway_address(router, tuple.destination);
    if own {
        return echo(walk, DropReason::RouterLocalUnsupported);
    }
    let gateway_network = router.gateway.as_ref().map(|g| g.network_id);
    let anothers = sight.snapshot.routers.values().any(|other| {
        other.gateway.as_ref().map(|g| g.network_id) == gateway_network
            && topology::is_gateway_address(other, tuple.destination)
    });
    if anothers {
        return Err(DropReason::RouterLocalUnsupported);
    }
    let known = gateway_network
        .and_then(|network| floating_ip::find(sight.snapshot, network, tuple, sight.mutant));
    match known {
        Some(Known::Behind(behind)) => return floating_ip::hairpin(walk, id, router, &behind),
        Some(Known::Nowhere { answered: true }) => return echo(walk, DropReason::NatNoSession),
        _ => {}
    }
    match longest_prefix(&walk.sight, router, tuple.destination, true).ok_or(DropReason::NoRoute)? {
        Target::Inside(interface, next_hop) => inside(walk, interface, next_hop),
        Target::Outside(next_hop) => outside(walk, id, router, next_hop),
        Target::Unreachable => Err(DropReason::NoRoute),
    }
}

/// From outside, to a router's gateway or floating IP.
///
/// # Errors
/// The reason to drop it.
pub fn from_outside(walk: &mut Walk<'_>, id: RouterId, router: &Router) -> Result<End, DropReason> {
    let (sight, tuple) = (walk.sight, walk.opening.tuple);
    if !router.admin_state_up {
        return Err(DropReason::RouterDown);
    }
    if topology::is_never_routed(tuple.source) || topology::is_never_routed(tuple.destination) {
        return Err(DropReason::LinkLocalNotRouted);
    }
    let known = floating_ip::find(sight.snapshot, sight.network_id, tuple, sight.mutant);
    if let Some(Known::Behind(behind)) = &known {
        return floating_ip::enter(walk, behind);
    }
    let own = topology::is_interface_address(router, tuple.destination)
        || topology::is_gateway_address(router, tuple.destination);
    let proxied = router.ndp_proxies.is_none()
        || topology::is_proxied(router, tuple.destination)
        || sight.has(Mutant::NdpProxies);
    if tuple.is_ipv6() && !own && !proxied {
        return Err(DropReason::NdpProxyUnknown);
    }
    if let Some(end) = relay(walk, router)? {
        return Ok(end);
    }
    if !tuple.is_ipv6() {
        if known.is_some() || topology::is_gateway_address(router, tuple.destination) {
            return echo(walk, DropReason::NatNoSession);
        }
        if nat::hides(&sight, router, tuple.destination) {
            return Err(DropReason::NatPrivateDestination);
        }
    }
    if own {
        return echo(walk, DropReason::RouterLocalUnsupported);
    }
    match longest_prefix(&walk.sight, router, tuple.destination, false) {
        Some(Target::Inside(interface, next_hop)) => {
            let mut end = inside(walk, interface, next_hop)?;
            if let End::Path(path) = &mut end {
                path.gateway = Some((id, Direction::Ingress));
            }
            let circles = matches!(&end, End::Path(path) if path.tunnel.is_some());
            if circles && sight.transit {
                return Err(DropReason::NoRoute);
            }
            Ok(end)
        }
        _ => Err(DropReason::NoRoute),
    }
}

/// To another host, if what comes from outside is that one's.
fn relay(walk: &mut Walk<'_>, router: &Router) -> Result<Option<End>, DropReason> {
    let (sight, tuple) = (walk.sight, walk.opening.tuple);
    if sight.transit {
        return Ok(None);
    }
    let end = (tuple.protocol, tuple.destination, tuple.destination_port);
    let Some(to) = transit::whose(&sight, router, end) else {
        return Ok(None);
    };
    let tunnel = transit::to_host(sight.snapshot, sight.network_id, to.host)?;
    walk.say(
        Stage::Router,
        format!("{} is of host {}", tuple.destination, to.host),
    );
    if sight.port.is_none() {
        return Ok(Some(End::Relay(tunnel)));
    }
    let by = ByTransit {
        tunnel,
        resolved: true,
    };
    Ok(Some(End::Path(Path {
        transit: Some(by),
        ..Path::bridged(Ingress::Network(sight.network_id), tuple)
    })))
}

fn echo(walk: &mut Walk<'_>, otherwise: DropReason) -> Result<End, DropReason> {
    if walk.opening.echo_request && !walk.sight.transit {
        Ok(End::EchoReply)
    } else {
        Err(otherwise)
    }
}

/// The leg that a packet leaves a router by.
#[derive(Clone, Copy)]
struct Leg {
    source_mac: MacAddress,
    ttl_decrement: u8,
}

fn inside(
    walk: &mut Walk<'_>,
    interface: &RouterInterface,
    next_hop: IpAddr,
) -> Result<End, DropReason> {
    walk.say(
        Stage::Router,
        format!(
            "inside by the interface of port {} to {next_hop}",
            interface.port_id
        ),
    );
    let Tuple {
        source,
        destination,
        ..
    } = walk.opening.tuple;
    scopes_agree(walk, interface.network_id)?;
    let leg = Leg {
        source_mac: interface.mac_address,
        ttl_decrement: 1,
    };
    let near = neighbour(walk, interface.network_id, next_hop, &leg)?;
    Ok(End::Path(Path {
        output: near.output,
        hop: Some(near.hop),
        source,
        destination,
        destination_port: walk.opening.tuple.destination_port,
        snat: None,
        tunnel: near.tunnel,
        back: None,
        transit: None,
        gateway: None,
        accounts: [None; 2],
    }))
}

/// What is routed as it is stays in its address scope.
fn scopes_agree(walk: &Walk<'_>, to: NetworkId) -> Result<(), DropReason> {
    let networks = [walk.sight.network_id, to];
    let is_ipv6 = walk.opening.tuple.is_ipv6();
    let scopes = topology::scopes(walk.sight.snapshot, networks, is_ipv6);
    if scopes == Scopes::Differ && !walk.sight.has(Mutant::AddressScope) {
        return Err(DropReason::AddressScopeMismatch);
    }
    Ok(())
}

fn outside(
    walk: &mut Walk<'_>,
    id: RouterId,
    router: &Router,
    next_hop: IpAddr,
) -> Result<End, DropReason> {
    let gateway = router.gateway.as_ref().ok_or(DropReason::NoRoute)?;
    walk.say(
        Stage::Router,
        format!("outside by the gateway to {next_hop}"),
    );
    let seen = nat::source(&walk.sight, id, router, walk.opening.tuple)?;
    if seen.translated {
        walk.opener_test()?;
        let how = if seen.snat.is_some() {
            "SNAT"
        } else {
            "floating IP"
        };
        walk.say(
            Stage::Nat,
            format!("{how}: the source is seen as {}", seen.source),
        );
    } else {
        scopes_agree(walk, gateway.network_id)?;
    }
    let leg = Leg {
        source_mac: seen.source_mac,
        ttl_decrement: 1,
    };
    let near = neighbour_outside(walk, router, gateway.network_id, next_hop, &leg)?;
    Ok(End::Path(Path {
        output: near.output,
        hop: Some(near.hop),
        source: seen.source,
        destination: walk.opening.tuple.destination,
        destination_port: walk.opening.tuple.destination_port,
        snat: seen.snat,
        tunnel: near.tunnel,
        back: None,
        transit: near.transit,
        gateway: Some((id, Direction::Egress)),
        accounts: [seen.account, None],
    }))
}

/// Where a neighbour is, and how to get there.
struct Near {
    output: Ingress,
    hop: Hop,
    tunnel: Option<Tunnel>,
    transit: Option<ByTransit>,
}

/// A neighbour outside: as others, or by the network's transit.
fn neighbour_outside(
    walk: &Walk<'_>,
    router: &Router,
    network_id: NetworkId,
    address: IpAddr,
    leg: &Leg,
) -> Result<Near, DropReason> {
    let snapshot = walk.sight.snapshot;
    let near = neighbour(walk, network_id, address, leg)?;
    let shared = snapshot.networks.get(&network_id).and_then(|n| n.transit);
    if matches!(near.output, Ingress::Port(_)) || near.tunnel.is_some() || shared.is_none() {
        return Ok(near);
    }
    let Tuple {
        protocol,
        destination_port,
        ..
    } = walk.opening.tuple;
    let end = (protocol, address, destination_port);
    let (destination_mac, by) = match transit::whose_floating(snapshot, network_id, end) {
        Some((host, mac)) => {
            let tunnel = transit::to_host(snapshot, network_id, host)?;
            let resolved = true;
            (mac, ByTransit { tunnel, resolved })
        }
        None if transit::has_uplink(snapshot, network_id) => return Ok(near),
        None => {
            let by = transit::to_gateway_host(snapshot, router)?;
            (MacAddress([0; 6]), by)
        }
    };
    Ok(Near {
        hop: Hop {
            destination_mac,
            next_hop: None,
            mtu: near.hop.mtu.min(by.tunnel.mtu),
            ..near.hop
        },
        transit: Some(by),
        ..near
    })
}

fn neighbour(
    walk: &Walk<'_>,
    network_id: NetworkId,
    address: IpAddr,
    leg: &Leg,
) -> Result<Near, DropReason> {
    let snapshot = walk.sight.snapshot;
    let near = |output, destination_mac, next_hop| Near {
        output,
        hop: Hop {
            ttl_decrement: leg.ttl_decrement,
            source_mac: leg.source_mac,
            destination_mac,
            next_hop,
            mtu: topology::mtu(snapshot, network_id),
            reply_mtu: topology::mtu(snapshot, walk.sight.network_id),
        },
        tunnel: None,
        transit: None,
    };
    let uplink = Ingress::Network(network_id);
    match topology::port_by_address(snapshot, network_id, address) {
        Some(Found::Local(id, port)) => {
            return Ok(near(Ingress::Port(id), port.mac_address, None));
        }
        Some(Found::Remote(remote)) => {
            if !walk.sight.has(Mutant::PvlanRouted) {
                walk.together(network_id, remote.pvlan.as_ref())?;
            }
            let tunnel = tunnel::to_host(snapshot, network_id, &remote.host);
            return Ok(Near {
                tunnel: Some(tunnel.ok_or(DropReason::TunnelUnsupported)?),
                ..near(uplink, remote.mac_address, None)
            });
        }
        None => {}
    }
    if topology::is_physical(snapshot, network_id) {
        let mac = walk.neighbours.get(&(network_id, address)).copied();
        return Ok(near(uplink, mac.unwrap_or_default(), Some(address)));
    }
    Err(DropReason::NeighbourUnknown)
}

/// The way back of a packet that came out of a tunnel: to where its source MAC address is, or beyond that router.
///
/// # Errors
/// Nobody of this network has that MAC address, or the router does not lead to another host.
pub fn back(walk: &Walk<'_>) -> Result<Back, DropReason> {
    let (sight, opening) = (walk.sight, walk.opening);
    let (snapshot, mac) = (sight.snapshot, opening.opener.source_mac);
    let router = topology::router_by_interface(snapshot, sight.network_id, mac);
    let Some((_, router)) = router.filter(|_| opening.tuple.vlan.is_none()) else {
        let fits =
            |p: &weft_model::RemotePort| p.mac_address == mac || sight.has(Mutant::TunnelBack);
        let remote = topology::remote_port(snapshot, sight.network_id, fits);
        let host = &remote.ok_or(DropReason::RogueSource)?.host;
        let tunnel = tunnel::to_host(snapshot, sight.network_id, host);
        return Ok(Back {
            tunnel: tunnel.ok_or(DropReason::TunnelUnsupported)?,
            hop: None,
        });
    };
    if !router.admin_state_up {
        return Err(DropReason::RouterDown);
    }
    let Some(Target::Inside(interface, next_hop)) =
        longest_prefix(&walk.sight, router, opening.tuple.source, false)
    else {
        return Err(DropReason::NoRoute);
    };
    let leg = Leg {
        source_mac: interface.mac_address,
        ttl_decrement: 1,
    };
    let near = neighbour(walk, interface.network_id, next_hop, &leg)?;
    Ok(Back {
        tunnel: near.tunnel.ok_or(DropReason::NoRoute)?,
        hop: Some(near.hop),
    })
}

/// The route with the longest prefix; the first named of equals. With `all`, the gateway's routes take part.
pub fn longest_prefix<'a>(
    sight: &Sight<'_>,
    router: &'a Router,
    destination: IpAddr,
    all: bool,
) -> Option<Target<'a>> {
    let snapshot = sight.snapshot;
    let cidr = |subnet_id| snapshot.subnets.get(subnet_id).map(|s| s.cidr);
    let mut best: Option<(u8, Target<'a>)> = None;
    let mut consider = |length: u8, target: Target<'a>| {
        let longer =
            best.is_none_or(|(have, _)| have < length && !sight.has(Mutant::LongestPrefix));
        if longer {
            best = Some((length, target));
        }
    };
    let connected = |address: IpAddr| {
        router
            .interfaces
            .iter()
            .flat_map(|i| i.addresses.iter().map(move |a| (i, a)))
            .filter_map(|(i, a)| cidr(&a.subnet_id).map(|cidr| (i, cidr)))
            .filter(move |(_, cidr)| cidr.contains(&address))
    };
    for (interface, cidr) in connected(destination) {
        consider(cidr.prefix_len(), Target::Inside(interface, destination));
    }
    let gateway = router.gateway.as_ref().filter(|_| all);
    let gateway_subnets = || {
        gateway
            .iter()
            .flat_map(|g| &g.addresses)
            .filter_map(|a| snapshot.subnets.get(&a.subnet_id))
            .collect::<Vec<_>>()
    };
    for subnet in gateway_subnets()
        .iter()
        .filter(|s| s.cidr.contains(&destination))
    {
        consider(subnet.cidr.prefix_len(), Target::Outside(destination));
    }
    for route in router
        .routes
        .iter()
        .filter(|r| r.destination.contains(&destination))
    {
        let inside = connected(route.nexthop).next();
        let outside = gateway_subnets()
            .iter()
            .any(|s| s.cidr.contains(&route.nexthop));
        let target = match inside {
            Some((interface, _)) => Target::Inside(interface, route.nexthop),
            None if outside => Target::Outside(route.nexthop),
            None if !all => continue,
            None => Target::Unreachable,
        };
        consider(route.destination.prefix_len(), target);
    }
    let default = gateway_subnets()
        .iter()
        .filter(|s| s.cidr.addr().is_ipv6() == destination.is_ipv6())
        .find_map(|s| s.gateway_ip);
    if let Some(next_hop) = default {
        consider(0, Target::Outside(next_hop));
    }
    best.map(|(_, target)| target)
}
