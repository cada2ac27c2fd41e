//! From a snapshot's security groups to the flat list of rules that one policy is made of. Pure.
//!
//! Guarantees: rules are in ascending order of `rule_index`, which is the position of the rule's UUID among the
//! policy's rules, so that the smallest index is the smallest UUID. Address groups, and group members wider than one
//! address, are written out as prefixes; members that are one address are left to the membership table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use weft_model::{
    Direction, EtherType, HostSnapshot, PortRange, SecurityGroupId, SecurityGroupRule,
    SecurityGroupRuleId, limits,
};

/// What makes two ports share one policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// The ports' security groups.
    pub groups: BTreeSet<SecurityGroupId>,
    /// Which way, as the guest sees it.
    pub direction: Direction,
    /// Which family.
    pub ethertype: EtherType,
}

/// Whom a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// Everybody.
    Any,
    /// A range, as host-order words (IPv4: the first word); address bits outside the mask are zero.
    Prefix {
        /// Its first address.
        address: [u32; 4],
        /// Its mask.
        mask: [u32; 4],
    },
    /// The members of [`Policy::remote_groups`] of this index that are single addresses.
    Group(u8),
}

/// One rule of a policy. Several may have the same index: they are one rule of the snapshot, written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// What is answered; an index of [`Policy::rule_ids`].
    pub rule_index: u32,
    /// The protocol, or any.
    pub protocol: Option<u8>,
    /// First and last port (ICMP: type · 256 + code); (0, 65535) for any.
    pub ports: (u16, u16),
    /// Whom.
    pub remote: Remote,
}

impl Rule {
    /// Ports of a rule that names none.
    pub const PORTS_ANY: (u16, u16) = (0, u16::MAX);
}

/// All rules of one set of groups, for one direction and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The family: a part of the identity of the membership domain.
    pub ethertype: EtherType,
    /// In ascending order of `rule_index`; at most [`limits::RULES_PER_POLICY_MAX`].
    pub rules: Vec<Rule>,
    /// What [`Remote::Group`] means; in ascending order; at most [`limits::REMOTE_GROUPS_PER_POLICY_MAX`].
    pub remote_groups: Vec<SecurityGroupId>,
    /// The rules' UUIDs by `rule_index`, in ascending order.
    pub rule_ids: Vec<SecurityGroupRuleId>,
}

/// A set of groups that cannot be enforced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// More rules than the limit after writing out.
    #[error(
        "security groups {groups:?}, {direction:?} {ethertype:?}: more than {} rules once address groups are written \
         out; use fewer rules, or wider ranges",
        limits::RULES_PER_POLICY_MAX
    )]
    Rules {
        /// The groups.
        groups: Vec<SecurityGroupId>,
        /// Which way.
        direction: Direction,
        /// Which family.
        ethertype: EtherType,
    },
    /// More remote groups than the limit.
    #[error(
        "security groups {groups:?}, {direction:?} {ethertype:?}: rules name {count} remote groups, at most {} can be; \
         use fewer",
        limits::REMOTE_GROUPS_PER_POLICY_MAX
    )]
    RemoteGroups {
        /// The groups.
        groups: Vec<SecurityGroupId>,
        /// Which way.
        direction: Direction,
        /// Which family.
        ethertype: EtherType,
        /// How many.
        count: usize,
    },
}

/// An address as host-order words, as in [`weft_ebpf_common::policy::PolicyWalk::remote`].
#[must_use]
pub fn address_words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => bits_words(address.to_bits()),
    }
}

fn bits_words(bits: u128) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| ((bits >> shift) & 0xffff_ffff) as u32)
}

/// A range as address and mask words.
#[must_use]
fn prefix_words(prefix: ipnet::IpNet) -> ([u32; 4], [u32; 4]) {
    (
        address_words(prefix.network()),
        address_words(prefix.netmask()),
    )
}

/// Lowers the rules that hold for a set of groups.
///
/// # Errors
/// More rules or remote groups than `weft_model::limits` allow.
pub fn lower(
    snapshot: &HostSnapshot,
    groups: &BTreeSet<SecurityGroupId>,
    direction: Direction,
    ethertype: EtherType,
) -> Result<Policy, LowerError> {
    let key = PolicyKey {
        groups: groups.clone(),
        direction,
        ethertype,
    };
    Lowering::of(snapshot).policy(&key)
}

