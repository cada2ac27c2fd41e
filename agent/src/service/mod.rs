//! The host's services: what the agent answers itself, because an engine hands it over: DHCP, router advertisements,
//! neighbours on physical networks, gratuitous announcements, ICMP errors.
//!
//! Guarantees: everything here is computed from a snapshot, an event and a clock that the caller reads: no I/O, no
//! clock, no randomness of its own. Tables and queues are bounded; what a guest sends is checked before it is believed
//! and costs a bounded amount of work.
//!
//! It decides nothing about packets that pass: that is the engines' business.

pub mod announce;
mod checksum;
pub mod claim;
mod counters;
pub mod dhcp;
pub mod dhcp_option;
pub mod dhcpv6;
pub mod icmp_error;
pub mod neighbour;
pub mod ra;
mod services;

#[cfg(test)]
pub(crate) mod fixture;

pub use counters::ServiceCounters;
pub use services::{EventKind, ServiceEvent, Services};

use std::net::IpAddr;
use weft_model::{HostSnapshot, MacAddress, NetworkId, PortId};

/// Milliseconds of a clock that only goes forward; its zero means nothing.
pub type Millis = u64;

/// Where a frame comes from or goes to: a guest, or the wire of a physical network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A guest's port.
    Port(PortId),
    /// A physical network's interface.
    Network(NetworkId),
}

/// What a service wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a frame.
    Send {
        /// Where to.
        to: Place,
        /// The whole frame from the Ethernet header on.
        frame: Vec<u8>,
    },
    /// Tell the engine a neighbour's MAC address.
    NeighbourPut {
        /// The physical network.
        network_id: NetworkId,
        /// The neighbour.
        address: IpAddr,
        /// Where it is.
        mac: MacAddress,
    },
    /// Tell the engine that a neighbour is gone.
    NeighbourDelete {
        /// The physical network.
        network_id: NetworkId,
        /// The neighbour.
        address: IpAddr,
    },
}

/// The network that a place is on; none if the snapshot does not know the port.
#[must_use]
pub fn network_of(snapshot: &HostSnapshot, place: Place) -> Option<NetworkId> {
    match place {
        Place::Port(port_id) => snapshot.ports.get(&port_id).map(|port| port.network_id),
        Place::Network(network_id) => Some(network_id),
    }
}
