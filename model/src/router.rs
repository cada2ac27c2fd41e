//! Routers: interfaces on project networks, a gateway on an external network, extra routes.

use crate::{HostName, MacAddress, MeteringLabelId, NetworkId, PortId, QosPolicyId, SubnetId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterAddress {
    /// The subnet; must be in the snapshot, on the interface's network.
    pub subnet_id: SubnetId,
    /// The address, inside the subnet.
    pub ip_address: IpAddr,
}

/// A router's leg in a project network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterInterface {
    /// The Neutron port that stands for it (device owner `network:router_interface`).
    pub port_id: PortId,
    /// The network; must be in the snapshot.
    pub network_id: NetworkId,
    /// The MAC address that guests see, the same on every host.
    pub mac_address: MacAddress,
    /// One or more addresses.
    pub addresses: Vec<RouterAddress>,
}

/// A range of layer-4 ports, both ends included, that this host may use on the gateway's address.
/// Shared SNAT is distributed by giving every host blocks of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortBlock {
    /// The first port, at least 1.
    pub first: u16,
    /// The last port, at least `first`.
    pub last: u16,
}

impl PortBlock {
    /// Whether a port lies in it.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// How many bits all its ports share, if it has 2^n ports from a multiple of that on.
    #[must_use]
    pub fn prefix_bits(self) -> Option<u32> {
        let differ = self.first ^ self.last;
        let whole = self.first & differ == 0 && self.last & differ == differ;
        (whole && (u32::from(differ) + 1).is_power_of_two()).then(|| differ.leading_zeros())
    }
}

/// A router's leg in an external network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterGateway {
    /// The Neutron port that stands for it (device owner `network:router_gateway`).
    pub port_id: PortId,
    /// The external network; must be in the snapshot.
    pub network_id: NetworkId,
    /// The MAC address seen on the physical network.
    pub mac_address: MacAddress,
    /// One or more addresses; the first IPv4 one is SNAT's.
    pub addresses: Vec<RouterAddress>,
    /// Whether IPv4 traffic without a floating IP leaves under the gateway's address. If not, it is routed plainly.
    pub enable_snat: bool,
    /// The ports that this host may use for SNAT. None: no guest of this host is behind the router, or none was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat_port_block: Option<PortBlock>,
    /// The ports of other hosts: what comes for them is theirs. Of 2^n ports each, from a multiple of that on; no two
    /// overlap.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snat_port_blocks_elsewhere: BTreeMap<HostName, PortBlock>,
    /// The host that answers for the router outside, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_host: Option<HostName>,
    /// The QoS policy that holds for what leaves and comes under the gateway's own addresses, as those inside see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_policy_id: Option<QosPolicyId>,
}

impl RouterGateway {
    /// Its first IPv4 address: SNAT's.
    #[must_use]
    pub fn snat_address(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|a| match a.ip_address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// Whether other hosts use the gateway's addresses too, so that they may come from outside.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.gateway_host.is_some() || !self.snat_port_blocks_elsewhere.is_empty()
    }

    /// Whether SNAT of protocols without ports is this host's: the block with the smallest numbers is.
    #[must_use]
    pub fn has_portless(&self) -> bool {
        let mut others = self.snat_port_blocks_elsewhere.values();
        self.snat_port_block
            .is_some_and(|own| others.all(|other| own.first < other.first))
    }
}

/// An extra route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterRoute {
    /// Where to; host bits are zero.
    pub destination: IpNet,
    /// By which neighbour: an address in a subnet that the router has a leg in.
    pub nexthop: IpAddr,
}

/// A protocol whose control connections announce others, on one port of the traffic that a router forwards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConntrackHelper {
    /// Neutron's name of it: ftp, tftp, sip, …
    pub helper: String,
    /// IP protocol number.
    pub protocol: u8,
    /// The port of the control connection.
    pub port: u16,
}

/// A router with a leg in a network of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// A router that is administratively down forwards nothing and answers nothing.
    pub admin_state_up: bool,
    /// At most [`crate::limits::ROUTER_INTERFACES_MAX`].
    #[serde(default)]
    pub interfaces: Vec<RouterInterface>,
    /// The way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<RouterGateway>,
    /// At most [`crate::limits::ROUTER_ROUTES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouterRoute>,
    /// IPv6 addresses behind it that its gateway answers for outside (neighbour solicitations), whichever host their guests
    /// are on; at most [`crate::limits::NDP_PROXIES_MAX`]. What comes from outside for others goes nowhere. None: it answers for
    /// none, and routes whatever comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ndp_proxies: Option<BTreeSet<Ipv6Addr>>,
    /// At most [`crate::limits::CONNTRACK_HELPERS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conntrack_helpers: Vec<ConntrackHelper>,
    /// What of its gateway's traffic is counted; at most [`crate::limits::METERING_LABELS_PER_ROUTER_MAX`], each in the
    /// snapshot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metering_labels: Vec<MeteringLabelId>,
}
