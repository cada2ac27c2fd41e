//! Security groups, their rules, and the address sets that rules refer to.

use crate::{AddressGroupId, SecurityGroupId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A rule's direction, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the guest.
    Ingress,
    /// From the guest.
    Egress,
}

/// A rule's address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EtherType {
    /// 0x0800
    #[serde(rename = "IPv4")]
    Ipv4,
    /// 0x86dd
    #[serde(rename = "IPv6")]
    Ipv6,
}

/// Destination ports, both ends included; for ICMP and ICMPv6 `first` is the type and `last` the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// `port_range_min`: the first port, or the ICMP type (0 to 255).
    pub first: u16,
    /// `port_range_max`: the last port, or the ICMP code (0 to 255); none for any code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u16>,
}

/// Whom a rule speaks of: the source for ingress rules, the destination for egress rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remote {
    /// Everybody.
    Any,
    /// An address range; host bits are zero.
    Prefix(IpNet),
    /// The members of a security group, see [`SecurityGroupMember`].
    Group(SecurityGroupId),
    /// The ranges of an address group.
    AddressGroup(AddressGroupId),
}

/// One rule. Rules only allow; what no rule allows is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupRule {
    /// The group it belongs to; must be in the snapshot.
    pub security_group_id: SecurityGroupId,
    /// Which way.
    pub direction: Direction,
    /// Which family.
    pub ethertype: EtherType,
    /// IP protocol number (v6: the upper-layer header's); none for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Ports (TCP, UDP, SCTP, DCCP, UDP-Lite) or ICMP type and code; none for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range: Option<PortRange>,
    /// Whom.
    pub remote: Remote,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroup {
    /// Whether replies pass without a rule.
    pub stateful: bool,
}

/// An address of a port that is in a security group, wherever that port lives: what a rule with
/// [`Remote::Group`] matches. Fixed IPs and allowed address pairs alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupMember {
    /// The group.
    pub security_group_id: SecurityGroupId,
    /// The address (a /32 or /128) or range.
    pub address: IpNet,
}

/// A named set of address ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressGroup {
    /// The ranges; host bits are zero.
    pub addresses: Vec<IpNet>,
}
