//! Security groups compiled: whether a port's rules allow a packet that opens a session. docs/pipeline.md, "Rules".
//!
//! Guarantees: the same answer as all rules one after the other. It does not say which rule allowed it: whoever wants to
//! know asks the reference engine. Cost: one search among the addresses that rules name, one for the groups of the remote
//! address, and for each hit one search among ports; the number of rules shows only in the logarithm.

use super::map::{FastMap, Seed};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use weft_dataplane::Tuple;
use weft_dataplane::stage::decode::{has_ports, is_icmp};
use weft_model::{
    AddressGroupId, Direction, EtherType, HostSnapshot, PortRange, Remote, SecurityGroupId,
    SecurityGroupRule,
};
use weft_wire::protocol;

/// Protocols that have ports.
const PORT_PROTOCOLS: [u8; 5] = [
    protocol::TCP,
    protocol::UDP,
    protocol::SCTP,
    protocol::DCCP,
    protocol::UDP_LITE,
];
/// Ranges that are searched; more become one bit a port.
const RANGES_MAX: usize = 64;

/// Ports, or ICMP types and codes (type · 256 + code), that are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Set {
    #[default]
    Nothing,
    All,
    /// In order, without overlap.
    Ranges(Vec<(u16, u16)>),
    Bits(Box<[u64]>),
}

impl Set {
    #[inline]
    fn has(&self, value: u16) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Ranges(ranges) => {
                let behind = ranges.partition_point(|(first, _)| *first <= value);
                let before = behind.checked_sub(1).and_then(|at| ranges.get(at));
                before.is_some_and(|(_, last)| value <= *last)
            }
            Self::Bits(words) => {
                let word = words.get(usize::from(value >> 6)).copied();
                word.unwrap_or_default() >> (value & 63) & 1 == 1
            }
        }
    }

    fn of(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        match merged.as_slice() {
            [] => Self::Nothing,
            [(0, u16::MAX)] => Self::All,
            few if few.len() <= RANGES_MAX => Self::Ranges(merged),
            many => {
                let mut words = vec![0u64; 1024];
                for value in many.iter().flat_map(|(first, last)| *first..=*last) {
                    if let Some(word) = words.get_mut(usize::from(value >> 6)) {
                        *word |= 1 << (value & 63);
                    }
                }
                Self::Bits(words.into_boxed_slice())
            }
        }
    }
}

/// What rules for one remote allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Allowed {
    all: bool,
    tcp: Set,
    udp: Set,
    icmp: Set,
    others: Vec<(u8, Set)>,
}

impl Allowed {
    #[inline]
    fn has(&self, asked: &Question) -> bool {
        self.all
            || match asked.protocol {
                protocol::TCP => self.tcp.has(asked.value),
                protocol::UDP => self.udp.has(asked.value),
                _ if asked.icmp => self.icmp.has(asked.value),
                number => {
                    let other = self.others.iter().find(|(have, _)| *have == number);
                    other.is_some_and(|(_, set)| set.has(asked.value))
                }
            }
    }
}

/// What the rules see of a packet.
#[derive(Clone, Copy, Debug)]
struct Question {
    protocol: u8,
    icmp: bool,
    /// The destination port, or ICMP's type and code, or 0.
    value: u16,
}

impl Question {
    fn new(tuple: &Tuple, icmp: Option<(u8, u8)>) -> Self {
        let is_icmp = is_icmp(tuple.is_ipv6(), tuple.protocol);
        let value = match icmp.filter(|_| is_icmp) {
            Some((kind, code)) => u16::from_be_bytes([kind, code]),
            None => tuple.destination_port,
        };
        Self {
            protocol: tuple.protocol,
            icmp: is_icmp,
            value,
        }
    }
}

/// Rules for one remote, while they are gathered.
#[derive(Default)]
struct Gathered {
    all: bool,
    ranges: std::collections::BTreeMap<u8, Vec<(u16, u16)>>,
}

impl Gathered {
    fn add(&mut self, rule: &SecurityGroupRule) {
        let v6 = rule.ethertype == EtherType::Ipv6;
        let icmp = if v6 { protocol::ICMPV6 } else { protocol::ICMP };
        let numbers = match rule.protocol {
            None => PORT_PROTOCOLS.iter().copied().chain([icmp]).collect(),
            Some(protocol::ICMP) => vec![icmp],
            Some(number) => vec![number],
        };
        match (rule.protocol, rule.port_range) {
            (None, None) => self.all = true,
            (Some(_), None) => {
                for number in numbers {
                    self.ranges.entry(number).or_default().push((0, u16::MAX));
                }
            }
            (_, Some(range)) => {
                for number in numbers {
                    let values = Self::values(range, number == icmp, number);
                    self.ranges.entry(number).or_default().extend(values);
                }
            }
        }
    }

