//! The decision tree: which comparisons find the smallest matching rule. Pure.
//!
//! A rule is a box: a range in each of six fields (protocol, port, four words of the remote address), and perhaps a
//! group bit. A node knows the region that it is reached for; rules that the region cannot meet, or that an earlier
//! rule hides there, are gone. It is then one of: a cut of one field ([`Node::Cut`]), two parts asked one after the
//! other ([`Node::Both`]), a few rules in order ([`Node::Leaf`]), or rules that differ in their groups
//! ([`Node::Groups`]).
//!
//! Guarantees: any packet is answered as by a walk over the list; rules in all leaves together are at most
//! [`GROWTH_MAX`] times the rules given, whatever they are. Wide rules in several fields at once are what would break
//! that: they are taken out and asked as a second part.

use super::{Remote, Rule};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Fields of a box.
pub(super) const FIELDS: usize = 6;
/// Rules of a leaf that are asked in order.
const LEAF_RULES: usize = 4;
/// Rules in the leaves, as a multiple of the rules given.
const GROWTH_MAX: usize = 16;
/// If more than this share of a node's rules (tenths) has nothing to say about the field that is to be cut, they are
/// asked as a second part.
const WILD_TENTHS: usize = 2;
/// Up to how many rules each is compared with each for one hiding the other.
const HIDING_RULES_MAX: usize = 48;
/// Cuts on the way to a leaf; what is still undecided there is asked in order.
const DEPTH_MAX: usize = 96;

/// A rule as ranges, both ends included. Fields: protocol, port, remote words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Boxed {
    pub(super) rule_index: u32,
    pub(super) first: [u32; FIELDS],
    pub(super) last: [u32; FIELDS],
    pub(super) group: Option<u8>,
}

/// A part of the space of packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) first: [u32; FIELDS],
    pub(super) last: [u32; FIELDS],
}

/// A part of the tree. Regions are those that the part is reached for: what they imply need not be asked again.
#[derive(Debug)]
pub(super) enum Node {
    /// `field < value` goes left, else right.
    Cut {
        field: usize,
        value: u32,
        left: Box<Self>,
        right: Box<Self>,
    },
    /// Both are asked; the smaller index wins.
    Both { first: Box<Self>, second: Box<Self> },
    /// Rules in ascending order: the first that matches wins.
    Leaf { region: Region, rules: Vec<Boxed> },
    /// The trees of the groups that the remote address is in are asked; the smallest index wins. In order of group.
    Groups { parts: Vec<(u8, Self)> },
}

impl Region {
    /// All packets.
    pub(super) const ALL: Self = Self {
        first: [0; FIELDS],
        last: [0xff, 0xffff, u32::MAX, u32::MAX, u32::MAX, u32::MAX],
    };
}

impl Boxed {
    fn of(rule: &Rule) -> Self {
        let mut first = Region::ALL.first;
        let mut last = Region::ALL.last;
        if let Some(protocol) = rule.protocol {
            (first[0], last[0]) = (protocol.into(), protocol.into());
        }
        (first[1], last[1]) = (rule.ports.0.into(), rule.ports.1.into());
        let mut group = None;
        match rule.remote {
            Remote::Any => {}
            Remote::Group(bit) => group = Some(bit),
            Remote::Prefix { address, mask } => {
                for word in 0..4 {
                    first[2 + word] = address[word] & mask[word];
                    last[2 + word] = address[word] | !mask[word];
                }
            }
        }
        Self {
            rule_index: rule.rule_index,
            first,
            last,
            group,
        }
    }

    /// The field says nothing more once the region is known.
    pub(super) fn covers_field(&self, region: &Region, field: usize) -> bool {
        self.first[field] <= region.first[field] && self.last[field] >= region.last[field]
    }

    /// The rule matches in all of the region, but for its group.
    pub(super) fn covers(&self, region: &Region) -> bool {
        (0..FIELDS).all(|field| self.covers_field(region, field))
    }

    /// Inside the region, this rule matches whatever `other` matches.
    fn hides(&self, other: &Self, region: &Region) -> bool {
        (self.group.is_none() || self.group == other.group)
            && (0..FIELDS).all(|field| {
                self.first[field] <= other.first[field].max(region.first[field])
                    && self.last[field] >= other.last[field].min(region.last[field])
            })
    }
}

impl Node {
    /// The tree for rules in ascending order of index.
    pub(super) fn of(rules: &[Rule]) -> Self {
        let boxed = rules
            .iter()
            .map(Boxed::of)
            .filter(|rule| rule.first[1] <= rule.last[1]);
        let (grouped, open): (Vec<Boxed>, Vec<Boxed>) =
            boxed.partition(|rule| rule.group.is_some());
        if grouped.len() <= LEAF_RULES {
            let mut all = [grouped, open].concat();
            all.sort_by_key(|rule| rule.rule_index);
            return Self::root(all);
        }
        let groups = Self::groups(grouped);
        if open.is_empty() {
            return groups;
        }
        Self::Both {
            first: Box::new(Self::root(open)),
            second: Box::new(groups),
        }
    }

