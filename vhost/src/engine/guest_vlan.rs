//! Guests' own tags in a compiled snapshot: what a MAC address is to them, and which tags of a trunk's port are its own.
//! docs/pipeline.md, "Guests' own tags".

use super::Engine;
use super::key::Place;
use super::plan::MacIs;
use weft_dataplane::{GuestVlan, Ingress, topology};
use weft_model::HostSnapshot;
use weft_wire::ethernet;

impl MacIs {
    /// As it is in this VLAN: routers have no part in those of guests.
    pub(super) fn within(self, vlan: GuestVlan) -> Self {
        match vlan.is_none() {
            true => self,
            false => Self {
                interface: None,
                outside: None,
                ..self
            },
        }
    }
}

/// Whether a frame of a port's interface is a subport's.
fn is_subports(snapshot: &HostSnapshot, ingress: Option<Ingress>, frame: &[u8]) -> bool {
    let (Some(Ingress::Port(id)), Some(tci)) = (ingress, ethernet::tag_seen(frame)) else {
        return false;
    };
    let vlan_id = ethernet::tag_vlan_id(tci);
    topology::subports(snapshot, id).any(|(_, own)| own == vlan_id)
}

impl Engine {
    /// The bytes of a frame that count for the limits of the port whose interface it passes; none of a subport's, which has limits
    /// of its own in the other engine. A tagged one costs a look at all ports.
    #[must_use]
    pub fn limited_bytes(&self, place: Place, frame: &[u8]) -> Option<usize> {
        if ethernet::tag_seen(frame).is_none() {
            return Some(frame.len());
        }
        let snapshot = &self.plan.as_ref()?.snapshot;
        let tag = ethernet::TAGGED_HEADER_BYTES - ethernet::HEADER_BYTES;
        (!is_subports(snapshot, self.places.ingress(place), frame)).then_some(frame.len() - tag)
    }
}
