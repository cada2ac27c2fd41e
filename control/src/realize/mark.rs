//! What some changes may have changed: entries of hosts' snapshots, named by what they are made of.
//!
//! Guarantees: an entry that differs after a change was marked by it, with the rows as they were or as they are (the
//! tests hold it to that, with random histories); one that is marked may turn out to be as before. Whoever adds a kind
//! of row says here what its changes mark, or calls [`Marks::everything`].

use super::index::By;
use ipnet::IpNet;
use std::collections::BTreeSet;
use weft_model::{
    AddressGroupId, FloatingIpId, HostName, LocalIpId, LogId, MeteringLabelId, NetworkId, PortId,
    QosPolicyId, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId,
};

/// Entries that may differ, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// All of all hosts.
    pub(super) everything: bool,
    /// Guests' ports, at these hosts.
    pub(super) ports: By<HostName, PortId>,
    /// Floating and forwarded IPs, at these hosts.
    pub(super) floating_ips: By<HostName, FloatingIpId>,
    /// Local IPs, at these hosts.
    pub(super) local_ips: By<HostName, LocalIpId>,
    /// Guests, for the other hosts that know their network.
    pub(super) remote_ports: By<NetworkId, PortId>,
    /// Networks, at hosts that know them.
    pub(super) networks: BTreeSet<NetworkId>,
    /// Subnets, at hosts that know their network.
    pub(super) subnets: By<NetworkId, SubnetId>,
    /// Routers, at hosts that know them.
    pub(super) routers: BTreeSet<RouterId>,
    /// Routers, at hosts with guests in these networks of theirs.
    pub(super) routers_near: By<NetworkId, RouterId>,
    /// Routers, at these hosts: they answer for them outside, or did.
    pub(super) routers_at: By<HostName, RouterId>,
    /// Whether one of the routers had or has no guests near, so that the first host has it, of those that follow whatever server.
    pub(super) lonely: bool,
    /// All of these hosts.
    pub(super) hosts: BTreeSet<HostName>,
    /// Groups, at hosts that know them.
    pub(super) security_groups: BTreeSet<SecurityGroupId>,
    /// Rules, at hosts with guests in their group.
    pub(super) rules: By<SecurityGroupId, SecurityGroupRuleId>,
    /// Addresses, at hosts with a rule that names their group.
    pub(super) members: By<SecurityGroupId, IpNet>,
    /// Address groups, at hosts that know them.
    pub(super) address_groups: BTreeSet<AddressGroupId>,
    /// QoS policies, at hosts that know them.
    pub(super) qos_policies: BTreeSet<QosPolicyId>,
    /// Metering labels, at hosts that know them.
    pub(super) metering_labels: BTreeSet<MeteringLabelId>,
    /// Logs, at hosts that know them.
    pub(super) logs: BTreeSet<LogId>,
    /// Addresses of tunnels, at hosts that know their host.
    pub(super) tunnel_hosts: BTreeSet<HostName>,
}

impl Marks {
    /// All of all hosts.
    pub(super) fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
