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
use super::snapshot::{Judged, View};
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{Direction, EtherType, Remote, SecurityGroupId, SecurityGroupRule, limits};

/// One direction and family: what is one policy of a port.
type Side = (Direction, EtherType);

/// What a group adds to the policies of its ports.
#[derive(Default)]
struct Weight {
    rules: BTreeMap<Side, usize>,
    remote_groups: BTreeMap<Side, BTreeSet<SecurityGroupId>>,
}

impl View<'_> {
    /// Whether a port may have these groups; `judged` remembers.
    pub(super) fn fits(&self, groups: &[SecurityGroupId], judged: &mut Judged) -> bool {
        // Many groups that are not heavy do not come to too much, however many a port may have.
        let mut heavy = groups
            .iter()
            .filter(|group| self.index().heavy.contains(group));
        if heavy.next().is_none() {
            return true;
        }
        if let Some(good) = judged.get(groups) {
            return *good;
        }
        let weights: Vec<Weight> = groups.iter().map(|group| self.weight(*group)).collect();
        let good = fits(weights.iter());
        judged.insert(groups.to_vec(), good);
        good
    }

    /// Whether a group has more than its share of what a port with as many groups as may be could have.
    pub(super) fn is_heavy(&self, group: SecurityGroupId) -> bool {
        let weight = self.weight(group);
        let share = limits::SECURITY_GROUPS_PER_PORT_MAX;
        let rules = weight.rules.values();
        let remote_groups = weight.remote_groups.values();
        rules
            .max()
            .is_some_and(|count| *count > limits::RULES_PER_POLICY_MAX / share)
            || remote_groups
                .map(BTreeSet::len)
                .any(|count| count > limits::REMOTE_GROUPS_PER_POLICY_MAX / share)
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
