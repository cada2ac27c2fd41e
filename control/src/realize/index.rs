//! The rows by what they hang on, kept with them.
//!
//! Guarantees: it is a function of the rows alone, whatever way led there (the tests compare it with one made from
//! scratch); to keep it costs what changed, not what there is. The same calls put in and take out.

use super::decode::{Attached, LocalIp, Port, Router};
use super::floating_ip::{FloatingIp, ForwardedIp};
use super::log::Named;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use weft_model::{
    AddressGroupId, FloatingIpId, HostName, LocalIpId, LogId, MeteringLabelId, NetworkId, PortId,
    QosPolicyId, Remote, RouterId, SecurityGroupId, SecurityGroupRule, SecurityGroupRuleId, Subnet,
    SubnetId,
};

/// Some ids, by what they hang on. No key is without ids.
pub(super) type By<K, V> = BTreeMap<K, BTreeSet<V>>;

/// The rows by what they hang on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    pub(super) subnets: By<NetworkId, SubnetId>,
    pub(super) guests_by_host: By<HostName, PortId>,
    pub(super) guests_by_network: By<NetworkId, PortId>,
    /// How many guests of a network each host has.
    pub(super) guest_hosts: BTreeMap<NetworkId, BTreeMap<HostName, usize>>,
    /// The ports that are no guest's: routers' legs and the like.
    pub(super) service_ports: By<NetworkId, PortId>,
    pub(super) subports: By<PortId, PortId>,
    pub(super) ports_by_qos_policy: By<QosPolicyId, PortId>,
    pub(super) routers_by_qos_policy: By<QosPolicyId, RouterId>,
    pub(super) floating_ips_by_qos_policy: By<QosPolicyId, FloatingIpId>,
    pub(super) networks_by_qos_policy: By<QosPolicyId, NetworkId>,
    pub(super) members: By<SecurityGroupId, PortId>,
    /// The addresses of a group's members, and how many members have each.
    pub(super) addresses: BTreeMap<SecurityGroupId, BTreeMap<IpNet, usize>>,
    /// How many allowed address pairs of a group's members are wider than one address, IPv4 and IPv6.
    pub(super) ranges: BTreeMap<SecurityGroupId, [usize; 2]>,
    pub(super) rules: By<SecurityGroupId, SecurityGroupRuleId>,
    pub(super) rules_by_remote: By<SecurityGroupId, SecurityGroupRuleId>,
    pub(super) rules_by_address_group: By<AddressGroupId, SecurityGroupRuleId>,
    /// Groups so large that, with others like them, they may be too much for a port.
    pub(super) heavy: BTreeSet<SecurityGroupId>,
    /// By the ports of their interfaces and gateways, whether those ports are known or not.
    pub(super) routers_by_leg: By<PortId, RouterId>,
    /// By the networks of their interfaces that are known.
    pub(super) routers: By<NetworkId, RouterId>,
    pub(super) floating_ips: By<PortId, FloatingIpId>,
    /// Floating IPs by the address that they lead to.
    pub(super) floating_by_address: By<IpAddr, FloatingIpId>,
    /// Ports that claim an address.
    pub(super) claims: By<(NetworkId, IpAddr), PortId>,
    pub(super) forwarded_ips: By<PortId, FloatingIpId>,
    /// Floating and forwarded IPs by the port of their own address.
    pub(super) floating_ports: By<PortId, FloatingIpId>,
    /// Floating and forwarded IPs by router.
    pub(super) floating_routers: By<RouterId, FloatingIpId>,
    pub(super) local_ips: By<PortId, LocalIpId>,
    pub(super) local_ips_by_network: By<NetworkId, LocalIpId>,
    pub(super) hosts_by_physical_network: By<String, HostName>,
    /// Routers in whose gateways' addresses a host has ports.
    pub(super) routers_by_block: By<HostName, RouterId>,
    /// Networks with a transit.
    pub(super) shared: BTreeSet<NetworkId>,
    /// Hosts with tunnels, in the order of their places.
    pub(super) ring: BTreeSet<(u64, HostName)>,
    pub(super) routers_by_project: By<String, RouterId>,
    /// By the projects whose routers they are of; none for all.
    pub(super) labels_by_project: By<Option<String>, MeteringLabelId>,
    pub(super) logs: By<Named, LogId>,
    /// Logs that name a group, whatever else they name.
    pub(super) logs_by_group: By<SecurityGroupId, LogId>,
    /// Hosts that are down, as others say.
    pub(super) down: BTreeSet<HostName>,
    /// The host that answers for a router outside.
    pub(super) elected: BTreeMap<RouterId, HostName>,
}

