//! What hosts hand each other of an external network that they share, over a compiled snapshot. docs/pipeline.md, section 8.
//!
//! Guarantees: as `weft_dataplane::stage::transit`. Cost: look-ups, and the routes of one router.

use super::key::Place;
use super::numbers::Numbers;
use super::plan::{At, NetworkPlan, Plan, RouterPlan, Target};
use super::walk::Neighbours;
use std::net::IpAddr;
use weft_dataplane::stage::decode::{IcmpKind, IpPacket, has_ports, is_icmp};
use weft_dataplane::stage::icmp_error::Inside;
use weft_dataplane::stage::transit::{Outbound, port_of};
use weft_dataplane::{Tuple, topology};
use weft_model::{DropReason, MacAddress, PortBlock, RouterGateway};

/// How a session reaches the outside of a physical network by another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByTransit {
    /// That network.
    pub(super) place: Place,
    /// To that host.
    pub(super) tunnel: At,
    pub(super) mtu: u32,
    /// Whether this host says the destination MAC.
    pub(super) resolved: bool,
}

/// Protocol, address, port.
pub(super) type Endpoint = (u8, IpAddr, u16);

/// A destination of another host, and the MAC address that answers for it if it is one of the network itself.
pub(super) type Elsewhere = (At, Option<MacAddress>);

/// The other hosts' blocks, in their order.
pub(super) fn elsewhere(gateway: &RouterGateway, numbers: &Numbers) -> Vec<(PortBlock, At)> {
    let blocks = gateway.snat_port_blocks_elsewhere.iter();
    let mut blocks: Vec<_> = blocks
        .map(|(host, block)| (*block, numbers.host(host)))
        .collect();
    blocks.sort_by_key(|(block, _)| block.first);
    blocks
}

impl Plan {
    /// The tunnel of a network's transit to a host.
    pub(super) fn transit(
        &self,
        network: &NetworkPlan,
        host: At,
        resolved: bool,
    ) -> Result<ByTransit, DropReason> {
        let shared = network.shared.as_ref();
        let shared = shared.ok_or(DropReason::TunnelUnsupported)?;
        let tunnel = shared.tunnels.get(host).copied().flatten();
        Ok(ByTransit {
            place: network.place,
            tunnel: tunnel.ok_or(DropReason::TunnelUnsupported)?,
            mtu: shared.mtu,
            resolved,
        })
    }

    /// Whose an address of the network is, by the address and the port alone.
    pub(super) fn whose_address(
        &self,
        network: &NetworkPlan,
        (protocol, address, port): Endpoint,
    ) -> Option<Elsewhere> {
        network.shared.as_ref()?;
        if let Some((host, mac)) = self.whose_floating(network, (protocol, address, port)) {
            return Some((host, Some(mac)));
        }
        let known = network.addresses.get(&address)?;
        let gateway = self.routers.get(known.snat?)?.gateway.as_ref()?;
        let mut others = gateway.elsewhere.iter();
        let found = if has_ports(protocol) || is_icmp(address.is_ipv6(), protocol) {
            others.find(|(block, _)| block.contains(port))
        } else {
            others.next().filter(|_| !gateway.ports.portless)
        };
        found.map(|(_, host)| (*host, Some(gateway.mac)))
    }

    /// Whose a destination is, if it is another host's.
    pub(super) fn whose(
        &self,
        network: &NetworkPlan,
        router: &RouterPlan,
        end: Endpoint,
    ) -> Option<Elsewhere> {
        network.shared.as_ref()?;
        let known = self.whose_address(network, end);
        let (_, address, _) = end;
        if known.is_some()
            || router.own.contains_key(&address)
            || self.hides(network, router, address)
        {
            return known;
        }
        let Some(Target::Inside(leg, hop)) = router.route(address, false) else {
            return None;
        };
        let inside = self.networks.get(router.legs.get(leg)?.network)?;
        let known = inside.addresses.get(&hop.unwrap_or(address))?;
        let remote = known.remote.filter(|_| known.port.is_none())?;
        Some((remote.host, None))
    }

