//! The walk: what becomes of the first packet of a session, and of a stale session. docs/pipeline.md, section 5.
//!
//! Guarantees: works on the forward tuple and the opener, never on the frame, so that a stale session is judged as its
//! opener was. Changes nothing. Cost: the rules of two ports, the routes of one router.

use crate::flow::key::{Ingress, Tuple};
use crate::flow::session::{Opener, Path, Tunnel};
use crate::mutant::Mutant;
use crate::pipeline;
use crate::stage::Sight;
use crate::stage::bridge::{self, Next};
use crate::stage::decode::{IcmpKind, icmp_kind, is_icmp};
use crate::stage::local_ip;
use crate::stage::router;
use crate::stage::security_group::{self, Question};
use crate::stage::transit;
use crate::topology;
use crate::trace::{Decision, Trace};
use std::collections::BTreeMap;
use std::net::IpAddr;
use weft_model::{
    Direction, DropReason, MacAddress, NetworkId, Port, PortId, PvlanRole, SecurityGroupRuleId,
    Stage,
};
use weft_wire::{protocol, tcp};

/// MAC addresses on physical networks, as the agent learned them.
pub type Neighbours = BTreeMap<(NetworkId, IpAddr), MacAddress>;

/// What is walked for.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// The forward tuple.
    pub tuple: Tuple,
    /// The first packet.
    pub opener: Opener,
    /// The opener's TCP flags; none for a stale session, which is not asked for its opener.
    pub test: Option<u8>,
    /// Whether the packet at hand is an echo request.
    pub echo_request: bool,
}

/// Where a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one a walk, taken apart where it is made"
)]
pub enum End {
    /// Forwarded so.
    Path(Path),
    /// Answered by a router.
    EchoReply,
    /// To all members, without a session.
    Multicast,
    /// As it is to another host, without a session.
    Relay(Tunnel),
    /// The host's own.
    Pass,
}

/// A walk under way.
pub struct Walk<'a> {
    /// Where the opener was seen.
    pub sight: Sight<'a>,
    /// What is walked for.
    pub opening: Opening,
    /// Known neighbours.
    pub neighbours: &'a Neighbours,
    /// The rules that allowed it: egress, ingress.
    pub rules: [Option<SecurityGroupRuleId>; 2],
    trace: &'a mut Trace,
    next: Option<Next<'a>>,
    end: Option<End>,
}

impl<'a> Walk<'a> {
    /// A walk that has not begun.
    pub fn new(
        sight: Sight<'a>,
        opening: Opening,
        neighbours: &'a Neighbours,
        trace: &'a mut Trace,
    ) -> Self {
        Self {
            sight,
            opening,
            neighbours,
            rules: [None, None],
            trace,
            next: None,
            end: None,
        }
    }

