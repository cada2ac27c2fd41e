//! Bridge: where a packet that opens a session goes, by its destination MAC. docs/pipeline.md, section 5.
//!
//! Guarantees: nothing leaves the packet's network but through a router. Assumes egress rules. Cost: all ports and routers
//! of the snapshot.

use super::{Sight, tunnel};
use crate::flow::key::{Ingress, Tuple};
use crate::flow::session::{Opener, Tunnel};
use crate::mutant::Mutant;
use crate::topology;
use weft_model::{DropReason, MacAddress, PortId, PvlanRole, Router, RouterId};

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
    /// To all members, without a session.
    Multicast,
    /// The host's own.
    Pass,
}

/// The way by destination MAC. `is_opener`: the packet opens the session.
///
/// # Errors
/// The reason to drop it.
pub fn process<'a>(
    sight: &Sight<'a>,
    opener: &Opener,
    tuple: Tuple,
    is_opener: bool,
) -> Result<Next<'a>, DropReason> {
    match sight.port {
        Some(_) => from_guest(sight, opener.destination_mac, tuple),
        None if sight.is_physical() => from_uplink(sight, opener.destination_mac, tuple, is_opener),
        None => from_tunnel(sight, opener, tuple),
    }
}

/// Whether routers have nothing to do with it: it has a guest's own tag.
fn is_bridged(sight: &Sight<'_>, tuple: Tuple) -> bool {
    !tuple.vlan.is_none() && !sight.has(Mutant::GuestVlanRouted)
}

/// Whether nobody elsewhere may have its source; within a VLAN who has no address yet may ask for one.
fn is_no_source(tuple: Tuple) -> bool {
    !tuple.vlan.is_neighbour() && topology::is_no_source(tuple.source)
}

fn from_guest<'a>(
    sight: &Sight<'a>,
    mac: MacAddress,
    tuple: Tuple,
) -> Result<Next<'a>, DropReason> {
    let (snapshot, network_id) = (sight.snapshot, sight.network_id);
    let physical = sight.is_physical();
    if mac.is_multicast() {
        return Ok(Next::Multicast);
    }
    if !is_bridged(sight, tuple) {
        if let Some((id, router)) = topology::router_by_interface(snapshot, network_id, mac) {
            return if router.admin_state_up {
                Ok(Next::Route(id, router))
            } else {
                Err(DropReason::RouterDown)
            };
        }
        if let Some((id, router)) = topology::router_by_outside(snapshot, network_id, mac) {
            if topology::is_no_source(tuple.source) {
                return Err(DropReason::RogueSource);
            }
            return Ok(Next::Outside(id, router));
        }
    }
    let local = topology::port_by_mac(snapshot, network_id, mac).map(Ingress::Port);
    if let Some(output) = local.filter(|output| *output != sight.ingress) {
        return Ok(Next::Bridge(output));
    }
    if let Some(remote) = topology::remote_port(snapshot, network_id, |p| p.mac_address == mac) {
        let own = sight.port.and_then(|(_, port)| port.pvlan.as_ref());
        if !PvlanRole::reach(own, remote.pvlan.as_ref()) && !sight.has(Mutant::Pvlan) {
            return Err(DropReason::PvlanIsolated);
        }
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
    opener: &Opener,
    tuple: Tuple,
) -> Result<Next<'a>, DropReason> {
    let mac = opener.destination_mac;
    if mac.is_multicast() {
        let sender = topology::remote_port(sight.snapshot, sight.network_id, |port| {
            port.mac_address == opener.source_mac
        });
        return sender
            .map(|_| Next::Multicast)
            .ok_or(DropReason::RogueSource);
    }
    if is_no_source(tuple) {
        return Err(DropReason::RogueSource);
    }
    topology::port_by_mac(sight.snapshot, sight.network_id, mac)
        .map(Next::Arrive)
        .ok_or(DropReason::DestinationMacUnknown)
}

fn from_uplink<'a>(
    sight: &Sight<'a>,
    mac: MacAddress,
    tuple: Tuple,
    opener: bool,
) -> Result<Next<'a>, DropReason> {
    let (snapshot, network_id, source) = (sight.snapshot, sight.network_id, tuple.source);
    let bridged = is_bridged(sight, tuple);
    let let_in = topology::is_let_in(snapshot, network_id, mac, bridged);
    if !let_in && sight.transit {
        return Err(DropReason::DestinationMacUnknown);
    }
    if !let_in && !mac.is_multicast() {
        return Ok(Next::Pass);
    }
    let ours = topology::floating_ip(snapshot, network_id, source).is_some()
        || topology::remote_floating_ip(snapshot, network_id, source).is_some()
        || topology::forwarded_ip(snapshot, network_id, source).is_some()
        || snapshot.routers.values().any(|router| {
            router
                .gateway
                .as_ref()
                .is_some_and(|g| g.network_id == network_id && !g.is_shared())
                && topology::is_gateway_address(router, source)
        });
    let rogue = ours && opener && !sight.transit && !tuple.vlan.is_neighbour();
    match (let_in, rogue || is_no_source(tuple)) {
        (true, false) => {}
        (true, true) => return Err(DropReason::RogueSource),
        (false, true) => return Ok(Next::Pass),
        (false, false) => return Ok(Next::Multicast),
    }
    let outside = topology::router_by_outside(snapshot, network_id, mac);
    if let Some((id, router)) = outside.filter(|_| !bridged) {
        return Ok(Next::Outside(id, router));
    }
    let port = topology::port_by_mac(snapshot, network_id, mac);
    port.map(|port| Next::Bridge(Ingress::Port(port)))
        .ok_or(DropReason::EngineError)
}
