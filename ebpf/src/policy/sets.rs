//! Rule sets with names and packets to go with them, for tests, benches and `cargo xtask bars`: always the same for
//! the same name, size and family.

use super::harness::Tuple;
use super::{Policy, Remote, Rule, address_words};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_model::{EtherType, SecurityGroupId, SecurityGroupMember, SecurityGroupRuleId};

/// What a set is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One address and one TCP port each.
    Exact,
    /// What tenants write: TCP and UDP services for ranges of /16 to /28, some ICMP.
    Services,
    /// Wildcards, wide port ranges, prefixes of any length; the widest rules last, so that none is hidden.
    Hostile,
    /// Half for one port and any address, half for one address and any port.
    Lines,
    /// Port ranges and prefixes inside each other, the smallest first.
    Nested,
    /// Ports and ranges of ports for 256 remote groups.
    Groups,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Exact,
        Self::Services,
        Self::Hostile,
        Self::Lines,
        Self::Nested,
        Self::Groups,
    ];
}

/// Steele, Lea, Flood: SplitMix64. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 32 bits.
    pub fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.word() % bound
    }

    /// A port below `bound`.
    #[allow(clippy::cast_possible_truncation, reason = "masked")]
    pub fn port(&mut self, bound: u32) -> u16 {
        (self.below(bound) & 0xffff) as u16
    }
}

/// The mask of a prefix.
fn mask(ethertype: EtherType, length: u32) -> [u32; 4] {
    std::array::from_fn(|word| {
        let word = u32::try_from(word).unwrap_or(0);
        let bits = length.saturating_sub(32 * word).min(32);
        let six = ethertype == EtherType::Ipv6 || word == 0;
        if six {
            u32::MAX.checked_shl(32 - bits).unwrap_or(0)
        } else {
            0
        }
    })
}

fn address(random: &mut Random, ethertype: EtherType) -> [u32; 4] {
    match ethertype {
        EtherType::Ipv4 => [0x0a00_0000 | random.below(1 << 24), 0, 0, 0],
        EtherType::Ipv6 => [
            0xfd00_0000 | random.below(1 << 8),
            random.word(),
            0,
            random.below(1 << 16),
        ],
    }
}

fn prefix(random: &mut Random, ethertype: EtherType, length: u32) -> Remote {
    let (address, mask) = (address(random, ethertype), mask(ethertype, length));
    if length == 0 {
        return Remote::Any;
    }
    Remote::Prefix {
        address: std::array::from_fn(|n| address[n] & mask[n]),
        mask,
    }
}

fn bits(ethertype: EtherType) -> u32 {
    if ethertype == EtherType::Ipv4 {
        32
    } else {
        128
    }
}

fn rule(shape: Shape, n: u32, random: &mut Random, ethertype: EtherType) -> Rule {
    let tcp = Some(6);
    let bits = bits(ethertype);
    let any = Rule {
        rule_index: 0,
        protocol: tcp,
        ports: Rule::PORTS_ANY,
        remote: Remote::Any,
    };
    match shape {
        Shape::Exact => {
            let port = random.port(65_536);
            Rule {
                ports: (port, port),
                remote: prefix(random, ethertype, bits),
                ..any
            }
        }
        Shape::Services => services(random, ethertype, any),
        Shape::Hostile => hostile(random, ethertype, any),
        Shape::Lines if n.is_multiple_of(2) => {
            let port = random.port(65_536);
            Rule {
                ports: (port, port),
                ..any
            }
        }
        Shape::Lines => Rule {
            remote: prefix(random, ethertype, bits),
            ..any
        },
        Shape::Nested => {
            let half = u16::try_from(n % 32_000).unwrap_or(0);
            let length = bits - (n / 3) % bits;
            let remote = if n.is_multiple_of(3) {
                prefix(random, ethertype, length)
            } else {
                Remote::Any
            };
            Rule {
                ports: (32_767 - half, 32_768 + half),
                remote,
                ..any
            }
        }
        Shape::Groups => {
            let (first, width) = (
                random.port(8_000),
                if n.is_multiple_of(4) {
                    random.port(2_000)
                } else {
                    0
                },
            );
            let group = u8::try_from(random.below(256)).unwrap_or(0);
            Rule {
                ports: (first, first + width),
                remote: Remote::Group(group),
                ..any
            }
        }
    }
}

fn services(random: &mut Random, ethertype: EtherType, any: Rule) -> Rule {
    const PORTS: [u16; 8] = [22, 53, 80, 443, 3306, 5432, 8080, 9200];
    let length = match ethertype {
        EtherType::Ipv4 => 16 + random.below(13),
        EtherType::Ipv6 => 48 + 16 * random.below(4),
    };
    let remote = prefix(random, ethertype, length);
    let port = PORTS[random.below(8) as usize];
    match random.below(10) {
        0 => {
            let icmp = if ethertype == EtherType::Ipv4 { 1 } else { 58 };
            Rule {
                protocol: Some(icmp),
                ports: (8 << 8, 8 << 8 | 0xff),
                remote,
                ..any
            }
        }
        1 => Rule {
            ports: (30_000, 32_767),
            remote,
            ..any
        },
        2..4 => Rule {
            protocol: Some(17),
            ports: (port, port),
            remote,
            ..any
        },
        _ => Rule {
            ports: (port, port),
            remote,
            ..any
        },
    }
}

