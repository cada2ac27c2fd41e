//! What is counted and written down, in the reference engine. docs/pipeline.md, sections 5 (logs) and 6 (metering).

use super::{Notes, Packets, Reference};
use crate::flow::bucket;
use crate::mutant::Mutant;
use crate::stage::metering;
use weft_model::{HostSnapshot, Metered};
use weft_wire::ethernet;

impl Reference {
    /// Counts a packet of a session for the metering labels that it is of.
    pub(super) fn meter(&mut self, on: &Packets<'_>, notes: &Notes) {
        let Some(note) = notes.session else {
            return;
        };
        let mut sessions = self.sessions.iter();
        let session = sessions.find(|session| session.forward == note.forward);
        let labels = session.map(|s| metering::process(&on.sight, s, note.way));
        for label in labels.into_iter().flatten() {
            let bytes = on.frame.len().saturating_sub(ethernet::HEADER_BYTES);
            *self.meters.entry(label).or_default() += Metered {
                packets: 1,
                bytes: bytes as u64,
            };
        }
    }

    /// Keeps the decisions that a log is to have, and not more of a port than it may cause.
    pub(super) fn write_down(&mut self, snapshot: &HostSnapshot, notes: &mut Notes, now_s: u32) {
        for decision in std::mem::take(&mut notes.trace.decisions) {
            let port = snapshot.ports.get(&decision.port_id);
            let mut logs = port.into_iter().flat_map(|port| &port.logs);
            let wanted = logs.any(|id| {
                let log = snapshot.logs.get(id);
                let any = self.config.mutant == Some(Mutant::LogEvent);
                log.is_some_and(|log| any || log.event.is_of(decision.allowed))
            });
            let bucket = self.log_buckets.entry(decision.port_id).or_default();
            if wanted && bucket.take(bucket::LOG, 1, now_s) {
                notes.logs.push(decision);
            }
        }
    }
}
