//! Floating IPs: an external IPv4 address that stands for one fixed address of a port, or whose ports lead to several.

use crate::{HostName, MacAddress, NetworkId, PortForwardingId, PortId, QosPolicyId, RouterId};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// A floating IP that leads to a port of this host, all of it.
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
    /// The QoS policy that holds for what comes and goes by its address, as the guest sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_policy_id: Option<QosPolicyId>,
}

/// A floating IP that leads to a port of a host without its physical network: this one answers for it outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFloatingIp {
    /// The external network; must be the router's gateway network.
    pub floating_network_id: NetworkId,
    /// The address seen outside.
    pub floating_ip_address: Ipv4Addr,
    /// The MAC address that answers for it outside: that of the floating IP's own Neutron port.
    pub mac_address: MacAddress,
    /// The router between.
    pub router_id: RouterId,
    /// Where its port is.
    pub host: HostName,
}

/// A floating IP some of whose ports lead to ports of this host, or that this host answers for outside: what it then hands
/// on is known too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardedIp {
    /// The external network; must be the router's gateway network.
    pub floating_network_id: NetworkId,
    /// The address seen outside.
    pub floating_ip_address: Ipv4Addr,
    /// The MAC address that answers for it outside: that of the floating IP's own Neutron port.
    pub mac_address: MacAddress,
    /// The router between.
    pub router_id: RouterId,
    /// Together with `elsewhere` at least one, at most [`crate::limits::PORT_FORWARDINGS_MAX`]; no two of all share a protocol
    /// and an external port, and no two of these a protocol, an internal address and an internal port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_forwardings: Vec<PortForwarding>,
    /// The QoS policy that holds for what comes and goes by its address, as the guest sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_policy_id: Option<QosPolicyId>,
    /// Ports that lead to other hosts, at the host that answers for the router outside; the network must have a transit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<PortForwardingElsewhere>,
}

/// Ports of a [`ForwardedIp`] that lead to another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortForwardingElsewhere {
    /// IP protocol number.
    pub protocol: u8,
    /// The first external port.
    pub external_port_first: u16,
    /// The last external port.
    pub external_port_last: u16,
    /// Where they lead.
    pub host: HostName,
}

/// Ports of a [`ForwardedIp`], and where they lead.
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
    /// The port it leads to, a local one.
    pub internal_port_id: PortId,
    /// The address it leads to, one of that port's.
    pub internal_ip_address: Ipv4Addr,
    /// The first internal port.
    pub internal_port_first: u16,
    /// The last internal port: the range is as long as the external one, or one port that all lead to.
    pub internal_port_last: u16,
}

impl PortForwarding {
    /// Where one of its external ports leads.
    #[must_use]
    pub fn internal_port(&self, external: u16) -> u16 {
        if self.internal_port_first == self.internal_port_last {
            return self.internal_port_first;
        }
        let offset = external.wrapping_sub(self.external_port_first);
        self.internal_port_first.wrapping_add(offset)
    }

    /// Whether every port leads to the port with its own number.
    #[must_use]
    pub fn keeps_ports(&self) -> bool {
        (self.internal_port_first, self.internal_port_last)
            == (self.external_port_first, self.external_port_last)
    }
}
