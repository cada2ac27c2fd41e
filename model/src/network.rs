//! Networks, their segment and their subnets, as a host needs them.

use crate::{AddressScopeId, NetworkId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// How a network's frames travel between hosts. Names as in Neutron's `provider:network_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkType {
    /// Stays on its host.
    Local,
    /// Untagged on a physical network.
    Flat,
    /// 802.1Q on a physical network.
    Vlan,
    /// RFC 7348.
    Vxlan,
    /// RFC 2784 with key (RFC 2890).
    Gre,
    /// RFC 8926.
    Geneve,
}

impl NetworkType {
    /// Whether frames leave through a named physical network (and not through a tunnel).
    #[must_use]
    pub fn is_physical(self) -> bool {
        matches!(self, Self::Flat | Self::Vlan)
    }
}

/// Where a network lives on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// The kind of segment.
    pub network_type: NetworkType,
    /// The physical network's name (flat, vlan); an agent maps it to an interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_network: Option<String>,
    /// VLAN id (1 to 4094), VNI (1 to 16,777,215) or GRE key (1 to 2^32-1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation_id: Option<u32>,
}

/// How hosts exchange frames of a physical network: what one of them received or is to send for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transit {
    /// The VNI (VXLAN) of these frames, which no network has.
    pub vni: u32,
    /// The largest IP packet that it carries, in bytes (68 to 65,535).
    pub mtu: u32,
    /// Whether this host has the physical network itself; if not, all of it goes through other hosts.
    pub uplink: bool,
}

/// A network with at least one port on this host, or reachable from one through a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Where it lives on the wire.
    pub segment: Segment,
    /// The largest IP packet in bytes (68 to 65,535); announced by DHCP option 26 and the RA's MTU option.
    pub mtu: u32,
    /// `router:external`: gives gateways and floating IPs.
    #[serde(default)]
    pub external: bool,
    /// The DNS domain told to guests; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dns_domain: String,
    /// Physical networks only: several hosts share it. Without it this host has the physical network, and is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transit: Option<Transit>,
    /// Whether guests may exchange frames that they tag themselves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vlan_transparent: bool,
}

/// Neutron's `ipv6_ra_mode` and `ipv6_address_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6Mode {
    /// Address by SLAAC, nothing else from DHCPv6. RA: A=1, M=0, O=0.
    Slaac,
    /// Address by DHCPv6. RA: A=0, M=1, O=1.
    #[serde(rename = "dhcpv6-stateful")]
    Dhcpv6Stateful,
    /// Address by SLAAC, options by DHCPv6. RA: A=1, M=0, O=1.
    #[serde(rename = "dhcpv6-stateless")]
    Dhcpv6Stateless,
}

/// A route told to guests (DHCP option 121, RFC 3442).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRoute {
    /// Where to.
    pub destination: IpNet,
    /// By which neighbour.
    pub nexthop: IpAddr,
}

/// A subnet of a network of this snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// The network it belongs to; must be in the snapshot.
    pub network_id: NetworkId,
    /// The address range.
    pub cidr: IpNet,
    /// The gateway told to guests, of the CIDR's family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_ip: Option<IpAddr>,
    /// Whether the host answers DHCP on it.
    pub enable_dhcp: bool,
    /// At most [`crate::limits::DNS_NAMESERVERS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_nameservers: Vec<IpAddr>,
    /// At most [`crate::limits::HOST_ROUTES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_routes: Vec<HostRoute>,
    /// Who announces the prefix (v6): a router of ours sends RAs if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_ra_mode: Option<Ipv6Mode>,
    /// How guests get their addresses (v6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_address_mode: Option<Ipv6Mode>,
    /// The address scope that its range is unique in. Routers do not forward between networks of different ones without
    /// translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_scope_id: Option<AddressScopeId>,
}