    /// Walks through the stages in their order.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn run(&mut self) -> Result<End, DropReason> {
        for stage in pipeline::WALK {
            match stage {
                Stage::SecurityGroupEgress => self.security_group_egress()?,
                Stage::Bridge => self.bridge()?,
                Stage::Router => self.router()?,
                Stage::SecurityGroupIngress => self.security_group_ingress()?,
                // NAT is a router's: it acts within the router stage.
                _ => {}
            }
        }
        self.end.ok_or(DropReason::EngineError)
    }

    /// Judges a copy at a local port.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn arrive(&mut self, port: PortId) -> Result<(), DropReason> {
        self.ingress_ask(port, self.opening.tuple)
    }

    /// Adds a sentence to the trace.
    pub fn say(&mut self, stage: Stage, decision: String) {
        self.trace.say(stage, decision);
    }

    /// Whether the packet may open a session.
    ///
    /// # Errors
    /// It may not.
    pub fn opener_test(&self) -> Result<(), DropReason> {
        let Some(flags) = self.opening.test.filter(|_| !self.is_neighbour()) else {
            return Ok(());
        };
        let Tuple {
            protocol: number, ..
        } = self.opening.tuple;
        let v6 = self.opening.tuple.is_ipv6();
        let watched = flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN);
        if number == protocol::TCP && watched != tcp::SYN && !self.sight.has(Mutant::OpenerTest) {
            return Err(DropReason::TcpNoSession);
        }
        let query = self
            .opening
            .opener
            .icmp
            .is_some_and(|(kind, _)| icmp_kind(v6, kind) == IcmpKind::Query);
        if is_icmp(v6, number) && !query {
            return Err(DropReason::IcmpNoSession);
        }
        Ok(())
    }

    /// Whether no rule is asked: members of a VLAN of the guests' own tell each other of their neighbours.
    fn is_neighbour(&self) -> bool {
        self.opening.tuple.vlan.is_neighbour()
    }

    /// The opener test, for a port that keeps state.
    fn state_test(&self, port: &Port) -> Result<(), DropReason> {
        let asked = self.sight.has(Mutant::StatelessOpener);
        if self.sight.snapshot.is_stateless(port) && !asked {
            return Ok(());
        }
        self.opener_test()
    }

    fn rules_ask(
        &mut self,
        port: &Port,
        tuple: Tuple,
        direction: Direction,
    ) -> Option<SecurityGroupRuleId> {
        let asked = Question {
            tuple,
            icmp: self.opening.opener.icmp,
            direction,
        };
        let rule = security_group::process(&self.sight, port, &asked)?;
        let stage = match direction {
            Direction::Egress => Stage::SecurityGroupEgress,
            Direction::Ingress => Stage::SecurityGroupIngress,
        };
        self.trace
            .say_rule(stage, format!("allowed: {tuple}"), rule);
        Some(rule)
    }

    /// Notes what rules said of an opener; of a stale session only that it ends.
    fn decided(&mut self, port_id: PortId, tuple: Tuple, direction: Direction, allowed: bool) {
        let stays = self.opening.test.is_none() && allowed;
        if !stays || self.sight.has(Mutant::LogStale) {
            self.trace.decisions.push(Decision {
                port_id,
                direction,
                allowed,
                tuple,
                icmp: self.opening.opener.icmp,
            });
        }
    }

    fn security_group_egress(&mut self) -> Result<(), DropReason> {
        let Some((id, port)) = self.sight.port else {
            return Ok(());
        };
        if !port.port_security_enabled {
            self.say(
                Stage::SecurityGroupEgress,
                "the port has no port security".to_owned(),
            );
            return Ok(());
        }
        if self.is_neighbour() {
            let decision = "ARP, ND or MLD within a VLAN: no rule is asked".to_owned();
            self.say(Stage::SecurityGroupEgress, decision);
            return Ok(());
        }
        self.state_test(port)?;
        let rule = self.rules_ask(port, self.opening.tuple, Direction::Egress);
        self.decided(id, self.opening.tuple, Direction::Egress, rule.is_some());
        self.rules[0] = Some(rule.ok_or(DropReason::SecurityGroupEgressDenied)?);
        Ok(())
    }

    fn bridge(&mut self) -> Result<(), DropReason> {
        let Opening { tuple, opener, .. } = self.opening;
        let local = local_ip::process(&self.sight, &opener, tuple);
        let routed = tuple.vlan.is_none() && !opener.destination_mac.is_multicast();
        if let Some(path) = local.filter(|_| routed) {
            if path.destination != tuple.destination {
                self.opener_test()?;
            }
            let said = format!("{} is local: at {}", tuple.destination, path.output);
            self.say(Stage::Bridge, said);
            self.next = Some(Next::Bridge(path.output));
            self.end = Some(End::Path(path));
            return Ok(());
        }
        let asked = self.opening.test.is_some();
        let next = bridge::process(&self.sight, &opener, tuple, asked)?;
        match next {
            Next::Bridge(output) => {
                self.say(
                    Stage::Bridge,
                    format!("{} is at {output}", opener.destination_mac),
                );
                self.end = Some(End::Path(Path::bridged(output, tuple)));
            }
            Next::Tunnel(tunnel) => {
                self.say(
                    Stage::Bridge,
                    format!("{} is at {}", opener.destination_mac, tunnel.remote),
                );
                self.end = Some(End::Path(Path {
                    tunnel: Some(tunnel),
                    ..Path::bridged(Ingress::Network(tunnel.network_id), tuple)
                }));
            }
            Next::Arrive(port) => {
                let back = router::back(self)?;
                self.say(
                    Stage::Bridge,
                    format!("for port {port}; replies go to {}", back.tunnel.remote),
                );
                self.end = Some(End::Path(Path {
                    back: Some(back),
                    ..Path::bridged(Ingress::Port(port), tuple)
                }));
            }
            Next::Route(id, _) => {
                self.say(
                    Stage::Bridge,
                    format!("{} is router {id}", opener.destination_mac),
                );
            }
            Next::Outside(id, _) => {
                let mac = opener.destination_mac;
                self.say(
                    Stage::Bridge,
                    format!("{mac} is the outside of router {id}"),
                );
            }
            Next::Multicast => self.end = Some(End::Multicast),
            Next::Pass => self.end = Some(End::Pass),
        }
        self.next = Some(next);
        Ok(())
    }

    fn router(&mut self) -> Result<(), DropReason> {
        match self.next {
            Some(Next::Route(id, router)) => self.end = Some(router::route(self, id, router)?),
            Some(Next::Outside(id, router)) => {
                self.end = Some(router::from_outside(self, id, router)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn security_group_ingress(&mut self) -> Result<(), DropReason> {
        let Some(End::Path(
            ref mut path @ Path {
                output: Ingress::Port(id),
                ..
            },
        )) = self.end
        else {
            return Ok(());
        };
        let tagged = !self.opening.tuple.vlan.is_none();
        if self.sight.port.is_none() && self.sight.is_physical() && !tagged {
            let Opening { tuple, opener, .. } = self.opening;
            let macs = [opener.source_mac, opener.destination_mac];
            path.transit = transit::back(&self.sight, tuple, macs)?;
        }
        let Opening { tuple, .. } = self.opening;
        let behind = path.translated(tuple, tuple.source_port);
        self.ingress_ask(id, behind)
    }

    /// Whether the sender reaches a port with this role: of the same network only if the two are not kept apart.
    ///
    /// # Errors
    /// It does not.
    pub fn together(&self, on: NetworkId, role: Option<&PvlanRole>) -> Result<(), DropReason> {
        let routed = matches!(&self.end, Some(End::Path(path)) if path.hop.is_some());
        let around = routed && self.sight.has(Mutant::PvlanRouted);
        if on != self.sight.network_id || self.sight.has(Mutant::Pvlan) || around {
            return Ok(());
        }
        let own = topology::role_of(&self.sight, self.opening.opener.source_mac);
        let reach = PvlanRole::reach(own, role);
        reach.then_some(()).ok_or(DropReason::PvlanIsolated)
    }

    /// At a local destination port, of what has this tuple there.
    fn ingress_ask(&mut self, id: PortId, behind: Tuple) -> Result<(), DropReason> {
        let port = self
            .sight
            .snapshot
            .ports
            .get(&id)
            .ok_or(DropReason::EngineError)?;
        if !topology::is_up(self.sight.snapshot, port) {
            return Err(DropReason::DestinationPortDown);
        }
        self.together(port.network_id, port.pvlan.as_ref())?;
        if self.is_neighbour() {
            return Ok(());
        }
        if !port.port_security_enabled {
            let decision = format!("port {id} has no port security");
            self.say(Stage::SecurityGroupIngress, decision);
            return Ok(());
        }
        self.state_test(port)?;
        let source = if self.sight.has(Mutant::IngressSource) {
            self.opening.tuple.source
        } else {
            behind.source
        };
        let tuple = Tuple { source, ..behind };
        let rule = self.rules_ask(port, tuple, Direction::Ingress);
        if self.next.is_some() {
            // A copy of a multicast frame is not written down.
            self.decided(id, behind, Direction::Ingress, rule.is_some());
        }
        self.rules[1] = Some(rule.ok_or(DropReason::SecurityGroupIngressDenied)?);
        Ok(())
    }
}