    /// Whether a router hides an address of those behind it from a network, by SNAT.
    pub(super) fn hides(
        &self,
        network: &NetworkPlan,
        router: &RouterPlan,
        address: IpAddr,
    ) -> bool {
        let translates = router.gateway.as_ref().is_some_and(|g| g.enable_snat);
        if address.is_ipv6() || !translates {
            return false;
        }
        let Some(Target::Inside(leg, _)) = router.route(address, false) else {
            return true;
        };
        let leg = router.legs.get(leg);
        let inside = leg.and_then(|leg| self.networks.get(leg.network));
        !inside.is_some_and(|inside| inside.shares_scope(network))
    }

    /// To the host that answers for a router outside.
    pub(super) fn to_gateway_host(&self, router: &RouterPlan) -> Result<ByTransit, DropReason> {
        let gateway = router.gateway.as_ref().ok_or(DropReason::NoRoute)?;
        let host = gateway.host.ok_or(DropReason::TunnelUnsupported)?;
        let network = self.networks.get(gateway.network);
        self.transit(network.ok_or(DropReason::EngineError)?, host, false)
    }

    fn outside_router(&self, network: &NetworkPlan, mac: MacAddress) -> Option<&RouterPlan> {
        self.routers.get(network.mac(mac).outside?)
    }

    /// Where an ICMP error from the uplink goes that no session is known for.
    pub(super) fn error_relay(
        &self,
        network: &NetworkPlan,
        destination_mac: MacAddress,
        ip: &IpPacket,
        inside: Option<&Inside>,
    ) -> Result<Option<ByTransit>, DropReason> {
        let router = self.outside_router(network, destination_mac);
        let (Some(router), Some(inside)) = (router.filter(|router| router.up), inside) else {
            return Ok(None);
        };
        let error = ip.icmp_kind() == Some(IcmpKind::Error);
        let port = port_of(ip.tuple, Some(inside));
        let end = (inside.tuple.protocol, ip.tuple.destination, port);
        match self.whose(network, router, end) {
            Some((host, _)) if error => self.transit(network, host, true).map(Some),
            _ => Ok(None),
        }
    }

    /// How a session that entered from a physical network sends its replies there, if not by the uplink.
    pub(super) fn back_by_transit(
        &self,
        network: &NetworkPlan,
        tuple: Tuple,
        [source_mac, destination_mac]: [MacAddress; 2],
    ) -> Result<Option<ByTransit>, DropReason> {
        let source = self.outside_router(network, source_mac);
        let end = (tuple.protocol, tuple.source, tuple.source_port);
        if let Some((host, _)) = source.and_then(|router| self.whose(network, router, end)) {
            return self.transit(network, host, true).map(Some);
        }
        if network.has_uplink() {
            return Ok(None);
        }
        let router = self.outside_router(network, destination_mac);
        let router = router.ok_or(DropReason::TunnelUnsupported)?;
        self.to_gateway_host(router).map(Some)
    }

    /// Resolves a frame that another host left to this one, to bring it outside.
    pub(super) fn outbound(
        &self,
        network: &NetworkPlan,
        source_mac: MacAddress,
        ip: &IpPacket,
        inside: Option<&Inside>,
        neighbours: &Neighbours,
    ) -> Result<Outbound, DropReason> {
        if !network.has_uplink() {
            return Err(DropReason::DestinationMacUnknown);
        }
        let router = self.outside_router(network, source_mac);
        let router = router.ok_or(DropReason::RogueSource)?;
        if !router.up {
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
        let Some(Target::Outside(hop)) = router.route(destination, true) else {
            return Err(DropReason::NoRoute);
        };
        let next_hop = hop.unwrap_or(destination);
        let protocol = inside.map_or(ip.tuple.protocol, |inside| inside.tuple.protocol);
        let end = (protocol, destination, port_of(ip.tuple, inside));
        if next_hop == destination
            && let Some((host, Some(mac))) = self.whose_address(network, end)
        {
            let by = self.transit(network, host, true)?;
            let tunnel = self.tunnels.get(by.tunnel).copied();
            let tunnel = tunnel.ok_or(DropReason::EngineError)?;
            return Ok(Outbound::Relay(mac, tunnel));
        }
        if let Some(owner) = network.owner(next_hop, None) {
            return Ok(Outbound::Here(owner.mac));
        }
        let mac = neighbours.get(&(network.id, next_hop)).copied();
        Ok(Outbound::Uplink(mac.unwrap_or_default(), next_hop))
    }
}

impl NetworkPlan {
    /// Whether frames to its outside leave by this host's own interface.
    pub(super) fn has_uplink(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.uplink)
    }
}
