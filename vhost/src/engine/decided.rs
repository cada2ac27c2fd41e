//! What security groups decide and a log is to have. docs/pipeline.md, section 5 (logs).
//!
//! Guarantees: as many of a port as its bucket allows; ports without logs cost a look at two flags at a first packet.

use super::path::Opening;
use super::plan::PortPlan;
use super::{Engine, Now};
use weft_dataplane::flow::bucket;
use weft_dataplane::{Decision, Ingress, Tuple};
use weft_model::{Direction, HostSnapshot, Port};

/// Which decisions of a port any of its logs is of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Logged {
    accepted: bool,
    dropped: bool,
}

impl Logged {
    /// Of a port of this snapshot.
    pub(super) fn new(snapshot: &HostSnapshot, port: &Port) -> Self {
        let events = || {
            let logs = port.logs.iter().filter_map(|id| snapshot.logs.get(id));
            logs.map(|log| log.event)
        };
        Self {
            accepted: events().any(|event| event.is_of(true)),
            dropped: events().any(|event| event.is_of(false)),
        }
    }
}

/// What was decided on a walk, and a log is of it: by the egress rules, then by the ingress rules.
pub(super) type Noted = Vec<Decision>;

/// Notes what rules said of an opener; of a stale session only that it ends.
pub(super) fn note(
    noted: &mut Noted,
    opening: &Opening,
    port: &PortPlan,
    (tuple, direction): (Tuple, Direction),
    allowed: bool,
) {
    let wanted = match allowed {
        true => port.logged.accepted && opening.test.is_some(),
        false => port.logged.dropped,
    };
    if wanted {
        noted.push(Decision {
            port_id: port.id,
            direction,
            allowed,
            tuple,
            icmp: opening.icmp,
        });
    }
}

impl Engine {
    /// What is written down of what was noted.
    pub(super) fn write_down(&mut self, noted: Noted, now: Now) -> Vec<Decision> {
        let (places, buckets) = (&self.places, &mut self.log_buckets);
        let paid = |decision: &Decision| {
            let place = places.of(Ingress::Port(decision.port_id));
            let bucket = place.and_then(|place| buckets.get_mut(place.at()));
            bucket.is_some_and(|bucket| bucket.take(bucket::LOG, 1, now.s))
        };
        noted.into_iter().filter(paid).collect()
    }
}
