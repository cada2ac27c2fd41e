//! The walk over a compiled snapshot: what becomes of the first packet of a session, and of a stale session.
//! docs/pipeline.md, section 5.
//!
//! Guarantees: changes nothing; works on the forward tuple and the opener, never on the frame. Cost: a few look-ups, the
//! rules of two ports as `classify` bounds them, the routes of one router.

use super::decided::{Noted, note};
use super::floating_ip::Known;
use super::key::Place;
use super::limit::Account;
use super::path::{Back, End, Hop, Opening, Path};
use super::plan::{At, NetworkPlan, Plan, PortPlan, RouterPlan, Target};
use super::transit::ByTransit;
use std::net::IpAddr;
use weft_dataplane::stage::nat::SnatPorts;
use weft_dataplane::{Tuple, topology};
use weft_model::{Direction, DropReason, MacAddress, NetworkId};

/// MAC addresses on physical networks, as somebody learned them.
pub(super) type Neighbours = super::map::FastMap<(NetworkId, IpAddr), MacAddress>;

/// A neighbour, and how to get there.
struct Near {
    output: Place,
    hop: Hop,
    tunnel: Option<At>,
    transit: Option<ByTransit>,
}

/// What a packet looks like outside.
pub(super) struct Seen {
    pub(super) source: IpAddr,
    source_mac: MacAddress,
    pub(super) snat: Option<SnatPorts>,
    pub(super) account: Account,
    translated: bool,
}

/// A walk under way.
pub(super) struct Walk<'a> {
    pub(super) plan: &'a Plan,
    pub(super) neighbours: &'a Neighbours,
    pub(super) opening: &'a Opening,
    pub(super) port: Option<&'a PortPlan>,
    pub(super) network: &'a NetworkPlan,
}

/// Walks.
///
/// # Errors
/// The reason to drop it.
pub(super) fn walk(
    plan: &Plan,
    neighbours: &Neighbours,
    opening: &Opening,
    noted: &mut Noted,
) -> Result<End, DropReason> {
    let walk = Walk::begin(plan, neighbours, opening)?;
    if let Some(port) = walk
        .port
        .filter(|port| port.secured && !opening.is_neighbour())
    {
        opening.state_test(port)?;
        let Tuple { destination, .. } = opening.tuple;
        let policy = port
            .policies
            .get(Direction::Egress, opening.tuple.is_ipv6());
        let allowed = policy.allows(&plan.members, &opening.tuple, opening.icmp, destination);
        let asked = (opening.tuple, Direction::Egress);
        note(noted, opening, port, asked, allowed);
        if !allowed {
            return Err(DropReason::SecurityGroupEgressDenied);
        }
    }
    let mut end = walk.lead()?;
    if let End::Path(path) = &mut end {
        walk.arrive(path, noted)?;
    }
    Ok(end)
}

/// Judges a copy of a multicast frame at a local port.
///
/// # Errors
/// The reason to drop it.
pub(super) fn arrive(
    plan: &Plan,
    neighbours: &Neighbours,
    opening: &Opening,
    to: Place,
) -> Result<(), DropReason> {
    let walk = Walk::begin(plan, neighbours, opening)?;
    // A copy is not written down.
    walk.ingress_ask(&walk.bridged_path(to), &mut Noted::new())
}

impl<'a> Walk<'a> {
    pub(super) fn begin(
        plan: &'a Plan,
        neighbours: &'a Neighbours,
        opening: &'a Opening,
    ) -> Result<Self, DropReason> {
        let (port, network) = plan.sight(opening.place).ok_or(DropReason::EngineError)?;
        Ok(Self {
            plan,
            neighbours,
            opening,
            port,
            network,
        })
    }

    /// Where it goes, before anybody is asked whether it may.
    pub(super) fn lead(&self) -> Result<End, DropReason> {
        match self.port {
            Some(_) => self.guest_sent(),
            None if !self.network.physical => self.host_sent(),
            None => self.uplink_sent(),
        }
    }

