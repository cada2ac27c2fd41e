//! Keeps one tenant's rules from costing a host its whole snapshot: an engine refuses a policy that is too large, and
//! the snapshot with it.
//!
//! Guarantees: no port's security groups come to more rules, or name more remote groups, than an engine takes. A
//! port whose groups do loses them all, so that nothing passes that no rule allows; the log says which and why. Other
//! ports do not suffer.
//!
//! Rules are counted as engines write them out: one a range of an address group, and one a range (an allowed address
//! pair wider than one address) of a remote group's members.

use super::rows::Rows;
use super::snapshot::Index;
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{
    Direction, EtherType, HostSnapshot, Remote, SecurityGroupId, SecurityGroupRule, limits,
};

/// One direction and family: what is one policy of a port.
type Side = (Direction, EtherType);

/// What a group adds to the policies of its ports.
#[derive(Default)]
struct Weight {
    rules: BTreeMap<Side, usize>,
    remote_groups: BTreeMap<Side, BTreeSet<SecurityGroupId>>,
}

impl Index<'_> {
    /// Takes their groups from ports that have too much of them.
    pub(super) fn policies_within_limits(&self, snapshot: &mut HostSnapshot) {
        let mut weights: BTreeMap<SecurityGroupId, Weight> = BTreeMap::new();
        let mut judged: BTreeMap<Vec<SecurityGroupId>, bool> = BTreeMap::new();
        for (id, port) in &mut snapshot.ports {
            if port.security_groups.is_empty() {
                continue;
            }
            let groups: Vec<SecurityGroupId> = port.security_groups.to_vec();
            let good = *judged.entry(groups).or_insert_with_key(|groups| {
                for group in groups {
                    weights.entry(*group).or_insert_with(|| self.weight(*group));
                }
                fits(groups.iter().filter_map(|group| weights.get(group)))
            });
            if !good {
                tracing::error!(
                    port = %id,
                    rules_max = limits::RULES_PER_POLICY_MAX,
                    remote_groups_max = limits::REMOTE_GROUPS_PER_POLICY_MAX,
                    "the port's security groups are too large: nothing passes until they are smaller"
                );
                port.security_groups.clear();
            }
        }
    }

    fn weight(&self, group: SecurityGroupId) -> Weight {
        let mut weight = Weight::default();
        for rule in self.rules_of(group) {
            let side = (rule.direction, rule.ethertype);
            let rules = match rule.remote {
                Remote::Any | Remote::Prefix(_) => 1,
                Remote::Group(remote) => {
                    weight.remote_groups.entry(side).or_default().insert(remote);
                    1 + self.ranges_of_members(remote, rule.ethertype)
                }
                Remote::AddressGroup(_) => address_group_ranges(self.rows(), rule),
            };
            *weight.rules.entry(side).or_default() += rules;
        }
        weight
    }
}

fn address_group_ranges(rows: &Rows, rule: &SecurityGroupRule) -> usize {
    let Remote::AddressGroup(group) = rule.remote else {
        return 0;
    };
    let is_ipv6 = rule.ethertype == EtherType::Ipv6;
    rows.address_groups.get(&group).map_or(0, |group| {
        let ranges = group.addresses.iter();
        ranges
            .filter(|range| range.addr().is_ipv6() == is_ipv6)
            .count()
    })
}

/// Whether groups with these weights may be on one port.
fn fits<'a>(weights: impl Iterator<Item = &'a Weight>) -> bool {
    let mut rules: BTreeMap<Side, usize> = BTreeMap::new();
    let mut remote_groups: BTreeMap<Side, BTreeSet<SecurityGroupId>> = BTreeMap::new();
    for weight in weights {
        for (side, count) in &weight.rules {
            *rules.entry(*side).or_default() += count;
        }
        for (side, groups) in &weight.remote_groups {
            remote_groups.entry(*side).or_default().extend(groups);
        }
    }
    rules
        .values()
        .all(|count| *count <= limits::RULES_PER_POLICY_MAX)
        && remote_groups
            .values()
            .all(|groups| groups.len() <= limits::REMOTE_GROUPS_PER_POLICY_MAX)
}