    fn values(range: PortRange, icmp: bool, number: u8) -> Option<(u16, u16)> {
        if icmp {
            let kind = u8::try_from(range.first).ok()?;
            let (first, last) = match range.last {
                None => (0, u8::MAX),
                Some(code) => {
                    let code = u8::try_from(code).ok()?;
                    (code, code)
                }
            };
            return Some((
                u16::from_be_bytes([kind, first]),
                u16::from_be_bytes([kind, last]),
            ));
        }
        let last = range.last.unwrap_or(u16::MAX);
        (has_ports(number) && range.first <= last).then_some((range.first, last))
    }

    fn finish(self, v6: bool) -> Allowed {
        let icmp = if v6 { protocol::ICMPV6 } else { protocol::ICMP };
        let mut allowed = Allowed {
            all: self.all,
            ..Allowed::default()
        };
        for (number, ranges) in self.ranges {
            let set = Set::of(ranges);
            match number {
                protocol::TCP => allowed.tcp = set,
                protocol::UDP => allowed.udp = set,
                number if number == icmp => allowed.icmp = set,
                number => allowed.others.push((number, set)),
            }
        }
        allowed
    }
}

/// Values by address range: every range that holds an address is found, the longest first.
#[derive(Clone, Debug)]
struct Prefixes<T> {
    /// Where another longest range begins, and which.
    starts: Vec<u128>,
    longest: Vec<Option<u32>>,
    /// Each with the next longer range around it.
    nodes: Vec<(T, Option<u32>)>,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

impl<T> Prefixes<T> {
    /// Of ranges of one family, each once.
    fn new(ranges: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let mut sorted: Vec<(u128, u128, T)> = ranges
            .into_iter()
            .map(|(net, value)| (number(net.network()), number(net.broadcast()), value))
            .collect();
        // An outer range comes before what is inside of it.
        sorted.sort_by_key(|range| (range.0, std::cmp::Reverse(range.1)));
        let mut made = Self {
            starts: vec![0],
            longest: vec![None],
            nodes: Vec::new(),
        };
        let mut open: Vec<(u128, u32)> = Vec::new();
        for (first, last, value) in sorted {
            made.close(&mut open, Some(first));
            let outer = open.last().map(|(_, node)| *node);
            let node = u32::try_from(made.nodes.len()).unwrap_or(u32::MAX);
            made.nodes.push((value, outer));
            made.begin(first, Some(node));
            open.push((last, node));
        }
        made.close(&mut open, None);
        made
    }

    /// Ends the open ranges that end before `next`.
    fn close(&mut self, open: &mut Vec<(u128, u32)>, next: Option<u128>) {
        while let Some((last, _)) = open.last().copied()
            && next.is_none_or(|next| last < next)
        {
            open.pop();
            if let Some(behind) = last.checked_add(1) {
                self.begin(behind, open.last().map(|(_, node)| *node));
            }
        }
    }

    fn begin(&mut self, start: u128, node: Option<u32>) {
        if self.starts.last() == Some(&start)
            && let Some(last) = self.longest.last_mut()
        {
            *last = node;
            return;
        }
        self.starts.push(start);
        self.longest.push(node);
    }

    #[inline]
    fn all(&self, address: IpAddr) -> impl Iterator<Item = &T> {
        let behind = self
            .starts
            .partition_point(|start| *start <= number(address));
        let mut at = behind
            .checked_sub(1)
            .and_then(|at| self.longest.get(at).copied().flatten());
        std::iter::from_fn(move || {
            let (value, outer) = self.nodes.get(usize::try_from(at?).ok()?)?;
            at = *outer;
            Some(value)
        })
    }
}

/// Which security groups an address is a member of, by numbers of groups.
#[derive(Debug)]
pub(super) struct Members {
    numbers: FastMap<SecurityGroupId, u32>,
    hosts: FastMap<IpAddr, Groups>,
    ranges: [Prefixes<Vec<u32>>; 2],
}

/// The groups of one address: hardly ever more than one.
#[derive(Debug)]
enum Groups {
    One(u32),
    More(Vec<u32>),
}

impl Groups {
    fn add(&mut self, group: u32) {
        match self {
            Self::One(first) => *self = Self::More(vec![*first, group]),
            Self::More(all) => all.push(group),
        }
    }