/// Into the index, or out of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    In,
    Out,
}

impl Move {
    pub(super) fn apply<K: Ord, V: Ord>(self, by: &mut By<K, V>, key: K, value: V) {
        match self {
            Self::In => {
                by.entry(key).or_default().insert(value);
            }
            Self::Out => {
                if let Some(values) = by.get_mut(&key) {
                    values.remove(&value);
                    if values.is_empty() {
                        by.remove(&key);
                    }
                }
            }
        }
    }

    /// One more or one less; whether that is the first or was the last.
    pub(super) fn count<K: Ord + Clone>(self, counts: &mut BTreeMap<K, usize>, key: &K) -> bool {
        match self {
            Self::In => {
                let count = counts.entry(key.clone()).or_default();
                *count += 1;
                *count == 1
            }
            Self::Out => {
                let Some(count) = counts.get_mut(key) else {
                    return false;
                };
                *count = count.saturating_sub(1);
                let last = *count == 0;
                if last {
                    counts.remove(key);
                }
                last
            }
        }
    }

    fn count_of<O: Ord + Copy, K: Ord + Clone>(
        self,
        counts: &mut BTreeMap<O, BTreeMap<K, usize>>,
        of: O,
        key: &K,
    ) -> bool {
        let inner = counts.entry(of).or_default();
        let edge = self.count(inner, key);
        if inner.is_empty() {
            counts.remove(&of);
        }
        edge
    }
}

/// All ids of a key.
pub(super) fn of<'a, K: Ord, V: Ord>(
    by: &'a By<K, V>,
    key: &K,
) -> impl Iterator<Item = &'a V> + use<'a, K, V> {
    by.get(key).into_iter().flatten()
}

/// The addresses that a port adds to its groups.
pub(super) fn member_addresses(port: &Port) -> impl Iterator<Item = IpNet> + '_ {
    let fixed = port.fixed_ips.iter().map(|ip| ip.ip_address.into());
    let pairs = port
        .allowed_address_pairs
        .iter()
        .map(|pair| pair.ip_address);
    fixed.chain(pairs)
}

impl Index {
    pub(super) fn subnet(&mut self, to: Move, id: SubnetId, subnet: &Subnet) {
        to.apply(&mut self.subnets, subnet.network_id, id);
    }

    /// All but what its being a leg means: see [`Index::router_networks`]. Answers which addresses are new to their
    /// groups, or gone from them.
    pub(super) fn port(
        &mut self,
        to: Move,
        id: PortId,
        port: &Port,
    ) -> Vec<(SecurityGroupId, IpNet)> {
        match port.guest_host() {
            Some(host) => {
                to.apply(&mut self.guests_by_host, host.clone(), id);
                to.apply(&mut self.guests_by_network, port.network_id, id);
                to.count_of(&mut self.guest_hosts, port.network_id, host);
            }
            None => to.apply(&mut self.service_ports, port.network_id, id),
        }
        if let Attached::Subport { parent, .. } = &port.attached {
            to.apply(&mut self.subports, *parent, id);
        }
        if let Some(policy) = port.qos_policy_id {
            to.apply(&mut self.ports_by_qos_policy, policy, id);
        }
        for address in &port.claimed_ips {
            to.apply(&mut self.claims, (port.network_id, *address), id);
        }
        let mut edges = Vec::new();
        for group in &port.security_groups {
            to.apply(&mut self.members, *group, id);
            for address in member_addresses(port) {
                if to.count_of(&mut self.addresses, *group, &address) {
                    edges.push((*group, address));
                }
            }
            self.ranges(to, *group, port);
        }
        edges
    }

