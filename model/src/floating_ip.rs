//! Floating IPs: an external IPv4 address that stands for one fixed address of a port.

use crate::{MacAddress, NetworkId, PortForwardingId, PortId, RouterId};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// One port forwarding of a floating IP that has no fixed address of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortForwarding {
    /// Its id, as a trace names it.
    pub id: PortForwardingId,
    /// IP protocol number.
    pub protocol: u8,
    /// The first external port.
    pub external_port_first: u16,
    /// The last external port.
    pub external_port_last: u16,
    /// The port it leads to.
    pub internal_port_id: PortId,
    /// The address it leads to.
    pub internal_ip_address: Ipv4Addr,
    /// The first internal port; the ranges are equally long.
    pub internal_port_first: u16,
}

/// A floating IP that leads to a port of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloatingIp {
    /// The external network; must be the router's gateway network.
    pub floating_network_id: NetworkId,
    /// The address seen outside.
    pub floating_ip_address: Ipv4Addr,
    /// The MAC address that answers for it outside: that of the floating IP's own Neutron port.
    pub mac_address: MacAddress,
    /// The router between.
    pub router_id: RouterId,
    /// The port it leads to, a local one.
    pub port_id: PortId,
    /// Which of the port's addresses.
    pub fixed_ip_address: Ipv4Addr,
    /// Port forwardings in place of the one-to-one translation; empty for a plain floating IP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_forwardings: Vec<PortForwarding>,
}
