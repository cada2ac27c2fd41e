//! A port's interface on its host: its name, and what only one port can have.

use weft_model::{PortId, PortInterface};

/// What only one port of a host can have.
pub(super) fn interface_key(interface: &PortInterface) -> String {
    match interface {
        PortInterface::Tap { name } => name.clone(),
        PortInterface::VhostUser { socket, .. } => socket.clone(),
        PortInterface::Subport { parent, vlan_id } => format!("{parent}.{vlan_id}"),
    }
}

/// Neutron's name of a guest's device: `tap` and the first 11 characters of the port's id.
pub(super) fn tap_name(id: PortId) -> String {
    format!("tap{:.11}", id.to_string())
}