    fn all(&self) -> &[u32] {
        match self {
            Self::One(group) => std::slice::from_ref(group),
            Self::More(all) => all,
        }
    }
}

impl Members {
    pub(super) fn new(snapshot: &HostSnapshot, seed: Seed) -> Self {
        let mut numbers: FastMap<SecurityGroupId, u32> = FastMap::with_hasher(seed);
        let members = snapshot.security_group_members.len();
        let mut hosts: FastMap<IpAddr, Groups> = FastMap::with_capacity_and_hasher(members, seed);
        let mut wide: std::collections::BTreeMap<IpNet, Vec<u32>> = Default::default();
        for member in &snapshot.security_group_members {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            let group = *numbers.entry(member.security_group_id).or_insert(next);
            let net = member.address;
            if net.prefix_len() == net.max_prefix_len() {
                let groups = hosts.entry(net.addr());
                groups
                    .and_modify(|groups| groups.add(group))
                    .or_insert(Groups::One(group));
            } else {
                wide.entry(net.trunc()).or_default().push(group);
            }
        }
        let (v4, v6) = wide
            .into_iter()
            .partition::<Vec<_>, _>(|(net, _)| net.addr().is_ipv4());
        Self {
            numbers,
            hosts,
            ranges: [Prefixes::new(v4), Prefixes::new(v6)],
        }
    }

    fn any(&self, address: IpAddr, mut fits: impl FnMut(u32) -> bool) -> bool {
        let mut any = |groups: &[u32]| groups.iter().any(|group| fits(*group));
        let [v4, v6] = &self.ranges;
        let ranges = if address.is_ipv4() { v4 } else { v6 };
        let here = self.hosts.get(&address).map(Groups::all);
        here.is_some_and(&mut any) || ranges.all(address).any(|groups| any(groups))
    }
}

/// The rules of one direction and family of a set of groups.
#[derive(Debug)]
pub(super) struct Policy {
    everybody: Allowed,
    prefixes: Option<Prefixes<Allowed>>,
    groups: FastMap<u32, Allowed>,
}

impl Policy {
    /// Whether a tuple, as the port sees it, is allowed; `remote` is who is not the port.
    #[inline]
    pub(super) fn allows(
        &self,
        members: &Members,
        tuple: &Tuple,
        icmp: Option<(u8, u8)>,
        remote: IpAddr,
    ) -> bool {
        let asked = Question::new(tuple, icmp);
        if self.everybody.has(&asked) {
            return true;
        }
        let by_prefix = |prefixes: &Prefixes<Allowed>| {
            let mut all = prefixes.all(remote);
            all.any(|allowed| allowed.has(&asked))
        };
        if self.prefixes.as_ref().is_some_and(by_prefix) {
            return true;
        }
        let in_group = |group| {
            let allowed = self.groups.get(&group);
            allowed.is_some_and(|allowed| allowed.has(&asked))
        };
        !self.groups.is_empty() && members.any(remote, in_group)
    }

    fn new(
        rules: &[&SecurityGroupRule],
        v6: bool,
        members: &Members,
        snapshot: &HostSnapshot,
        seed: Seed,
    ) -> Self {
        let mut everybody = Gathered::default();
        let mut prefixes: std::collections::BTreeMap<IpNet, Gathered> = Default::default();
        let mut groups: std::collections::BTreeMap<u32, Gathered> = Default::default();
        for rule in rules {
            match rule.remote {
                Remote::Any => everybody.add(rule),
                Remote::Prefix(net) => prefixes.entry(net.trunc()).or_default().add(rule),
                Remote::Group(group) => {
                    // A group without members matches nobody.
                    if let Some(number) = members.numbers.get(&group) {
                        groups.entry(*number).or_default().add(rule);
                    }
                }
                Remote::AddressGroup(group) => {
                    for net in address_group(snapshot, group) {
                        prefixes.entry(net.trunc()).or_default().add(rule);
                    }
                }
            }
        }
        // A rule matches addresses of its own family only.
        let family = prefixes
            .into_iter()
            .filter(|(net, _)| net.addr().is_ipv6() == v6)
            .map(|(net, gathered)| (net, gathered.finish(v6)));
        let family: Vec<_> = family.collect();
        let mut made = FastMap::with_hasher(seed);
        made.extend(groups.into_iter().map(|(group, g)| (group, g.finish(v6))));
        Self {
            everybody: everybody.finish(v6),
            prefixes: (!family.is_empty()).then(|| Prefixes::new(family)),
            groups: made,
        }
    }
}

fn address_group(snapshot: &HostSnapshot, group: AddressGroupId) -> impl Iterator<Item = &IpNet> {
    let group = snapshot.address_groups.get(&group);
    group.into_iter().flat_map(|group| &group.addresses)
}

/// All policies of a set of groups.
#[derive(Debug)]
pub(super) struct Policies {
    /// By direction (egress, ingress) and family (v4, v6).
    by_way: [[Policy; 2]; 2],
}

impl Policies {
    pub(super) fn get(&self, direction: Direction, v6: bool) -> &Policy {
        let [[egress4, egress6], [ingress4, ingress6]] = &self.by_way;
        match (direction, v6) {
            (Direction::Egress, false) => egress4,
            (Direction::Egress, true) => egress6,
            (Direction::Ingress, false) => ingress4,
            (Direction::Ingress, true) => ingress6,
        }
    }
}

/// Policies of a snapshot: ports with the same groups share theirs.
pub(super) struct PolicyMaker<'a> {
    snapshot: &'a HostSnapshot,
    members: &'a Members,
    seed: Seed,
    rules: FastMap<SecurityGroupId, Vec<&'a SecurityGroupRule>>,
    made: FastMap<Vec<SecurityGroupId>, Arc<Policies>>,
}