    /// At a local destination port.
    fn arrive(&self, path: &mut Path, noted: &mut Noted) -> Result<(), DropReason> {
        let (plan, opening) = (self.plan, self.opening);
        let tagged = !opening.tuple.vlan.is_none();
        let here = plan.port(path.output).is_some() && !tagged;
        if here && self.port.is_none() && self.network.physical {
            let macs = [opening.source_mac, opening.destination_mac];
            path.transit = plan.back_by_transit(self.network, opening.tuple, macs)?;
        }
        self.ingress_ask(path, noted)
    }

    fn ingress_ask(&self, path: &Path, noted: &mut Noted) -> Result<(), DropReason> {
        let Some(port) = self.plan.port(path.output) else {
            return Ok(());
        };
        if !port.up {
            return Err(DropReason::DestinationPortDown);
        }
        let on = self.plan.networks.get(port.network);
        if let Some(on) = on {
            self.together(on, port.role)?;
        }
        if !port.secured || self.opening.is_neighbour() {
            return Ok(());
        }
        self.opening.state_test(port)?;
        let tuple = Tuple {
            source: path.source,
            destination: path.destination,
            destination_port: path.destination_port,
            ..self.opening.tuple
        };
        let policy = port.policies.get(Direction::Ingress, tuple.is_ipv6());
        let (members, icmp) = (&self.plan.members, self.opening.icmp);
        let allowed = policy.allows(members, &tuple, icmp, tuple.source);
        let asked = (tuple, Direction::Ingress);
        note(noted, self.opening, port, asked, allowed);
        if allowed {
            Ok(())
        } else {
            Err(DropReason::SecurityGroupIngressDenied)
        }
    }

    fn bridged_path(&self, output: Place) -> Path {
        let Tuple {
            source,
            destination,
            destination_port,
            ..
        } = self.opening.tuple;
        Path {
            output,
            hop: None,
            source,
            destination,
            destination_port,
            snat: None,
            tunnel: None,
            back: None,
            transit: None,
            accounts: [Account::NONE; 2],
        }
    }

