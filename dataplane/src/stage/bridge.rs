//! Bridge: where a packet that opens a session goes, by its destination MAC. docs/pipeline.md, section 5.
//!
//! Guarantees: nothing leaves the packet's network but through a router. Assumes egress rules. Cost: all ports and routers
//! of the snapshot.

use super::{Sight, tunnel};
use crate::flow::key::Ingress;
use crate::flow::session::Tunnel;
use crate::topology;
use std::net::IpAddr;
use weft_model::{DropReason, MacAddress, PortId, Router, RouterId};

/// Where to.
#[derive(Clone, Copy, Debug)]
pub enum Next<'a> {
    /// To this output, by MAC address.
    Bridge(Ingress),
    /// To a port of another host, by MAC address.
    Tunnel(Tunnel),
    /// Out of a tunnel, to this port.
    Arrive(PortId),
    /// From a guest through this router.
    Route(RouterId, &'a Router),
    /// From outside, to this router's gateway or floating IP.
    Outside(RouterId, &'a Router),
    /// Out by the uplink as it is, without a session.
    Multicast,
    /// The host's own.
    Pass,
}

/// The way by destination MAC. `opener`: the packet opens the session.
///
/// # Errors
/// The reason to drop it.
pub fn process<'a>(
    sight: &Sight<'a>,
    destination_mac: MacAddress,
    source: IpAddr,
    opener: bool,
) -> Result<Next<'a>, DropReason> {
    match sight.port {
        Some(_) => from_guest(sight, destination_mac, source),
        None if sight.is_physical() => from_uplink(sight, destination_mac, source, opener),
        None => from_tunnel(sight, destination_mac, source),
    }
}

fn from_guest<'a>(
    sight: &Sight<'a>,
    mac: MacAddress,
    source: IpAddr,
) -> Result<Next<'a>, DropReason> {
    let (snapshot, network_id) = (sight.snapshot, sight.network_id);
    let physical = sight.is_physical();
    if mac.is_multicast() {
        return if physical {
            Ok(Next::Multicast)
        } else {
            Err(DropReason::MulticastUnsupported)
        };
    }
    if let Some((id, router)) = topology::router_by_interface(snapshot, network_id, mac) {
        return if router.admin_state_up {
            Ok(Next::Route(id, router))
        } else {
            Err(DropReason::RouterDown)
        };
    }
    if let Some((id, router)) = topology::router_by_outside(snapshot, network_id, mac) {
        if topology::is_no_source(source) {
            return Err(DropReason::RogueSource);
        }
        return Ok(Next::Outside(id, router));
    }
    let local = topology::port_by_mac(snapshot, network_id, mac).map(Ingress::Port);
    if let Some(output) = local.filter(|output| *output != sight.ingress) {
        return Ok(Next::Bridge(output));
    }
    if let Some(remote) = topology::remote_port(snapshot, network_id, |p| p.mac_address == mac) {
        let tunnel = tunnel::to_host(snapshot, network_id, &remote.host);
        return tunnel
            .map(Next::Tunnel)
            .ok_or(DropReason::TunnelUnsupported);
    }
    if physical {
        Ok(Next::Bridge(Ingress::Network(network_id)))
    } else {
        Err(DropReason::DestinationMacUnknown)
    }
}

fn from_tunnel<'a>(
    sight: &Sight<'a>,
    mac: MacAddress,
    source: IpAddr,
) -> Result<Next<'a>, DropReason> {
    if topology::is_no_source(source) {
        return Err(DropReason::RogueSource);
    }
    if mac.is_multicast() {
        return Err(DropReason::MulticastUnsupported);
    }
    topology::port_by_mac(sight.snapshot, sight.network_id, mac)
        .map(Next::Arrive)
        .ok_or(DropReason::DestinationMacUnknown)
}

fn from_uplink<'a>(
    sight: &Sight<'a>,
    mac: MacAddress,
    source: IpAddr,
    opener: bool,
) -> Result<Next<'a>, DropReason> {
    let (snapshot, network_id) = (sight.snapshot, sight.network_id);
    if !topology::is_let_in(snapshot, network_id, mac) {
        return if sight.transit {
            Err(DropReason::DestinationMacUnknown)
        } else {
            Ok(Next::Pass)
        };
    }
    let ours = topology::floating_ip(snapshot, network_id, source).is_some()
        || topology::remote_floating_ip(snapshot, network_id, source).is_some()
        || snapshot.routers.values().any(|router| {
            router
                .gateway
                .as_ref()
                .is_some_and(|g| g.network_id == network_id && !g.is_shared())
                && topology::is_gateway_address(router, source)
        });
    let rogue = ours && opener && !sight.transit;
    if rogue || topology::is_no_source(source) {
        return Err(DropReason::RogueSource);
    }
    if let Some((id, router)) = topology::router_by_outside(snapshot, network_id, mac) {
        return Ok(Next::Outside(id, router));
    }
    let port = topology::port_by_mac(snapshot, network_id, mac);
    port.map(|port| Next::Bridge(Ingress::Port(port)))
        .ok_or(DropReason::EngineError)
}
