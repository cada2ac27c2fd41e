//! What can be read of a running engine.

use super::Engine;
use super::key::Place;
use std::sync::atomic::Ordering::Relaxed;
use weft_dataplane::{Ingress, State, Tuple};

/// A session, as its opener's direction tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Where the opener's packets come in.
    pub ingress: Ingress,
    /// Where they go out.
    pub output: Ingress,
    /// As the opener sends it.
    pub forward: Tuple,
    /// As the answers come in.
    pub reply: Tuple,
    /// State.
    pub state: State,
    /// Seconds of the newest packet of either direction.
    pub seen_s: u32,
    /// Packets of the opener's direction.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets of the other direction.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
}

impl Engine {
    /// The sessions whose both ends are in the snapshot in force.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> + '_ {
        let all = self.table.forwards(0, self.table.places());
        all.filter_map(|at| {
            let (forward, reply) = (self.table.key(at), self.table.key(at.other()));
            let (one, other) = (self.table.half(at), self.table.half(at.other()));
            Some(SessionView {
                ingress: self.present(forward.meta.place())?,
                output: self.present(reply.meta.place())?,
                forward: forward.tuple(),
                reply: reply.tuple(),
                state: one.state(),
                seen_s: one.seen_s().max(other.seen_s()),
                packets: one.packets.load(Relaxed),
                bytes: one.bytes.load(Relaxed),
                reply_packets: other.packets.load(Relaxed),
                reply_bytes: other.bytes.load(Relaxed),
            })
        })
    }

    /// Whose place that is, if it is in the snapshot in force.
    fn present(&self, place: Place) -> Option<Ingress> {
        self.plan.as_ref()?.places.get(place.at())?.as_ref()?;
        self.places.ingress(place)
    }
}
