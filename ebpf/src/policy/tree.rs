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

/// Fields of a box.
pub(super) const FIELDS: usize = 6;
/// Rules of a leaf that are asked in order.
const LEAF_RULES: usize = 4;
/// Rules in the leaves, as a multiple of the rules given.
const GROWTH_MAX: usize = 4;
/// A cut may leave at most this share of the rules on both sides (tenths), or they become a second part.
const REPLICATION_TENTHS: usize = 3;
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
    /// Rules with groups, in order of group: the smallest index that matches wins.
    Groups { region: Region, rules: Vec<Boxed> },
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
        let boxed: Vec<Boxed> = rules
            .iter()
            .map(Boxed::of)
            .filter(|b| b.first[1] <= b.last[1])
            .collect();
        let budget = boxed.len() * GROWTH_MAX + LEAF_RULES;
        build(boxed, Region::ALL, Bounds { budget, depth: 0 })
    }

    /// The smallest index that could be answered.
    pub(super) fn rule_index_min(&self) -> u32 {
        match self {
            Self::Cut { left, right, .. } => left.rule_index_min().min(right.rule_index_min()),
            Self::Both { first, second } => first.rule_index_min().min(second.rule_index_min()),
            Self::Leaf { rules, .. } | Self::Groups { rules, .. } => rules
                .iter()
                .map(|rule| rule.rule_index)
                .min()
                .unwrap_or(u32::MAX),
        }
    }
}

/// Takes away what can never be answered in the region. Rules are in ascending order.
fn prune(rules: &mut Vec<Boxed>, region: &Region) {
    let mut groups = [false; 256];
    let mut ended = false;
    rules.retain(|rule| {
        let hidden = ended || rule.group.is_some_and(|bit| groups[usize::from(bit)]);
        if !hidden && rule.covers(region) {
            match rule.group {
                None => ended = true,
                Some(bit) => groups[usize::from(bit)] = true,
            }
        }
        !hidden
    });
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
    match best_cut(&rules, &region) {
        Some(cut) => build_cut(rules, region, bounds, cut),
        None => build_groups(rules, region),
    }
}

/// A cut, with how many rules it leaves on which side.
#[derive(Clone, Copy, Debug)]
struct Cut {
    field: usize,
    value: u32,
    left: usize,
    right: usize,
    both: usize,
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
            both: left + right - rules.len(),
        }
    }

    /// Rules left to look through afterwards, and the price of writing some twice.
    fn cost(&self) -> usize {
        self.left.max(self.right) + self.both
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
    let few = cut.both * 10 <= rules.len() * REPLICATION_TENTHS + 10;
    if few && cut.left + cut.right <= bounds.budget {
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
    let (second, first): (Vec<Boxed>, Vec<Boxed>) = rules.iter().copied().partition(on_both);
    if first.is_empty() || second.is_empty() {
        return Node::Leaf { region, rules };
    }
    let (first_bounds, second_bounds) = bounds.divide(first.len(), second.len());
    Node::Both {
        first: Box::new(build(first, region, first_bounds)),
        second: Box::new(build(second, region, second_bounds)),
    }
}

/// Rules that all cover the region: at most the last is without a group.
fn build_groups(rules: Vec<Boxed>, region: Region) -> Node {
    let (mut with, without): (Vec<Boxed>, Vec<Boxed>) =
        rules.into_iter().partition(|rule| rule.group.is_some());
    with.sort_by_key(|rule| (rule.group, rule.rule_index));
    let groups = Node::Groups {
        region,
        rules: with,
    };
    if without.is_empty() {
        return groups;
    }
    let rest = Node::Leaf {
        region,
        rules: without,
    };
    Node::Both {
        first: Box::new(groups),
        second: Box::new(rest),
    }
}