fn hostile(random: &mut Random, ethertype: EtherType, any: Rule) -> Rule {
    let protocol = match random.below(4) {
        0 => None,
        1 => Some(17),
        _ => Some(6),
    };
    let (x, y) = (random.port(65_536), random.port(65_536));
    let ports = match random.below(4) {
        0 => Rule::PORTS_ANY,
        1 => (x, x.saturating_add(y % 4_096)),
        _ => (x.min(y), x.max(y)),
    };
    // A rule without a protocol has no ports.
    let ports = if protocol.is_none() {
        Rule::PORTS_ANY
    } else {
        ports
    };
    let length = random.below(bits(ethertype) + 1);
    Rule {
        protocol,
        ports,
        remote: prefix(random, ethertype, length),
        ..any
    }
}

/// How much a rule matches, roughly: for putting the widest last.
fn width(rule: &Rule) -> u64 {
    let remote = match rule.remote {
        Remote::Any => 128,
        Remote::Group(_) => 0,
        Remote::Prefix { mask, .. } => mask.iter().map(|word| u64::from(word.count_zeros())).sum(),
    };
    let ports = u64::from(rule.ports.1 - rule.ports.0) / 512;
    remote + ports + if rule.protocol.is_none() { 64 } else { 0 }
}

/// The id with a number.
#[must_use]
pub fn group_id(number: u128) -> SecurityGroupId {
    uuid::Uuid::from_u128(number).into()
}

/// A policy of `count` rules.
#[must_use]
pub fn policy(shape: Shape, ethertype: EtherType, count: u32) -> Policy {
    let mut random = Random(u64::from(count) ^ 0x77ef_7001);
    let rules = (0..count).map(|n| rule(shape, n, &mut random, ethertype));
    let mut rules: Vec<Rule> = rules.collect();
    if shape == Shape::Hostile {
        rules.sort_by_key(width);
    }
    of_rules(rules, ethertype)
}

/// A policy of rules, whose indexes become their positions.
#[must_use]
pub fn of_rules(mut rules: Vec<Rule>, ethertype: EtherType) -> Policy {
    for (index, rule) in (0..).zip(&mut rules) {
        rule.rule_index = index;
    }
    let grouped = rules
        .iter()
        .any(|rule| matches!(rule.remote, Remote::Group(_)));
    let ids = (0..rules.len() as u128).map(|n| SecurityGroupRuleId::from(uuid::Uuid::from_u128(n)));
    Policy {
        ethertype,
        rule_ids: ids.collect(),
        remote_groups: (0..if grouped { 256 } else { 0 }).map(group_id).collect(),
        rules,
    }
}

/// Members of the groups of [`Shape::Groups`]: `count` addresses, each in one to four groups.
#[must_use]
pub fn members(ethertype: EtherType, count: u32) -> BTreeSet<SecurityGroupMember> {
    let mut random = Random(7);
    let mut members = BTreeSet::new();
    for _ in 0..count {
        let words = address(&mut random, ethertype);
        let address = ip(words, ethertype);
        for _ in 0..=random.below(4) {
            let security_group_id = group_id(random.below(256).into());
            members.insert(SecurityGroupMember {
                security_group_id,
                address: address.into(),
            });
        }
    }
    members
}

fn ip(words: [u32; 4], ethertype: EtherType) -> IpAddr {
    match ethertype {
        EtherType::Ipv4 => Ipv4Addr::from_bits(words[0]).into(),
        EtherType::Ipv6 => {
            let bits = words
                .iter()
                .fold(0u128, |bits, word| bits << 32 | u128::from(*word));
            Ipv6Addr::from_bits(bits).into()
        }
    }
}

/// Packets that rules match, packets at their borders, and others.
#[must_use]
pub fn tuples(policy: &Policy, members: &BTreeSet<SecurityGroupMember>, count: u32) -> Vec<Tuple> {
    let mut random = Random(u64::from(count));
    let members: Vec<[u32; 4]> = members
        .iter()
        .map(|m| address_words(m.address.addr()))
        .collect();
    (0..count)
        .map(|_| tuple(policy, &members, &mut random))
        .collect()
}

fn tuple(policy: &Policy, members: &[[u32; 4]], random: &mut Random) -> Tuple {
    let member = |random: &mut Random| {
        let n = random.below(u32::try_from(members.len().max(1)).unwrap_or(1)) as usize;
        members.get(n).copied()
    };
    let protocol = [6, 6, 17, 1, 58, 47][random.below(6) as usize];
    let remote = member(random).unwrap_or_else(|| address(random, policy.ethertype));
    let mut tuple = Tuple {
        protocol,
        port: random.port(65_536),
        remote,
    };
    let n = random.below(u32::try_from(policy.rules.len().max(1)).unwrap_or(1)) as usize;
    let Some(rule) = policy.rules.get(n).filter(|_| random.below(8) > 0) else {
        return tuple;
    };
    tuple.protocol = rule.protocol.unwrap_or(protocol);
    let (first, last) = rule.ports;
    tuple.port = match random.below(6) {
        0 => first,
        1 => last,
        2 => first.wrapping_sub(1),
        3 => last.wrapping_add(1),
        _ => first + random.port(u32::from(last - first) + 1),
    };
    if let Remote::Prefix { address, mask } = rule.remote {
        tuple.remote = std::array::from_fn(|n| address[n] | (tuple.remote[n] & !mask[n]));
        if random.below(8) == 0 {
            let last_word = if policy.ethertype == EtherType::Ipv4 {
                0
            } else {
                3
            };
            tuple.remote[last_word] = tuple.remote[last_word].wrapping_add(1);
        }
    }
    tuple
}
