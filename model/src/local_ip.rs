//! Local IPs: an address of a network that every host takes to a port of its own.

use crate::{NetworkId, PortId};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What becomes of the address on the way to the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalIpMode {
    /// It is translated to the port's own.
    Translate,
    /// It stays: the guest knows it.
    Passthrough,
}

/// A local IP that leads to ports of this host. Guests of the network on this host reach one of them under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalIp {
    /// The network; must be in the snapshot.
    pub network_id: NetworkId,
    /// The address.
    pub local_ip_address: IpAddr,
    /// What becomes of it.
    pub mode: LocalIpMode,
    /// Ports of this host and which of their addresses it stands for; at least one.
    pub targets: Vec<LocalIpTarget>,
}

/// A port that a [`LocalIp`] leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalIpTarget {
    /// The port, a local one.
    pub port_id: PortId,
    /// Which of its addresses.
    pub fixed_ip: IpAddr,
}