    fn root(rules: Vec<Boxed>) -> Self {
        let budget = rules.len() * GROWTH_MAX + LEAF_RULES;
        build(rules, Region::ALL, Bounds { budget, depth: 0 })
    }

    fn groups(mut rules: Vec<Boxed>) -> Self {
        rules.sort_by_key(|rule| (rule.group, rule.rule_index));
        let parts = rules
            .chunk_by(|x, y| x.group == y.group)
            .filter_map(|rules| {
                let bit = rules.first()?.group?;
                let open = rules.iter().map(|rule| Boxed {
                    group: None,
                    ..*rule
                });
                Some((bit, Self::root(open.collect())))
            });
        Self::Groups {
            parts: parts.collect(),
        }
    }

    /// The smallest index that could be answered.
    pub(super) fn rule_index_min(&self) -> u32 {
        match self {
            Self::Cut { left, right, .. } => left.rule_index_min().min(right.rule_index_min()),
            Self::Both { first, second } => first.rule_index_min().min(second.rule_index_min()),
            Self::Leaf { rules, .. } => rules.first().map_or(u32::MAX, |rule| rule.rule_index),
            Self::Groups { parts } => {
                let least = parts.iter().map(|(_, part)| part.rule_index_min());
                least.min().unwrap_or(u32::MAX)
            }
        }
    }
}

/// Takes away what can never be answered in the region. Rules are in ascending order.
fn prune(rules: &mut Vec<Boxed>, region: &Region) {
    let end = rules
        .iter()
        .position(|rule| rule.group.is_none() && rule.covers(region));
    rules.truncate(end.map_or(rules.len(), |end| end + 1));
    if rules.len() <= HIDING_RULES_MAX {
        let mut kept: Vec<Boxed> = Vec::with_capacity(rules.len());
        for rule in rules.iter() {
            if !kept.iter().any(|earlier| earlier.hides(rule, region)) {
                kept.push(*rule);
            }
        }
        *rules = kept;
    }
}

/// What a part of the tree may still use up.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Rules in its leaves together; at least the rules given.
    budget: usize,
    /// How deep it is.
    depth: usize,
}

impl Bounds {
    /// Divides in the proportion of `first` to `second`.
    fn divide(self, first: usize, second: usize) -> (Self, Self) {
        let (depth, share) = (self.depth + 1, self.budget * first / (first + second));
        (
            Self {
                budget: share,
                depth,
            },
            Self {
                budget: self.budget - share,
                depth,
            },
        )
    }
}

fn build(mut rules: Vec<Boxed>, region: Region, bounds: Bounds) -> Node {
    prune(&mut rules, &region);
    if rules.len() <= LEAF_RULES || bounds.depth >= DEPTH_MAX {
        return Node::Leaf { region, rules };
    }
    if let Some(field) = only_field(&rules, &region) {
        return intervals(&rules, region, field);
    }
    match best_cut(&rules, &region) {
        Some(cut) => build_cut(rules, region, bounds, cut),
        None => Node::Leaf { region, rules },
    }
}

/// The one field that all rules differ in, if it is one and there are no groups.
fn only_field(rules: &[Boxed], region: &Region) -> Option<usize> {
    let matters = |field: &usize| rules.iter().any(|rule| !rule.covers_field(region, *field));
    let mut fields = (0..FIELDS).filter(matters);
    let first = fields.next();
    let plain = rules.iter().all(|rule| rule.group.is_none());
    first.filter(|_| plain && fields.next().is_none())
}

/// Ranges of one field: cut at every place where the answer changes.
fn intervals(rules: &[Boxed], region: Region, field: usize) -> Node {
    let starts = rules
        .iter()
        .map(|rule| rule.first[field].max(region.first[field]));
    let ends = rules
        .iter()
        .filter_map(|rule| rule.last[field].checked_add(1));
    let ends = ends.filter(|end| *end <= region.last[field]);
    let mut points: Vec<u32> = starts.chain(ends).chain([region.first[field]]).collect();
    points.sort_unstable();
    points.dedup();
    let mut answers: Vec<(u32, Option<Boxed>)> = Vec::new();
    let mut starting: Vec<&Boxed> = rules.iter().collect();
    starting.sort_by_key(|rule| Reverse(rule.first[field]));
    // Rules that have started, the smallest first; those that are over go when they come up.
    let mut open: BinaryHeap<Reverse<(u32, u32)>> = BinaryHeap::new();
    for point in points {
        while starting
            .last()
            .is_some_and(|rule| rule.first[field] <= point)
        {
            if let Some(rule) = starting.pop() {
                open.push(Reverse((rule.rule_index, rule.last[field])));
            }
        }
        while open.peek().is_some_and(|Reverse((_, last))| *last < point) {
            open.pop();
        }
        let answer = open.peek().map(|Reverse((rule_index, _))| Boxed {
            rule_index: *rule_index,
            first: Region::ALL.first,
            last: Region::ALL.last,
            group: None,
        });
        if answers.last().is_none_or(|(_, before)| *before != answer) {
            answers.push((point, answer));
        }
    }
    search(&answers, region, field)
}

