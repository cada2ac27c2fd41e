//! By which interface, and with which tag, the agent's own frames leave.

use super::Host;
use crate::service::Place;
use std::borrow::Cow;
use weft_dataplane::stage::vlan;
use weft_model::PortInterface;
use weft_wire::ethernet;

impl Host {
    /// The place whose interface a place's frames leave by: of a subport its trunk's port.
    pub(super) fn carrier(&self, place: Place) -> Place {
        let port = match (place, &self.in_force) {
            (Place::Port(id), Some(snapshot)) => snapshot.ports.get(&id),
            _ => None,
        };
        match port.map(|port| &port.interface) {
            Some(PortInterface::Subport { parent, .. }) => Place::Port(*parent),
            _ => place,
        }
    }

    /// A frame as it leaves: with the tag of its network's uplink, or of its subport.
    pub(super) fn tagged<'a>(&self, to: Place, frame: &'a [u8]) -> Cow<'a, [u8]> {
        let vlan_id = match (&self.in_force, to) {
            (Some(snapshot), Place::Network(id)) => vlan::id_of(snapshot, id),
            (Some(snapshot), Place::Port(id)) => {
                return Cow::Owned(vlan::port_tagged(snapshot, id, frame.to_vec()));
            }
            _ => None,
        };
        match vlan_id {
            Some(vlan_id) => Cow::Owned(ethernet::tag(frame, vlan_id)),
            None => Cow::Borrowed(frame),
        }
    }
}