impl<'a> PolicyMaker<'a> {
    pub(super) fn new(snapshot: &'a HostSnapshot, members: &'a Members, seed: Seed) -> Self {
        let mut rules: FastMap<_, Vec<_>> = FastMap::with_hasher(seed);
        for rule in snapshot.security_group_rules.values() {
            rules.entry(rule.security_group_id).or_default().push(rule);
        }
        Self {
            snapshot,
            members,
            seed,
            rules,
            made: FastMap::with_hasher(seed),
        }
    }

    pub(super) fn of(&mut self, groups: &[SecurityGroupId]) -> Arc<Policies> {
        let mut groups = groups.to_vec();
        groups.sort_unstable();
        groups.dedup();
        if let Some(made) = self.made.get(&groups) {
            return Arc::clone(made);
        }
        let rules: Vec<&SecurityGroupRule> = groups
            .iter()
            .filter_map(|group| self.rules.get(group))
            .flatten()
            .copied()
            .collect();
        let policy = |direction, ethertype| {
            let some: Vec<&SecurityGroupRule> = rules
                .iter()
                .filter(|rule| rule.direction == direction && rule.ethertype == ethertype)
                .copied()
                .collect();
            let v6 = ethertype == EtherType::Ipv6;
            Policy::new(&some, v6, self.members, self.snapshot, self.seed)
        };
        let by_way = [Direction::Egress, Direction::Ingress].map(|direction| {
            [EtherType::Ipv4, EtherType::Ipv6].map(|ethertype| policy(direction, ethertype))
        });
        let made = Arc::new(Policies { by_way });
        self.made.insert(groups, Arc::clone(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_that_holds_an_address_is_found() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let nets = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.3/32",
            "10.1.2.4/32",
            "255.255.255.255/32",
        ];
        let prefixes = Prefixes::new(nets.map(|text| (net(text), net(text))));
        for address in [
            "0.0.0.0",
            "9.255.255.255",
            "10.0.0.0",
            "10.1.2.2",
            "10.1.2.3",
            "10.1.2.4",
            "10.1.2.5",
            "10.2.0.0",
            "11.0.0.0",
            "255.255.255.255",
        ] {
            let address: IpAddr = address.parse().unwrap();
            let mut expected: Vec<IpNet> = nets
                .map(net)
                .into_iter()
                .filter(|n| n.contains(&address))
                .collect();
            expected.reverse();
            let found: Vec<IpNet> = prefixes.all(address).copied().collect();
            assert_eq!(found, expected, "{address}");
        }
        let none: Prefixes<u8> = Prefixes::new([]);
        assert_eq!(none.all("::1".parse().unwrap()).count(), 0);
    }

    #[test]
    fn sets_of_few_and_of_many_ranges_agree() {
        let many: Vec<(u16, u16)> = (0..1_000u16).map(|n| (n * 60, n * 60 + n % 50)).collect();
        let set = Set::of(many.clone());
        assert!(matches!(set, Set::Bits(_)));
        for value in 0..=u16::MAX {
            let expected = many
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&value));
            assert_eq!(set.has(value), expected, "{value}");
        }
        let few = Set::of(vec![(10, 20), (15, 30), (31, 40), (50, 50)]);
        assert_eq!(few, Set::Ranges(vec![(10, 40), (50, 50)]));
        let inside: Vec<u16> = (0..100).filter(|value| few.has(*value)).collect();
        assert_eq!(inside, (10..=40).chain([50]).collect::<Vec<_>>());
        assert_eq!(Set::of(vec![(0, 5), (6, u16::MAX)]), Set::All);
    }
}
