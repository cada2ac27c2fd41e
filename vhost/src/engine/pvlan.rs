//! Roles in private VLANs, by number. docs/pipeline.md, section 5.
//!
//! Guarantees: as `weft_model::PvlanRole` has it.

use super::plan::NetworkPlan;
use super::walk::Walk;
use std::collections::BTreeSet;
use weft_model::{DropReason, HostSnapshot, PvlanRole};

/// A port's role: 0 is promiscuous, 1 isolated, all others a community each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Role(u32);

const ISOLATED: Role = Role(1);

impl Role {
    /// Whether ports of one network with these roles may exchange frames.
    pub(super) fn reaches(self, other: Self) -> bool {
        let promiscuous = Self::default();
        self == promiscuous || other == promiscuous || (self == other && self != ISOLATED)
    }
}

/// The numbers of a snapshot's communities.
#[derive(Debug, Default)]
pub(super) struct Roles(Vec<String>);

impl Roles {
    pub(super) fn new(snapshot: &HostSnapshot) -> Self {
        let here = snapshot.ports.values().map(|port| &port.pvlan);
        let there = snapshot.remote_ports.values().map(|port| &port.pvlan);
        let names = here.chain(there).filter_map(|role| match role {
            Some(PvlanRole::Community { community }) => Some(community),
            _ => None,
        });
        let names: BTreeSet<&String> = names.collect();
        Self(names.into_iter().cloned().collect())
    }

    pub(super) fn of(&self, role: Option<&PvlanRole>) -> Role {
        match role {
            None => Role::default(),
            Some(PvlanRole::Isolated) => ISOLATED,
            Some(PvlanRole::Community { community }) => {
                let at = self.0.binary_search(community).ok();
                let number = at.and_then(|at| u32::try_from(at + 2).ok());
                number.map_or(ISOLATED, Role)
            }
        }
    }
}

impl Walk<'_> {
    /// Whether the sender reaches a port with this role: of the same network only if the two are not kept apart.
    pub(super) fn together(&self, on: &NetworkPlan, role: Role) -> Result<(), DropReason> {
        if on.place != self.network.place {
            return Ok(());
        }
        let reaches = self.role().reaches(role);
        reaches.then_some(()).ok_or(DropReason::PvlanIsolated)
    }

    /// What keeps the sender apart from others.
    fn role(&self) -> Role {
        if let Some(port) = self.port {
            return port.role;
        }
        let is = self.network.mac(self.opening.source_mac);
        if self.network.physical || is.interface.is_some() {
            return Role::default();
        }
        is.remote.map_or_else(Role::default, |remote| remote.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_reach_whom_roles_reach() {
        let community = |name: &str| {
            let community = name.to_owned();
            Some(PvlanRole::Community { community })
        };
        let roles = Roles(vec!["a".to_owned(), "b".to_owned()]);
        let all = [
            None,
            Some(PvlanRole::Isolated),
            community("a"),
            community("b"),
        ];
        for one in &all {
            for other in &all {
                let (a, b) = (roles.of(one.as_ref()), roles.of(other.as_ref()));
                let reach = PvlanRole::reach(one.as_ref(), other.as_ref());
                assert_eq!(a.reaches(b), reach, "{one:?} {other:?}");
            }
        }
    }
}