/// A binary search for the last point that is not above the field.
fn search(answers: &[(u32, Option<Boxed>)], region: Region, field: usize) -> Node {
    if answers.len() <= 1 {
        let rules = answers.iter().filter_map(|(_, answer)| *answer).collect();
        return Node::Leaf { region, rules };
    }
    let (left, right) = answers.split_at(answers.len() / 2);
    let value = right[0].0;
    let (mut below, mut above) = (region, region);
    below.last[field] = value - 1;
    above.first[field] = value;
    Node::Cut {
        field,
        value,
        left: Box::new(search(left, below, field)),
        right: Box::new(search(right, above, field)),
    }
}

/// A cut, with how many rules it leaves on which side.
#[derive(Clone, Copy, Debug)]
struct Cut {
    field: usize,
    value: u32,
    left: usize,
    right: usize,
}

impl Cut {
    fn of(rules: &[Boxed], field: usize, value: u32) -> Self {
        let left = rules
            .iter()
            .filter(|rule| rule.first[field] < value)
            .count();
        let right = rules
            .iter()
            .filter(|rule| rule.last[field] >= value)
            .count();
        Self {
            field,
            value,
            left,
            right,
        }
    }

    /// What is left to look through afterwards, if a packet's way grows with a side's share: halves are best, and
    /// rules on both sides count twice.
    fn cost(&self) -> usize {
        self.left * self.left + self.right * self.right
    }
}

/// The best of the middle ends of ranges, over all fields; none if every rule covers the region.
fn best_cut(rules: &[Boxed], region: &Region) -> Option<Cut> {
    let mut best: Option<Cut> = None;
    for field in 0..FIELDS {
        let inside = |end: &u32| *end > region.first[field] && *end <= region.last[field];
        let firsts: Vec<u32> = rules
            .iter()
            .map(|rule| rule.first[field])
            .filter(inside)
            .collect();
        let afters = rules
            .iter()
            .filter_map(|rule| rule.last[field].checked_add(1));
        let afters: Vec<u32> = afters.filter(inside).collect();
        let all = [firsts.as_slice(), afters.as_slice()].concat();
        for mut ends in [firsts, afters, all] {
            if ends.is_empty() {
                continue;
            }
            let middle = ends.len() / 2;
            let value = *ends.select_nth_unstable(middle).1;
            let cut = Cut::of(rules, field, value);
            if best.is_none_or(|best| cut.cost() < best.cost()) {
                best = Some(cut);
            }
        }
    }
    best
}

