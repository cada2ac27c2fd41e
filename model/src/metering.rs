//! Metering labels: what of the traffic through routers' gateways is counted together.

use crate::{Direction, MeteringLabelId, limits};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A label: what any of its rules matches is counted, but for what one that excludes matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeteringLabel {
    /// At least one, at most [`crate::limits::METERING_RULES_MAX`].
    pub rules: Vec<MeteringRule>,
}

/// A rule of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeteringRule {
    /// As the router sees it: ingress comes in by the gateway, egress leaves by it.
    pub direction: Direction,
    /// Where it comes from; none for anywhere. Host bits are zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpNet>,
    /// Where it goes; none for anywhere. Host bits are zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpNet>,
    /// Whether it is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
}

/// What a label has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metered {
    /// Packets.
    pub packets: u64,
    /// Their bytes behind the Ethernet header.
    pub bytes: u64,
}

impl std::ops::AddAssign for Metered {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What one router counts in one direction and family: ranges of sources and of destinations, and the labels of what comes
/// from the one and goes to the other. The longest range that an address is in is the one that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeteringRegions {
    /// Ranges of sources; the first one is everything.
    pub sources: Vec<IpNet>,
    /// Ranges of destinations; the first one is everything.
    pub destinations: Vec<IpNet>,
    /// Which labels count what is from a source to a destination, by their indices; where there are none, nothing is.
    pub labels: BTreeMap<(usize, usize), BTreeSet<MeteringLabelId>>,
}

impl MeteringRegions {
    /// Of a router with these labels. Empty if the ranges make more than [`crate::limits::METERING_REGIONS_MAX`] pairs.
    #[must_use]
    pub fn new(
        all: &BTreeMap<MeteringLabelId, MeteringLabel>,
        labels: &[MeteringLabelId],
        direction: Direction,
        is_ipv6: bool,
    ) -> Self {
        let everything = if is_ipv6 {
            IpNet::V6(ipnet::Ipv6Net::default())
        } else {
            IpNet::V4(ipnet::Ipv4Net::default())
        };
        let fits = |range: &Option<IpNet>| range.is_none_or(|r| r.addr().is_ipv6() == is_ipv6);
        let labels = labels.iter().filter_map(|id| Some((*id, all.get(id)?)));
        let rules: Vec<(MeteringLabelId, &MeteringRule)> = labels
            .flat_map(|(id, label)| label.rules.iter().map(move |rule| (id, rule)))
            .filter(|(_, rule)| rule.direction == direction)
            .filter(|(_, rule)| fits(&rule.source) && fits(&rule.destination))
            .collect();
        let ranges = |of: fn(&MeteringRule) -> Option<IpNet>| {
            let named: BTreeSet<IpNet> = rules.iter().filter_map(|(_, rule)| of(rule)).collect();
            let named = named.into_iter().filter(|range| *range != everything);
            std::iter::once(everything).chain(named).collect::<Vec<_>>()
        };
        let (sources, destinations) = (ranges(|rule| rule.source), ranges(|rule| rule.destination));
        if sources.len() * destinations.len() > limits::METERING_REGIONS_MAX {
            return Self::default();
        }
        let mut regions = BTreeMap::new();
        for (from, source) in sources.iter().enumerate() {
            for (to, destination) in destinations.iter().enumerate() {
                let matching = |excluded: bool| {
                    let of = rules
                        .iter()
                        .filter(move |(_, rule)| rule.excluded == excluded);
                    let of = of.filter(|(_, rule)| {
                        rule.source.is_none_or(|range| range.contains(source))
                            && rule
                                .destination
                                .is_none_or(|range| range.contains(destination))
                    });
                    of.map(|(id, _)| *id).collect::<BTreeSet<_>>()
                };
                let counted = &matching(false) - &matching(true);
                if !counted.is_empty() {
                    regions.insert((from, to), counted);
                }
            }
        }
        Self {
            sources,
            destinations,
            labels: regions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(rules: &[(Option<&str>, Option<&str>, bool)]) -> MeteringLabel {
        let range = |text: &Option<&str>| text.map(|text| text.parse().unwrap());
        let rules = rules
            .iter()
            .map(|(source, destination, excluded)| MeteringRule {
                direction: Direction::Egress,
                source: range(source),
                destination: range(destination),
                excluded: *excluded,
            });
        MeteringLabel {
            rules: rules.collect(),
        }
    }

    #[test]
    fn the_longest_ranges_say_which_labels_count_and_an_exclusion_wins() {
        let (a, b) = (MeteringLabelId::random(), MeteringLabelId::random());
        let all = BTreeMap::from([
            (
                a,
                label(&[(None, None, false), (None, Some("10.1.0.0/16"), true)]),
            ),
            (
                b,
                label(&[
                    (Some("192.0.2.0/24"), Some("10.0.0.0/8"), false),
                    (None, Some("fd00::/8"), false),
                ]),
            ),
        ]);
        let regions = MeteringRegions::new(&all, &[a, b], Direction::Egress, false);
        assert_eq!((regions.sources.len(), regions.destinations.len()), (2, 3));
        let at = |range: &str| {
            let range: IpNet = range.parse().unwrap();
            let ranges = [&regions.sources, &regions.destinations];
            ranges.map(|all| all.iter().position(|r| *r == range).unwrap_or(0))
        };
        let labels = |from: &str, to: &str| {
            let pair = (at(from)[0], at(to)[1]);
            regions.labels.get(&pair).cloned().unwrap_or_default()
        };
        assert_eq!(labels("0.0.0.0/0", "0.0.0.0/0"), BTreeSet::from([a]));
        assert_eq!(labels("0.0.0.0/0", "10.1.0.0/16"), BTreeSet::new());
        assert_eq!(labels("192.0.2.0/24", "10.0.0.0/8"), BTreeSet::from([a, b]));
        assert_eq!(labels("192.0.2.0/24", "10.1.0.0/16"), BTreeSet::from([b]));
        let other = MeteringRegions::new(&all, &[a, b], Direction::Ingress, false);
        assert!(other.labels.is_empty());
    }

    #[test]
    fn more_pairs_of_ranges_than_the_limit_count_nothing() {
        let rules = |count: u32| {
            let rule = |n: u32| MeteringRule {
                direction: Direction::Egress,
                source: None,
                destination: Some(IpNet::new(std::net::Ipv4Addr::from(n << 8).into(), 24).unwrap()),
                excluded: false,
            };
            let id = MeteringLabelId::random();
            let rules = (1..=count).map(rule).collect();
            let all = BTreeMap::from([(id, MeteringLabel { rules })]);
            MeteringRegions::new(&all, &[id], Direction::Egress, false)
                .labels
                .len()
        };
        let max = u32::try_from(limits::METERING_REGIONS_MAX).unwrap();
        assert_eq!(rules(max - 1), limits::METERING_REGIONS_MAX - 1);
        assert_eq!(rules(max), 0);
    }
}