    fn ranges(&mut self, to: Move, group: SecurityGroupId, port: &Port) {
        let pairs = port
            .allowed_address_pairs
            .iter()
            .map(|pair| pair.ip_address);
        for range in pairs.filter(|range| range.prefix_len() < range.max_prefix_len()) {
            let counts = self.ranges.entry(group).or_default();
            let [v4, v6] = counts;
            let count = if range.addr().is_ipv6() { v6 } else { v4 };
            *count = match to {
                Move::In => *count + 1,
                Move::Out => count.saturating_sub(1),
            };
            if *counts == [0, 0] {
                self.ranges.remove(&group);
            }
        }
    }

    pub(super) fn router(&mut self, to: Move, id: RouterId, router: &Router) {
        for leg in router.legs() {
            to.apply(&mut self.routers_by_leg, leg, id);
        }
        for host in router.snat_port_blocks.keys() {
            to.apply(&mut self.routers_by_block, host.clone(), id);
        }
        to.apply(&mut self.routers_by_project, router.project_id.clone(), id);
        if let Some(policy) = router.qos_policy_id {
            to.apply(&mut self.routers_by_qos_policy, policy, id);
        }
    }

    /// The networks that a router leads to, by the ports that are known now.
    pub(super) fn router_networks(
        &mut self,
        to: Move,
        id: RouterId,
        router: &Router,
        ports: &BTreeMap<PortId, Port>,
    ) {
        for leg in router.interfaces.iter().filter_map(|leg| ports.get(leg)) {
            to.apply(&mut self.routers, leg.network_id, id);
        }
    }

    pub(super) fn floating_ip(&mut self, to: Move, id: FloatingIpId, ip: &FloatingIp) {
        to.apply(&mut self.floating_ips, ip.port_id, id);
        let address = ip.fixed_ip_address.into();
        to.apply(&mut self.floating_by_address, address, id);
        to.apply(&mut self.floating_ports, ip.floating_port_id, id);
        to.apply(&mut self.floating_routers, ip.router_id, id);
        if let Some(policy) = ip.qos_policy_id {
            to.apply(&mut self.floating_ips_by_qos_policy, policy, id);
        }
    }

    pub(super) fn forwarded_ip(&mut self, to: Move, id: FloatingIpId, ip: &ForwardedIp) {
        for forwarding in &ip.port_forwardings {
            to.apply(&mut self.forwarded_ips, forwarding.internal_port_id, id);
        }
        to.apply(&mut self.floating_ports, ip.floating_port_id, id);
        to.apply(&mut self.floating_routers, ip.router_id, id);
        if let Some(policy) = ip.qos_policy_id {
            to.apply(&mut self.floating_ips_by_qos_policy, policy, id);
        }
    }

    pub(super) fn local_ip(&mut self, to: Move, id: LocalIpId, ip: &LocalIp) {
        for target in &ip.targets {
            to.apply(&mut self.local_ips, target.port_id, id);
        }
        to.apply(&mut self.local_ips_by_network, ip.network_id, id);
    }

    pub(super) fn security_group_rule(
        &mut self,
        to: Move,
        id: SecurityGroupRuleId,
        rule: &SecurityGroupRule,
    ) {
        to.apply(&mut self.rules, rule.security_group_id, id);
        match rule.remote {
            Remote::Group(group) => to.apply(&mut self.rules_by_remote, group, id),
            Remote::AddressGroup(group) => to.apply(&mut self.rules_by_address_group, group, id),
            Remote::Any | Remote::Prefix(_) => {}
        }
    }
}
