//! Metering: which labels count a session's packets. docs/pipeline.md, section 6.
//!
//! Guarantees: what is counted is what a router's gateway forwards, as it is inside. Assumes a session's path. Cost: all
//! rules of the router's labels, in both ways.

use super::Sight;
use crate::flow::session::{Session, Way};
use crate::mutant::Mutant;
use std::collections::BTreeSet;
use weft_model::{Direction, MeteringLabelId, MeteringRule};

/// The labels of a session's packets.
#[must_use]
pub fn process(sight: &Sight<'_>, session: &Session, way: Way) -> BTreeSet<MeteringLabelId> {
    let snapshot = sight.snapshot;
    let router = session.path.gateway;
    let router = router.and_then(|(id, opened)| Some((snapshot.routers.get(&id)?, opened)));
    let Some((router, opened)) = router else {
        return BTreeSet::new();
    };
    let (tuple, path) = (session.forward.tuple, session.path);
    let [from, to] = match opened {
        Direction::Egress if sight.has(Mutant::MeterSource) => [path.source, tuple.destination],
        Direction::Egress => [tuple.source, tuple.destination],
        Direction::Ingress => [tuple.source, path.destination],
    };
    let (direction, source, destination) = match (way, opened) {
        (Way::Forward, _) => (opened, from, to),
        (Way::Reply, Direction::Egress) => (Direction::Ingress, to, from),
        (Way::Reply, Direction::Ingress) => (Direction::Egress, to, from),
    };
    let labels = router.metering_labels.iter();
    let counts = |id: &&MeteringLabelId| {
        let rules = snapshot.metering_labels.get(id).map(|label| &label.rules);
        let matching = |rule: &&MeteringRule| {
            rule.direction == direction
                && rule.source.is_none_or(|range| range.contains(&source))
                && rule
                    .destination
                    .is_none_or(|range| range.contains(&destination))
        };
        let mut matching = rules.into_iter().flatten().filter(matching).peekable();
        let excluded = |rule: &MeteringRule| rule.excluded && !sight.has(Mutant::MeterExcluded);
        matching.peek().is_some() && !matching.any(excluded)
    };
    labels.filter(counts).copied().collect()
}
