//! Stateless ports: their rules are asked for what no session of theirs speaks for. docs/pipeline.md, section 5.
//!
//! Guarantees: who sends is asked first, then who gets it. Cost: the rules of two ports, for sessions that are recorded or walked
//! again, and for ICMP errors.

use super::key::Place;
use super::plan::{Plan, PortPlan};
use weft_dataplane::Tuple;
use weft_model::{Direction, DropReason};

/// A packet that no port's state speaks for, between two places: its tuple as it leaves the one and as it comes to the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crossing {
    pub(super) from: Place,
    pub(super) leaves: Tuple,
    pub(super) to: Place,
    pub(super) arrives: Tuple,
    pub(super) icmp: Option<(u8, u8)>,
}

/// Whether the rules of those of the two ports that are stateless allow it.
///
/// # Errors
/// Whose do not.
pub(super) fn stateless(plan: &Plan, crossing: &Crossing) -> Result<(), DropReason> {
    if crossing.arrives.vlan.is_neighbour() {
        return Ok(());
    }
    let asks = |place| plan.port(place).filter(|port| port.stateless);
    let allows = |port: &PortPlan, direction, tuple: &Tuple, remote| {
        let policy = port.policies.get(direction, tuple.is_ipv6());
        policy.allows(&plan.members, tuple, crossing.icmp, remote)
    };
    if let Some(port) = asks(crossing.from) {
        let tuple = &crossing.leaves;
        if !allows(port, Direction::Egress, tuple, tuple.destination) {
            return Err(DropReason::SecurityGroupEgressDenied);
        }
    }
    if let Some(port) = asks(crossing.to) {
        let tuple = &crossing.arrives;
        if !allows(port, Direction::Ingress, tuple, tuple.source) {
            return Err(DropReason::SecurityGroupIngressDenied);
        }
    }
    Ok(())
}
