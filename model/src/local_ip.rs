//! Local IPs: an address that every host takes to a port of its own, on that port's network.

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

/// A local IP that leads to ports of this host. Guests of a target's network on this host reach it under the address, but for
/// targets themselves. Only IPv4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalIp {
    /// The network that its address is of; must be in the snapshot.
    pub network_id: NetworkId,
    /// The address.
    pub local_ip_address: IpAddr,
    /// What becomes of it.
    pub mode: LocalIpMode,
    /// Ports of this host and which of their addresses it stands for; at least one. On each network the first one counts.
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
