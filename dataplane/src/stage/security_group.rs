//! Security groups: whether a port's rules allow a packet that opens a session. docs/pipeline.md, section 5, "Rules".
//!
//! Guarantees: what no rule allows is refused; the rule named is the one with the smallest UUID. Stateless ports are asked
//! for both directions of a session, and for ICMP errors. Assumes the tuple as the guest sends it (egress) or will see it
//! (ingress). Cost: every rule of the host.

use super::Sight;
use super::decode::{has_ports, icmp_counterpart, is_icmp};
use crate::flow::key::{Ingress, SessionKey, Tuple};
use crate::mutant::Mutant;
use std::net::IpAddr;
use weft_model::{
    Direction, DropReason, EtherType, Port, PortRange, Remote, SecurityGroupRule,
    SecurityGroupRuleId,
};
use weft_wire::protocol;

/// What the rules see of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its tuple at the port.
    pub tuple: Tuple,
    /// The opener's ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// To the guest or from it.
    pub direction: Direction,
}

/// The rule that allows it.
#[must_use]
pub fn process(sight: &Sight<'_>, port: &Port, asked: &Question) -> Option<SecurityGroupRuleId> {
    sight
        .snapshot
        .security_group_rules
        .iter()
        .find(|(_, rule)| {
            port.security_groups.contains(&rule.security_group_id) && matches(sight, rule, asked)
        })
        .map(|(id, _)| *id)
}

/// A packet that no port's state speaks for, between two places: its tuple as it leaves the one and as it comes to the other.
#[derive(Clone, Copy, Debug)]
pub struct Crossing {
    /// From there, so.
    pub from: SessionKey,
    /// To there.
    pub to: Ingress,
    /// So.
    pub arrives: Tuple,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
}

impl Crossing {
    /// The answer to what opened a session: with the type of an answer, and the opener's code.
    #[must_use]
    pub fn reply(forward: &SessionKey, reply: SessionKey, icmp: Option<(u8, u8)>) -> Self {
        let v6 = forward.tuple.is_ipv6();
        Self {
            from: reply,
            to: forward.ingress,
            arrives: forward.tuple.reversed(),
            icmp: icmp.map(|(kind, code)| (icmp_counterpart(v6, kind), code)),
        }
    }
}

/// Whether the rules of those of the two ports that are stateless allow it.
///
/// # Errors
/// Whose do not.
pub fn stateless(sight: &Sight<'_>, crossing: &Crossing) -> Result<(), DropReason> {
    let Crossing {
        from,
        to,
        arrives,
        icmp,
    } = *crossing;
    if arrives.vlan.is_neighbour() {
        return Ok(());
    }
    for (place, direction, tuple, reason) in [
        (
            from.ingress,
            Direction::Egress,
            from.tuple,
            DropReason::SecurityGroupEgressDenied,
        ),
        (
            to,
            Direction::Ingress,
            arrives,
            DropReason::SecurityGroupIngressDenied,
        ),
    ] {
        let Ingress::Port(id) = place else { continue };
        let port = sight.snapshot.ports.get(&id);
        let port = port.filter(|port| sight.snapshot.is_stateless(port));
        let asked = Question {
            tuple,
            icmp,
            direction,
        };
        if port.is_some_and(|port| process(sight, port, &asked).is_none()) {
            return Err(reason);
        }
    }
    Ok(())
}

fn matches(sight: &Sight<'_>, rule: &SecurityGroupRule, asked: &Question) -> bool {
    let t = asked.tuple;
    let (family, remote) = (
        if t.is_ipv6() {
            EtherType::Ipv6
        } else {
            EtherType::Ipv4
        },
        match asked.direction {
            Direction::Ingress => t.source,
            Direction::Egress => t.destination,
        },
    );
    rule.direction == asked.direction
        && rule.ethertype == family
        && matches_protocol(rule, t)
        && rule
            .port_range
            .is_none_or(|range| matches_range(sight, range, asked))
        && matches_remote(sight, rule.remote, remote)
}

fn matches_protocol(rule: &SecurityGroupRule, tuple: Tuple) -> bool {
    match rule.protocol {
        None => true,
        Some(protocol::ICMP) if tuple.is_ipv6() => tuple.protocol == protocol::ICMPV6,
        Some(number) => tuple.protocol == number,
    }
}

fn matches_range(sight: &Sight<'_>, range: PortRange, asked: &Question) -> bool {
    let t = asked.tuple;
    if is_icmp(t.is_ipv6(), t.protocol) {
        return asked.icmp.is_some_and(|(kind, code)| {
            u16::from(kind) == range.first
                && range
                    .last
                    .is_none_or(|last| u16::from(code) == last || sight.has(Mutant::IcmpCode))
        });
    }
    let last = if sight.has(Mutant::PortRangeEnd) {
        None
    } else {
        range.last
    };
    has_ports(t.protocol)
        && range.first <= t.destination_port
        && last.is_none_or(|last| t.destination_port <= last)
}

fn matches_remote(sight: &Sight<'_>, remote: Remote, address: IpAddr) -> bool {
    let snapshot = sight.snapshot;
    match remote {
        Remote::Any => true,
        Remote::Prefix(prefix) => prefix.contains(&address),
        Remote::Group(_) if sight.has(Mutant::RemoteGroup) => true,
        Remote::Group(group) => snapshot
            .security_group_members
            .iter()
            .any(|m| m.security_group_id == group && m.address.contains(&address)),
        Remote::AddressGroup(group) => snapshot
            .address_groups
            .get(&group)
            .is_some_and(|g| g.addresses.iter().any(|range| range.contains(&address))),
    }
}