/// A snapshot's rules by group and its wide members by group, gathered once for many policies.
pub(super) struct Lowering<'a> {
    snapshot: &'a HostSnapshot,
    rules: BTreeMap<SecurityGroupId, Vec<(SecurityGroupRuleId, &'a SecurityGroupRule)>>,
    ranges: BTreeMap<SecurityGroupId, Vec<ipnet::IpNet>>,
}

impl<'a> Lowering<'a> {
    pub(super) fn of(snapshot: &'a HostSnapshot) -> Self {
        let mut rules: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, rule) in &snapshot.security_group_rules {
            rules
                .entry(rule.security_group_id)
                .or_default()
                .push((*id, rule));
        }
        let mut ranges: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for member in &snapshot.security_group_members {
            if !is_single(member.address) {
                ranges
                    .entry(member.security_group_id)
                    .or_default()
                    .push(member.address);
            }
        }
        Self {
            snapshot,
            rules,
            ranges,
        }
    }

    pub(super) fn policy(&self, key: &PolicyKey) -> Result<Policy, LowerError> {
        let of_groups = key
            .groups
            .iter()
            .filter_map(|group| self.rules.get(group))
            .flatten();
        let mut rules: Vec<_> = of_groups
            .copied()
            .filter(|(_, r)| r.direction == key.direction && r.ethertype == key.ethertype)
            .filter(|(_, rule)| can_match(rule))
            .collect();
        rules.sort_unstable_by_key(|(id, _)| *id);
        let remote_groups: BTreeSet<SecurityGroupId> = rules
            .iter()
            .filter_map(|(_, rule)| match rule.remote {
                weft_model::Remote::Group(group) => Some(group),
                _ => None,
            })
            .collect();
        let mut policy = Policy {
            ethertype: key.ethertype,
            rules: Vec::new(),
            remote_groups: remote_groups.into_iter().collect(),
            rule_ids: rules.iter().map(|(id, _)| *id).collect(),
        };
        if policy.remote_groups.len() > limits::REMOTE_GROUPS_PER_POLICY_MAX {
            return Err(LowerError::RemoteGroups {
                groups: key.groups.iter().copied().collect(),
                direction: key.direction,
                ethertype: key.ethertype,
                count: policy.remote_groups.len(),
            });
        }
        for (index, (_, rule)) in (0u32..).zip(&rules) {
            self.write_out(index, rule, &mut policy);
            if policy.rules.len() > limits::RULES_PER_POLICY_MAX {
                return Err(LowerError::Rules {
                    groups: key.groups.iter().copied().collect(),
                    direction: key.direction,
                    ethertype: key.ethertype,
                });
            }
        }
        Ok(policy)
    }

    /// Appends what one rule of the snapshot becomes.
    fn write_out(&self, rule_index: u32, rule: &SecurityGroupRule, policy: &mut Policy) {
        let protocol = match (rule.ethertype, rule.protocol) {
            (EtherType::Ipv6, Some(1)) => Some(58),
            (_, protocol) => protocol,
        };
        let lowered = Rule {
            rule_index,
            protocol,
            ports: ports(rule),
            remote: Remote::Any,
        };
        let of_family =
            |range: &&ipnet::IpNet| range.addr().is_ipv6() == (rule.ethertype == EtherType::Ipv6);
        let written = |range: &ipnet::IpNet| Rule {
            remote: prefix(*range),
            ..lowered
        };
        match &rule.remote {
            weft_model::Remote::Any => policy.rules.push(lowered),
            weft_model::Remote::Prefix(range) => policy.rules.push(written(range)),
            weft_model::Remote::Group(group) => {
                let bit = policy.remote_groups.binary_search(group).ok();
                let bit = bit.and_then(|bit| u8::try_from(bit).ok());
                policy.rules.extend(bit.map(|bit| Rule {
                    remote: Remote::Group(bit),
                    ..lowered
                }));
                let ranges = self
                    .ranges
                    .get(group)
                    .into_iter()
                    .flatten()
                    .filter(of_family);
                policy.rules.extend(ranges.map(written));
            }
            weft_model::Remote::AddressGroup(group) => {
                let group = self.snapshot.address_groups.get(group);
                let ranges = group
                    .into_iter()
                    .flat_map(|group| &group.addresses)
                    .filter(of_family);
                policy.rules.extend(ranges.map(written));
            }
        }
    }
}