fn build_cut(rules: Vec<Boxed>, region: Region, bounds: Bounds, cut: Cut) -> Node {
    let field = cut.field;
    let wild = rules
        .iter()
        .filter(|rule| rule.covers_field(&region, field))
        .count();
    let specific = wild * 10 <= rules.len() * WILD_TENTHS + 10;
    if specific && cut.left + cut.right <= bounds.budget {
        let side =
            |keep: &dyn Fn(&Boxed) -> bool| rules.iter().filter(|r| keep(r)).copied().collect();
        let left_rules = side(&|rule| rule.first[field] < cut.value);
        let right_rules = side(&|rule| rule.last[field] >= cut.value);
        let (mut left, mut right) = (region, region);
        left.last[field] = cut.value - 1;
        right.first[field] = cut.value;
        let (left_bounds, right_bounds) = bounds.divide(cut.left, cut.right);
        return Node::Cut {
            field,
            value: cut.value,
            left: Box::new(build(left_rules, left, left_bounds)),
            right: Box::new(build(right_rules, right, right_bounds)),
        };
    }
    let on_both = |rule: &Boxed| rule.first[field] < cut.value && rule.last[field] >= cut.value;
    let (second, first): (Vec<Boxed>, Vec<Boxed>) = rules.iter().copied().partition(|rule| {
        if specific {
            on_both(rule)
        } else {
            rule.covers_field(&region, field)
        }
    });
    if first.is_empty() || second.is_empty() {
        return Node::Leaf { region, rules };
    }
    let (first_bounds, second_bounds) = bounds.divide(first.len(), second.len());
    Node::Both {
        first: Box::new(build(first, region, first_bounds)),
        second: Box::new(build(second, region, second_bounds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::harness::{Tuple, groups_of};
    use crate::policy::sets::{self, Shape};
    use std::collections::BTreeSet;
    use weft_model::EtherType;

    struct Walk<'a> {
        fields: [u32; FIELDS],
        groups: &'a [bool; 256],
        answer: u32,
        steps: usize,
    }

    impl Walk<'_> {
        fn matches(&mut self, rule: &Boxed) -> bool {
            self.steps += 1;
            (0..FIELDS).all(|f| (rule.first[f]..=rule.last[f]).contains(&self.fields[f]))
                && rule.group.is_none_or(|bit| self.groups[usize::from(bit)])
        }

        fn walk(&mut self, node: &Node) {
            self.steps += 1;
            match node {
                Node::Cut {
                    field,
                    value,
                    left,
                    right,
                } => {
                    self.walk(if self.fields[*field] < *value {
                        left
                    } else {
                        right
                    });
                }
                Node::Both { first, second } => {
                    self.walk(first);
                    if self.answer > second.rule_index_min() {
                        self.walk(second);
                    }
                }
                Node::Leaf { rules, .. } => {
                    for rule in rules {
                        if self.matches(rule) {
                            self.answer = self.answer.min(rule.rule_index);
                            return;
                        }
                    }
                }
                Node::Groups { parts } => {
                    for (bit, part) in parts
                        .iter()
                        .filter(|(bit, _)| self.groups[usize::from(*bit)])
                    {
                        let _ = bit;
                        self.walk(part);
                    }
                }
            }
        }
    }

    /// Rules in all leaves together.
    fn rules_of(node: &Node) -> usize {
        match node {
            Node::Cut { left, right, .. } => rules_of(left) + rules_of(right),
            Node::Both { first, second } => rules_of(first) + rules_of(second),
            Node::Leaf { rules, .. } => rules.len(),
            Node::Groups { parts } => parts.iter().map(|(_, part)| rules_of(part)).sum(),
        }
    }

    fn question<'a>(tuple: &Tuple, groups: &'a [bool; 256]) -> Walk<'a> {
        let Tuple {
            protocol,
            port,
            remote,
        } = *tuple;
        let [a, b, c, d] = remote;
        let fields = [protocol.into(), port.into(), a, b, c, d];
        Walk {
            fields,
            groups,
            answer: u32::MAX,
            steps: 0,
        }
    }

    /// Packets of each set.
    const TUPLES: u32 = 200;

    /// Steps (cuts taken and rules compared): the mean, and the worst.
    fn steps(shape: Shape, ethertype: EtherType, count: u32) -> (usize, usize) {
        let policy = sets::policy(shape, ethertype, count);
        let members = sets::members(ethertype, 500);
        let members = if shape == Shape::Groups {
            members
        } else {
            BTreeSet::new()
        };
        let tree = Node::of(&policy.rules);
        assert!(rules_of(&tree) <= policy.rules.len() * GROWTH_MAX + LEAF_RULES);
        let (mut sum, mut worst) = (0, 0);
        for tuple in sets::tuples(&policy, &members, TUPLES) {
            let mut groups = [false; 256];
            groups_of(&policy, &tuple, &members)
                .iter()
                .for_each(|bit| groups[usize::from(*bit)] = true);
            let mut walk = question(&tuple, &groups);
            walk.walk(&tree);
            let answer = Some(walk.answer).filter(|answer| *answer != u32::MAX);
            assert_eq!(
                answer,
                policy.answer(&tuple, &members),
                "{shape:?} {tuple:?}"
            );
            (sum, worst) = (sum + walk.steps, worst.max(walk.steps));
        }
        (sum / TUPLES as usize, worst)
    }

    #[test]
    fn ten_thousand_rules_of_any_shape_take_few_steps() {
        for ethertype in [EtherType::Ipv4, EtherType::Ipv6] {
            for shape in Shape::ALL {
                let (mean, worst) = steps(shape, ethertype, 10_000);
                assert!(mean <= 36, "{shape:?} {ethertype:?}: {mean} steps");
                assert!(
                    worst <= 400,
                    "{shape:?} {ethertype:?}: {worst} steps at worst"
                );
            }
        }
    }

    #[test]
    fn random_small_sets_answer_as_the_list_does() {
        for shape in Shape::ALL {
            for count in (0..40).chain([64, 100, 200]) {
                steps(shape, EtherType::Ipv4, count);
            }
        }
    }

    #[test]
    fn a_rule_without_ports_between_its_ends_matches_nothing() {
        let mut rule = sets::policy(Shape::Lines, EtherType::Ipv4, 1).rules[0];
        rule.ports = (2, 1);
        assert_eq!(rules_of(&Node::of(&[rule])), 0);
    }
}