    pub(super) fn router(&self, at: At) -> Result<&'a RouterPlan, DropReason> {
        self.plan.routers.get(at).ok_or(DropReason::EngineError)
    }

    fn guest_sent(&self) -> Result<End, DropReason> {
        let mac = self.opening.destination_mac;
        if mac.is_multicast() {
            return Ok(End::Multicast);
        }
        let tagged = !self.opening.tuple.vlan.is_none();
        if !tagged && let Some(end) = self.local_ip()? {
            return Ok(end);
        }
        let is = self.network.mac(mac).within(self.opening.tuple.vlan);
        if let Some(at) = is.interface {
            let router = self.router(at)?;
            return if router.up {
                self.route(at, router)
            } else {
                Err(DropReason::RouterDown)
            };
        }
        if let Some(at) = is.outside {
            if topology::is_no_source(self.opening.tuple.source) {
                return Err(DropReason::RogueSource);
            }
            return self.outside_in(self.router(at)?);
        }
        if let Some(port) = is.port.filter(|port| *port != self.opening.place) {
            return Ok(End::Path(self.bridged_path(port)));
        }
        if let Some(remote) = is.remote {
            self.together(self.network, remote.role)?;
            let tunnel = remote.tunnel.ok_or(DropReason::TunnelUnsupported)?;
            return Ok(End::Path(Path {
                tunnel: Some(tunnel),
                ..self.bridged_path(self.network.place)
            }));
        }
        if self.network.physical {
            Ok(End::Path(self.bridged_path(self.network.place)))
        } else {
            Err(DropReason::DestinationMacUnknown)
        }
    }

    /// Out of a tunnel.
    fn host_sent(&self) -> Result<End, DropReason> {
        let (source, mac) = (self.opening.tuple.source, self.opening.destination_mac);
        if mac.is_multicast() {
            let sender = self.network.mac(self.opening.source_mac).remote;
            return sender
                .map(|_| End::Multicast)
                .ok_or(DropReason::RogueSource);
        }
        if topology::is_no_source(source) && !self.opening.is_neighbour() {
            return Err(DropReason::RogueSource);
        }
        let port = self.network.mac(mac).port;
        let output = port.ok_or(DropReason::DestinationMacUnknown)?;
        Ok(End::Path(Path {
            back: Some(self.back(source)?),
            ..self.bridged_path(output)
        }))
    }

    fn back(&self, source: IpAddr) -> Result<Back, DropReason> {
        let is = self.network.mac(self.opening.source_mac);
        let router = is.interface.filter(|_| self.opening.tuple.vlan.is_none());
        let Some(at) = router else {
            let remote = is.remote.ok_or(DropReason::RogueSource)?;
            return Ok(Back {
                output: self.network.place,
                tunnel: remote.tunnel.ok_or(DropReason::TunnelUnsupported)?,
                hop: None,
            });
        };
        let router = self.router(at)?;
        if !router.up {
            return Err(DropReason::RouterDown);
        }
        let Some(Target::Inside(leg, hop)) = router.route(source, false) else {
            return Err(DropReason::NoRoute);
        };
        let leg = router.legs.get(leg).ok_or(DropReason::EngineError)?;
        let near = self.neighbour(leg.network, hop.unwrap_or(source), leg.mac)?;
        Ok(Back {
            output: near.output,
            tunnel: near.tunnel.ok_or(DropReason::NoRoute)?,
            hop: Some(near.hop),
        })
    }

    fn uplink_sent(&self) -> Result<End, DropReason> {
        let is = self.network.mac(self.opening.destination_mac);
        let is = is.within(self.opening.tuple.vlan);
        let let_in = is.outside.is_some() || is.port.is_some();
        if !let_in && self.opening.transit {
            return Err(DropReason::DestinationMacUnknown);
        }
        if !let_in && !self.opening.destination_mac.is_multicast() {
            return Ok(End::Pass);
        }
        let source = self.opening.tuple.source;
        let known = self.network.addresses.get(&source);
        let ours = known.is_some_and(|a| {
            let floating = a.floating.is_some() || a.floating_elsewhere.is_some();
            floating || a.forwarded.is_some() || a.gateway_alone
        });
        let opener = self.opening.test.is_some() && !self.opening.transit;
        let rogue = (ours && opener) || topology::is_no_source(source);
        match (let_in, rogue && !self.opening.is_neighbour()) {
            (true, false) => {}
            (true, true) => return Err(DropReason::RogueSource),
            (false, true) => return Ok(End::Pass),
            (false, false) => return Ok(End::Multicast),
        }
        if let Some(at) = is.outside {
            return self.outside_in(self.router(at)?);
        }
        let port = is.port.ok_or(DropReason::EngineError)?;
        Ok(End::Path(self.bridged_path(port)))
    }

    fn never_routed(&self) -> Result<(), DropReason> {
        let tuple = &self.opening.tuple;
        if topology::is_never_routed(tuple.source) || topology::is_never_routed(tuple.destination) {
            return Err(DropReason::LinkLocalNotRouted);
        }
        Ok(())
    }

    fn echo(&self, otherwise: DropReason) -> Result<End, DropReason> {
        if self.opening.echo_request && !self.opening.transit {
            Ok(End::EchoReply)
        } else {
            Err(otherwise)
        }
    }

    fn route(&self, at: At, router: &RouterPlan) -> Result<End, DropReason> {
        self.never_routed()?;
        let destination = self.opening.tuple.destination;
        if router.own.contains_key(&destination) {
            return self.echo(DropReason::RouterLocalUnsupported);
        }
        let gateway = router.gateway.as_ref();
        let outside = gateway.and_then(|g| self.plan.networks.get(g.network));
        let known = outside.and_then(|network| network.addresses.get(&destination));
        if known.is_some_and(|address| address.gateway) {
            return Err(DropReason::RouterLocalUnsupported);
        }
        match known.and_then(|address| self.floating(address)) {
            Some(Known::Behind(floating, to)) => return self.hairpin(at, router, floating, to),
            Some(Known::Nowhere { answered: true }) => return self.echo(DropReason::NatNoSession),
            _ => {}
        }
        match router.route(destination, true).ok_or(DropReason::NoRoute)? {
            Target::Inside(leg, hop) => self.inside(router, leg, hop.unwrap_or(destination)),
            Target::Outside(hop) => self.outside(at, router, hop.unwrap_or(destination)),
            Target::Unreachable => Err(DropReason::NoRoute),
        }
    }

    fn outside_in(&self, router: &RouterPlan) -> Result<End, DropReason> {
        if !router.up {
            return Err(DropReason::RouterDown);
        }
        self.never_routed()?;
        let destination = self.opening.tuple.destination;
        let known = self.network.addresses.get(&destination);
        let known = known.and_then(|address| self.floating(address));
        if let Some(Known::Behind(floating, to)) = known {
            return self.enter(floating, to);
        }
        if !router.lets_in(destination) {
            return Err(DropReason::NdpProxyUnknown);
        }
        let Tuple {
            protocol: number,
            destination_port,
            ..
        } = self.opening.tuple;
        let end = (number, destination, destination_port);
        let elsewhere = self.plan.whose(self.network, router, end);
        if let Some((host, _)) = elsewhere.filter(|_| !self.opening.transit) {
            return self.relay(host);
        }
        if destination.is_ipv4() {
            if known.is_some() || router.gateway_addresses.contains(&destination) {
                return self.echo(DropReason::NatNoSession);
            }
            if self.plan.hides(self.network, router, destination) {
                return Err(DropReason::NatPrivateDestination);
            }
        }
        if router.own.contains_key(&destination) {
            return self.echo(DropReason::RouterLocalUnsupported);
        }
        match router.route(destination, false) {
            Some(Target::Inside(leg, hop)) => {
                let end = self.inside(router, leg, hop.unwrap_or(destination))?;
                let circles = matches!(&end, End::Path(path) if path.tunnel.is_some());
                if circles && self.opening.transit {
                    return Err(DropReason::NoRoute);
                }
                Ok(end)
            }
            _ => Err(DropReason::NoRoute),
        }
    }

    /// To another host.
    fn relay(&self, host: At) -> Result<End, DropReason> {
        let by = self.plan.transit(self.network, host, true)?;
        if self.port.is_none() {
            return Ok(End::Relay(by));
        }
        Ok(End::Path(Path {
            transit: Some(by),
            ..self.bridged_path(self.network.place)
        }))
    }

    /// The source behind a router's gateway: the guest's floating IP, SNAT, or plain.
    pub(super) fn seen(&self, at: At, router: &RouterPlan) -> Result<Seen, DropReason> {
        let gateway = router.gateway.as_ref().ok_or(DropReason::NoRoute)?;
        let source = self.opening.tuple.source;
        let floating = match (self.port, source) {
            (Some(_), IpAddr::V4(fixed)) => {
                let key = (at, self.opening.place, fixed);
                let at = self.plan.floating_by_fixed.get(&key);
                at.and_then(|at| self.plan.floating.get(*at))
            }
            _ => None,
        };
        if let Some(floating) = floating {
            return Ok(Seen {
                source: floating.address.into(),
                source_mac: floating.mac,
                snat: None,
                account: floating.account,
                translated: true,
            });
        }
        let outside = self.plan.networks.get(gateway.network);
        let plain = source.is_ipv6()
            || !gateway.enable_snat
            || outside.is_some_and(|outside| outside.shares_scope(self.network));
        let translated = if plain {
            source
        } else {
            gateway.snat.ok_or(DropReason::NoRoute)?.into()
        };
        Ok(Seen {
            source: translated,
            source_mac: gateway.mac,
            snat: (!plain).then_some(gateway.ports),
            account: if plain {
                Account::NONE
            } else {
                gateway.account
            },
            translated: !plain,
        })
    }

    fn inside(&self, router: &RouterPlan, leg: At, hop: IpAddr) -> Result<End, DropReason> {
        let leg = router.legs.get(leg).ok_or(DropReason::EngineError)?;
        self.scopes_agree(leg.network)?;
        let near = self.neighbour(leg.network, hop, leg.mac)?;
        let Tuple {
            source,
            destination,
            destination_port,
            ..
        } = self.opening.tuple;
        Ok(End::Path(Path {
            output: near.output,
            hop: Some(near.hop),
            source,
            destination,
            destination_port,
            snat: None,
            tunnel: near.tunnel,
            back: None,
            transit: None,
            accounts: [Account::NONE; 2],
        }))
    }

    /// What is routed as it is stays in its address scope.
    fn scopes_agree(&self, to: At) -> Result<(), DropReason> {
        let to = self.plan.networks.get(to).ok_or(DropReason::EngineError)?;
        if self.network.agrees(to, self.opening.tuple.is_ipv6()) {
            Ok(())
        } else {
            Err(DropReason::AddressScopeMismatch)
        }
    }

    fn outside(&self, at: At, router: &RouterPlan, hop: IpAddr) -> Result<End, DropReason> {
        let gateway = router.gateway.as_ref().ok_or(DropReason::NoRoute)?;
        let seen = self.seen(at, router)?;
        if seen.translated {
            self.opening.opener_test()?;
        } else {
            self.scopes_agree(gateway.network)?;
        }
        let near = self.neighbour_outside(router, gateway.network, hop, seen.source_mac)?;
        Ok(End::Path(Path {
            output: near.output,
            hop: Some(near.hop),
            source: seen.source,
            destination: self.opening.tuple.destination,
            destination_port: self.opening.tuple.destination_port,
            snat: seen.snat,
            tunnel: near.tunnel,
            back: None,
            transit: near.transit,
            accounts: [seen.account, Account::NONE],
        }))
    }

    /// A neighbour outside: as others, or by the network's transit.
    fn neighbour_outside(
        &self,
        router: &RouterPlan,
        network_at: At,
        address: IpAddr,
        source_mac: MacAddress,
    ) -> Result<Near, DropReason> {
        let near = self.neighbour(network_at, address, source_mac)?;
        let network = self.plan.networks.get(network_at);
        let network = network.ok_or(DropReason::EngineError)?;
        let elsewhere = near.output != network.place || near.tunnel.is_some();
        if elsewhere || network.shared.is_none() {
            return Ok(near);
        }
        let Tuple {
            protocol: number,
            destination_port,
            ..
        } = self.opening.tuple;
        let end = (number, address, destination_port);
        let (mac, by) = match self.plan.whose_floating(network, end) {
            Some((host, mac)) => (mac, self.plan.transit(network, host, true)?),
            None if network.has_uplink() => return Ok(near),
            None => (MacAddress([0; 6]), self.plan.to_gateway_host(router)?),
        };
        Ok(Near {
            hop: Hop {
                destination_mac: mac,
                next_hop: None,
                mtu: near.hop.mtu.min(by.mtu),
                ..near.hop
            },
            transit: Some(by),
            ..near
        })
    }

    fn neighbour(
        &self,
        network: At,
        address: IpAddr,
        source_mac: MacAddress,
    ) -> Result<Near, DropReason> {
        let network = self
            .plan
            .networks
            .get(network)
            .ok_or(DropReason::EngineError)?;
        let near = |output, destination_mac, next_hop| Near {
            output,
            hop: Hop {
                ttl_decrement: 1,
                source_mac,
                destination_mac,
                next_hop,
                mtu: network.mtu,
            },
            tunnel: None,
            transit: None,
        };
        let known = network.addresses.get(&address);
        let place = known.and_then(|address| address.port);
        if let Some((place, port)) = place.and_then(|p| Some((p, self.plan.port(p)?))) {
            return Ok(near(place, MacAddress(port.mac), None));
        }
        if let Some(remote) = known.and_then(|address| address.remote) {
            self.together(network, remote.role)?;
            return Ok(Near {
                tunnel: Some(remote.tunnel.ok_or(DropReason::TunnelUnsupported)?),
                ..near(network.place, remote.mac, None)
            });
        }
        if network.physical {
            let mac = self.neighbours.get(&(network.id, address)).copied();
            return Ok(near(network.place, mac.unwrap_or_default(), Some(address)));
        }
        Err(DropReason::NeighbourUnknown)
    }
}
