//! The checks of security groups, their rules and members, and of address groups.

use crate::validate::{Report, is_canonical};
use crate::{
    AddressGroup, AddressGroupId, Direction, EtherType, HostSnapshot, Remote, SecurityGroupMember,
    SecurityGroupRule, SecurityGroupRuleId, limits,
};
use std::collections::BTreeMap;

impl HostSnapshot {
    pub(crate) fn validate_rules<'a>(
        &self,
        r: &mut Report,
        all: impl Iterator<Item = (&'a SecurityGroupRuleId, &'a SecurityGroupRule)>,
    ) {
        let mut rules: BTreeMap<_, usize> = BTreeMap::new();
        for (id, rule) in all {
            let path = |field: &str| format!("security_group_rules.{id}.{field}");
            let known = self.security_groups.contains_key(&rule.security_group_id);
            r.check(
                known,
                || path("security_group_id"),
                "a group in security_groups",
            );
            let key = (
                rule.security_group_id,
                rule.direction == Direction::Ingress,
                rule.ethertype,
            );
            let count = rules.entry(key).or_default();
            *count += 1;
            r.check(
                *count <= limits::RULES_PER_POLICY_MAX,
                || path("security_group_id"),
                format_args!(
                    "a group of at most {} rules a direction",
                    limits::RULES_PER_POLICY_MAX
                ),
            );
            if let Some(range) = rule.port_range {
                let icmp = matches!(rule.protocol, Some(1 | 58));
                let good = match (icmp, range.last) {
                    (true, last) => range.first <= 255 && last.is_none_or(|code| code <= 255),
                    (false, Some(last)) => {
                        range.first <= last
                            && matches!(rule.protocol, Some(6 | 17 | 33 | 132 | 136))
                    }
                    (false, None) => false,
                };
                r.check(good, || path("port_range"), "first <= last with a protocol that has ports, or an ICMP type and code up to 255");
            }
            match rule.remote {
                Remote::Any => {}
                Remote::Prefix(prefix) => {
                    let good = is_canonical(prefix)
                        && prefix.addr().is_ipv6() == (rule.ethertype == EtherType::Ipv6);
                    r.check(
                        good,
                        || path("remote"),
                        "a range of the rule's family with its host bits zero",
                    );
                }
                Remote::Group(group) => {
                    let known = self.security_groups.contains_key(&group);
                    r.check(known, || path("remote"), "a group in security_groups");
                }
                Remote::AddressGroup(group) => {
                    let known = self.address_groups.contains_key(&group);
                    r.check(known, || path("remote"), "a group in address_groups");
                }
            }
        }
    }

    #[allow(clippy::unused_self, reason = "one shape for all tables")]
    pub(crate) fn validate_members<'a>(
        &self,
        r: &mut Report,
        members: impl Iterator<Item = &'a SecurityGroupMember>,
    ) {
        for member in members {
            let path = || format!("security_group_members[{}]", member.address);
            r.check(
                is_canonical(member.address),
                path,
                "a range with its host bits zero",
            );
        }
    }

    #[allow(clippy::unused_self, reason = "one shape for all tables")]
    pub(crate) fn validate_address_groups<'a>(
        &self,
        r: &mut Report,
        groups: impl Iterator<Item = (&'a AddressGroupId, &'a AddressGroup)>,
    ) {
        for (id, group) in groups {
            for address in &group.addresses {
                let path = || format!("address_groups.{id}.addresses[{address}]");
                r.check(
                    is_canonical(*address),
                    path,
                    "a range with its host bits zero",
                );
            }
        }
    }
}