/// One address, not a range.
pub(super) fn is_single(range: ipnet::IpNet) -> bool {
    range.prefix_len() == range.max_prefix_len()
}

/// Protocol 58 has no type and code in IPv4, so a rule that asks for one matches nothing there.
fn can_match(rule: &SecurityGroupRule) -> bool {
    let icmpv6_in_ipv4 = rule.ethertype == EtherType::Ipv4 && rule.protocol == Some(58);
    !(icmpv6_in_ipv4 && rule.port_range.is_some())
}

fn prefix(range: ipnet::IpNet) -> Remote {
    let (address, mask) = prefix_words(range);
    if mask == [0; 4] {
        Remote::Any
    } else {
        Remote::Prefix { address, mask }
    }
}

fn ports(rule: &SecurityGroupRule) -> (u16, u16) {
    let icmp = matches!(rule.protocol, Some(1 | 58));
    match rule.port_range {
        None => Rule::PORTS_ANY,
        Some(PortRange { first, last: None }) => (first << 8, first << 8 | 0xff),
        Some(PortRange {
            first,
            last: Some(code),
        }) if icmp => (first << 8 | code, first << 8 | code),
        Some(PortRange {
            first,
            last: Some(last),
        }) => (first, last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use weft_model::{AddressGroup, AddressGroupId, Epoch, SecurityGroup, SecurityGroupMember};

    const V4: EtherType = EtherType::Ipv4;
    const V6: EtherType = EtherType::Ipv6;

    fn group(n: u128) -> SecurityGroupId {
        Uuid::from_u128(n).into()
    }

    fn snapshot() -> HostSnapshot {
        let mut snapshot = HostSnapshot::empty("h".parse().unwrap(), Epoch(Uuid::nil()));
        snapshot
            .security_groups
            .insert(group(1), SecurityGroup { stateful: true });
        snapshot
    }

    fn any(ethertype: EtherType) -> SecurityGroupRule {
        SecurityGroupRule {
            security_group_id: group(1),
            direction: Direction::Ingress,
            ethertype,
            protocol: None,
            port_range: None,
            remote: weft_model::Remote::Any,
        }
    }

    fn put(snapshot: &mut HostSnapshot, id: u128, rule: SecurityGroupRule) {
        snapshot
            .security_group_rules
            .insert(Uuid::from_u128(id).into(), rule);
    }

    fn lowered(snapshot: &HostSnapshot, ethertype: EtherType) -> Result<Policy, LowerError> {
        lower(
            snapshot,
            &BTreeSet::from([group(1), group(2)]),
            Direction::Ingress,
            ethertype,
        )
    }

    #[test]
    fn indexes_are_in_order_of_uuid_over_all_groups() {
        let mut s = snapshot();
        put(
            &mut s,
            30,
            SecurityGroupRule {
                protocol: Some(6),
                ..any(V4)
            },
        );
        put(
            &mut s,
            20,
            SecurityGroupRule {
                security_group_id: group(2),
                protocol: Some(17),
                ..any(V4)
            },
        );
        put(&mut s, 10, any(V6));
        put(
            &mut s,
            11,
            SecurityGroupRule {
                direction: Direction::Egress,
                ..any(V4)
            },
        );
        put(
            &mut s,
            12,
            SecurityGroupRule {
                security_group_id: group(3),
                ..any(V4)
            },
        );
        let policy = lowered(&s, V4).unwrap();
        assert_eq!(policy.rule_ids, [20, 30].map(|n| Uuid::from_u128(n).into()));
        let got: Vec<_> = policy
            .rules
            .iter()
            .map(|r| (r.rule_index, r.protocol))
            .collect();
        assert_eq!(got, [(0, Some(17)), (1, Some(6))]);
    }

    #[test]
    fn icmp_is_type_and_code_and_protocol_1_is_58_in_ipv6() {
        let icmp = |first, last| Some(PortRange { first, last });
        for (ethertype, protocol, range, want) in [
            (V4, 1, None, Some((1, Rule::PORTS_ANY))),
            (V4, 1, icmp(8, None), Some((1, (0x800, 0x8ff)))),
            (V4, 1, icmp(3, Some(4)), Some((1, (0x304, 0x304)))),
            (V4, 1, icmp(255, Some(255)), Some((1, (0xffff, 0xffff)))),
            (V6, 1, icmp(128, None), Some((58, (0x8000, 0x80ff)))),
            (V6, 58, icmp(128, Some(0)), Some((58, (0x8000, 0x8000)))),
            (V4, 58, None, Some((58, Rule::PORTS_ANY))),
            (V4, 58, icmp(0, None), None),
            (V4, 6, icmp(80, Some(90)), Some((6, (80, 90)))),
        ] {
            let mut s = snapshot();
            let rule = SecurityGroupRule {
                protocol: Some(protocol),
                port_range: range,
                ..any(ethertype)
            };
            put(&mut s, 1, rule);
            let policy = lowered(&s, ethertype).unwrap();
            let got = policy.rules.first().map(|r| (r.protocol.unwrap(), r.ports));
            assert_eq!(got, want, "{ethertype:?} {protocol} {range:?}");
        }
    }

    #[test]
    fn address_groups_and_wide_members_are_written_out_and_single_members_are_not() {
        let mut s = snapshot();
        let addresses = ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"].map(|a| a.parse().unwrap());
        let address_group = AddressGroupId(Uuid::nil());
        s.address_groups.insert(
            address_group,
            AddressGroup {
                addresses: addresses.to_vec(),
            },
        );
        let remote = weft_model::Remote::AddressGroup(address_group);
        put(&mut s, 1, SecurityGroupRule { remote, ..any(V4) });
        put(
            &mut s,
            2,
            SecurityGroupRule {
                remote: weft_model::Remote::Group(group(9)),
                ..any(V4)
            },
        );
        for address in ["198.51.100.7/32", "198.51.100.0/28", "2001:db8::/64"] {
            let address = address.parse().unwrap();
            let member = SecurityGroupMember {
                security_group_id: group(9),
                address,
            };
            s.security_group_members.insert(member);
        }
        let policy = lowered(&s, V4).unwrap();
        let prefix = |a: [u8; 4], mask: u32| Remote::Prefix {
            address: [u32::from_be_bytes(a), 0, 0, 0],
            mask: [mask, 0, 0, 0],
        };
        let got: Vec<_> = policy
            .rules
            .iter()
            .map(|r| (r.rule_index, r.remote))
            .collect();
        assert_eq!(
            got,
            [
                (0, prefix([10, 0, 0, 0], 0xff00_0000)),
                (0, prefix([192, 0, 2, 1], u32::MAX)),
                (1, Remote::Group(0)),
                (1, prefix([198, 51, 100, 0], 0xffff_fff0)),
            ]
        );
        assert_eq!(policy.remote_groups, [group(9)]);
    }

    #[test]
    fn an_ipv6_prefix_is_four_words() {
        let words = prefix_words("2001:db8:0:8000::/49".parse().unwrap());
        assert_eq!(words.0, [0x2001_0db8, 0x8000, 0, 0]);
        assert_eq!(words.1, [u32::MAX, 0xffff_8000, 0, 0]);
        assert_eq!(prefix("::/0".parse().unwrap()), Remote::Any);
    }

    #[test]
    fn rules_and_remote_groups_are_limited() {
        let address = |n: u32| ipnet::Ipv4Net::new_assert(n.into(), 32).into();
        let address_group = AddressGroupId(Uuid::nil());
        let remote = weft_model::Remote::AddressGroup(address_group);
        for (count, good) in [
            (limits::RULES_PER_POLICY_MAX, true),
            (limits::RULES_PER_POLICY_MAX + 1, false),
        ] {
            let mut s = snapshot();
            let addresses = (0..u32::try_from(count).unwrap()).map(address).collect();
            s.address_groups
                .insert(address_group, AddressGroup { addresses });
            put(&mut s, 1, SecurityGroupRule { remote, ..any(V4) });
            assert_eq!(lowered(&s, V4).is_ok(), good, "{count} rules");
        }
        for (count, good) in [(256u128, true), (257, false)] {
            let mut s = snapshot();
            for n in 0..count {
                put(
                    &mut s,
                    n,
                    SecurityGroupRule {
                        remote: weft_model::Remote::Group(group(n)),
                        ..any(V4)
                    },
                );
            }
            let policy = lowered(&s, V4);
            assert_eq!(policy.is_ok(), good, "{count} remote groups");
            assert!(
                policy.is_err() || policy.is_ok_and(|p| p.rules[255].remote == Remote::Group(255))
            );
        }
    }
}
