//! Changes of rows in memory: the row, what is known by it in the index, and the marks on what it may change.
//!
//! Each function marks with the index as it was and as it is; what it says of one row holds whatever else changes
//! with it, because every row says it for itself.

use super::decode::{LocalIp, Port, Router};
use super::floating_ip::{FloatingIp, ForwardedIp};
use super::gateway::{probed, ring_place};
use super::index::{Move, of};
use super::log::Named;
use super::mark::Marks;
use super::rows::Rows;
use super::snapshot::View;
use super::trial::Key;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{
    AddressGroup, AddressGroupId, FloatingIpId, HostName, LocalIpId, Network, NetworkId, PortId,
    QosPolicy, QosPolicyId, RouterId, SecurityGroup, SecurityGroupId, SecurityGroupRule,
    SecurityGroupRuleId, Segment, Subnet, SubnetId, TunnelHost,
};

/// Puts a value in the place of what was there, or takes that out; none if that is what was there.
pub(super) fn set<K: Ord + Copy, V: PartialEq>(
    table: &mut BTreeMap<K, V>,
    id: K,
    value: Option<V>,
) -> Option<Option<V>> {
    if table.get(&id) == value.as_ref() {
        return None;
    }
    Some(match value {
        Some(value) => table.insert(id, value),
        None => table.remove(&id),
    })
}

impl Rows {
    /// A network, and the QoS policy of its ports.
    pub(super) fn network_set(
        &mut self,
        id: NetworkId,
        network: Option<(Network, Vec<Segment>)>,
        policy: Option<QosPolicyId>,
    ) {
        self.changing(Key::Network(id));
        let (network, segments) = network.unzip();
        let is_there = network.is_some();
        let old = set(&mut self.networks, id, network);
        let segments = segments.filter(|segments| !segments.is_empty());
        let moved = set(&mut self.segments, id, segments).is_some();
        if old.is_some() || moved {
            self.marks.networks.insert(id);
        }
        if moved || old.as_ref().is_some_and(|old| old.is_some() != is_there) {
            self.mark_network(id);
        }
        let transit = |network: Option<&Network>| network.and_then(|n| n.transit);
        let now = transit(self.networks.get(&id));
        if old.as_ref().is_some_and(|old| transit(old.as_ref()) != now) {
            // Blocks of other hosts are there or not, floating IPs lead elsewhere or not.
            self.marks.everything = true;
            if now.is_some() {
                self.index.shared.insert(id);
            } else {
                self.index.shared.remove(&id);
            }
        }
        if old.is_some() || moved {
            self.elections(|_, network| network == id);
        }
        if let Some(old) = set(&mut self.network_qos_policies, id, policy) {
            for (to, policy) in [(Move::Out, old), (Move::In, policy)] {
                if let Some(policy) = policy {
                    to.apply(&mut self.index.networks_by_qos_policy, policy, id);
                }
            }
            self.mark_policy(id);
        }
    }

    pub(super) fn subnet_set(&mut self, id: SubnetId, subnet: Option<Subnet>) {
        self.changing(Key::Subnet(id));
        let network = subnet.as_ref().map(|subnet| subnet.network_id);
        let Some(old) = set(&mut self.subnets, id, subnet) else {
            return;
        };
        let before = old.as_ref().map(|subnet| subnet.network_id);
        for (to, subnet) in [(Move::Out, old.as_ref()), (Move::In, self.subnets.get(&id))] {
            if let Some(subnet) = subnet {
                self.index.subnet(to, id, subnet);
                let marks = self.marks.subnets.entry(subnet.network_id).or_default();
                marks.insert(id);
            }
        }
        if before != network {
            // Addresses in it are known now, or not any more.
            for network in before.into_iter().chain(network) {
                self.mark_network(network);
            }
        }
    }

    pub(super) fn port_set(&mut self, id: PortId, port: Option<Port>) {
        self.changing(Key::Port(id));
        if self.ports.get(&id) == port.as_ref() {
            return;
        }
        self.mark_port(id);
        let routers: Vec<RouterId> = of(&self.index.routers_by_leg, &id).copied().collect();
        self.router_networks(Move::Out, &routers);
        let old = set(&mut self.ports, id, port).flatten();
        let mut groups: BTreeSet<SecurityGroupId> = BTreeSet::new();
        for (to, port) in [(Move::Out, old.as_ref()), (Move::In, self.ports.get(&id))] {
            let Some(port) = port else {
                continue;
            };
            let near = self.index.guest_hosts.contains_key(&port.network_id);
            for (group, address) in self.index.port(to, id, port) {
                let members = self.marks.members.entry(group).or_default();
                members.insert(address);
            }
            if near != self.index.guest_hosts.contains_key(&port.network_id) {
                // Routers that were near nobody are near somebody now, or the other way round.
                for id in of(&self.index.routers, &port.network_id) {
                    let router = self.routers.get(id);
                    self.marks.lonely |= router.is_some_and(|r| r.gateway_port_id.is_some());
                    self.marks.routers.insert(*id);
                }
            }
            if port.allowed_address_pairs.iter().any(is_range) {
                groups.extend(&port.security_groups);
            }
        }
        self.router_networks(Move::In, &routers);
        self.mark_port(id);
        for router in routers {
            self.election(router);
        }
        for group in groups {
            self.weigh_naming(group);
        }
    }

    fn router_networks(&mut self, to: Move, routers: &[RouterId]) {
        for id in routers {
            if let Some(router) = self.routers.get(id) {
                self.index.router_networks(to, *id, router, &self.ports);
            }
        }
    }

    /// Takes a deleted port out of the routers that it was a leg of, as the database does.
    pub(super) fn port_remove(&mut self, id: PortId) {
        self.port_set(id, None);
        self.logs_remove(&Named::Port(id));
        let routers: Vec<RouterId> = of(&self.index.routers_by_leg, &id).copied().collect();
        for router_id in routers {
            if let Some(mut router) = self.routers.get(&router_id).cloned() {
                router.interfaces.retain(|interface| *interface != id);
                self.router_set(router_id, Some(router));
            }
        }
    }

    pub(super) fn router_set(&mut self, id: RouterId, router: Option<Router>) {
        self.changing(Key::Router(id));
        if self.routers.get(&id) == router.as_ref() {
            return;
        }
        self.mark_router(id);
        let old = set(&mut self.routers, id, router).flatten();
        for (to, router) in [(Move::Out, old.as_ref()), (Move::In, self.routers.get(&id))] {
            if let Some(router) = router {
                self.index.router(to, id, router);
                self.index.router_networks(to, id, router, &self.ports);
            }
        }
        self.mark_router(id);
        self.election(id);
    }

    /// A floating IP: one guest's, or forwarded by ports.
    pub(super) fn floating_ip_set(
        &mut self,
        id: FloatingIpId,
        (floating, forwarded): (Option<FloatingIp>, Option<ForwardedIp>),
    ) {
        self.changing(Key::FloatingIp(id));
        if self.floating_ips.get(&id) == floating.as_ref()
            && self.forwarded_ips.get(&id) == forwarded.as_ref()
        {
            return;
        }
        self.mark_floating_ip(id);
        // Out both, then in both: they share what the index knows by the id.
        self.floating_ip_move(Move::Out, id);
        set(&mut self.floating_ips, id, floating);
        set(&mut self.forwarded_ips, id, forwarded);
        self.floating_ip_move(Move::In, id);
        self.mark_floating_ip(id);
    }

    fn floating_ip_move(&mut self, to: Move, id: FloatingIpId) {
        if let Some(ip) = self.floating_ips.get(&id) {
            self.index.floating_ip(to, id, ip);
        }
        if let Some(ip) = self.forwarded_ips.get(&id) {
            self.index.forwarded_ip(to, id, ip);
        }
    }

    pub(super) fn local_ip_set(&mut self, id: LocalIpId, ip: Option<LocalIp>) {
        self.changing(Key::LocalIp(id));
        if self.local_ips.get(&id) == ip.as_ref() {
            return;
        }
        self.mark_local_ip(id);
        let old = set(&mut self.local_ips, id, ip).flatten();
        for (to, ip) in [
            (Move::Out, old.as_ref()),
            (Move::In, self.local_ips.get(&id)),
        ] {
            if let Some(ip) = ip {
                self.index.local_ip(to, id, ip);
            }
        }
        self.mark_local_ip(id);
    }

    pub(super) fn security_group_set(&mut self, id: SecurityGroupId, group: Option<SecurityGroup>) {
        self.changing(Key::SecurityGroup(id));
        let is_there = group.is_some();
        let Some(old) = set(&mut self.security_groups, id, group) else {
            return;
        };
        self.marks.security_groups.insert(id);
        if old.is_some() != is_there {
            self.mark_members(id);
            let naming: Vec<_> = of(&self.index.rules_by_remote, &id).copied().collect();
            for rule in naming {
                self.mark_rule(rule);
            }
        }
    }

    /// Takes out a deleted group with the rules that go with it in the database.
    pub(super) fn security_group_remove(&mut self, id: SecurityGroupId) {
        let own = of(&self.index.rules, &id);
        let naming = of(&self.index.rules_by_remote, &id);
        let rules: BTreeSet<SecurityGroupRuleId> = own.chain(naming).copied().collect();
        for rule in rules {
            self.security_group_rule_set(rule, None);
        }
        self.logs_remove(&Named::Group(id));
        self.security_group_set(id, None);
    }

    pub(super) fn security_group_rule_set(
        &mut self,
        id: SecurityGroupRuleId,
        rule: Option<SecurityGroupRule>,
    ) {
        self.changing(Key::SecurityGroupRule(id));
        if self.security_group_rules.get(&id) == rule.as_ref() {
            return;
        }
        self.mark_rule(id);
        let old = set(&mut self.security_group_rules, id, rule).flatten();
        let mut groups = BTreeSet::new();
        for (to, rule) in [
            (Move::Out, old.as_ref()),
            (Move::In, self.security_group_rules.get(&id)),
        ] {
            if let Some(rule) = rule {
                self.index.security_group_rule(to, id, rule);
                groups.insert(rule.security_group_id);
            }
        }
        self.mark_rule(id);
        for group in groups {
            self.weigh(group);
        }
    }

    pub(super) fn address_group_set(&mut self, id: AddressGroupId, group: Option<AddressGroup>) {
        self.changing(Key::AddressGroup(id));
        let is_there = group.is_some();
        let Some(old) = set(&mut self.address_groups, id, group) else {
            return;
        };
        self.marks.address_groups.insert(id);
        let rules: Vec<_> = of(&self.index.rules_by_address_group, &id)
            .copied()
            .collect();
        if old.is_some() != is_there {
            for rule in &rules {
                self.mark_rule(*rule);
            }
        }
        let naming = rules
            .iter()
            .filter_map(|rule| self.security_group_rules.get(rule));
        let groups: BTreeSet<_> = naming.map(|rule| rule.security_group_id).collect();
        for group in groups {
            self.weigh(group);
        }
    }

    pub(super) fn qos_policy_set(&mut self, id: QosPolicyId, policy: Option<QosPolicy>) {
        self.changing(Key::QosPolicy(id));
        let is_there = policy.is_some();
        let Some(old) = set(&mut self.qos_policies, id, policy) else {
            return;
        };
        self.marks.qos_policies.insert(id);
        if old.is_some() == is_there {
            return;
        }
        let ports: Vec<PortId> = of(&self.index.ports_by_qos_policy, &id).copied().collect();
        for port in ports {
            self.mark_guest(port);
        }
        let routers: Vec<RouterId> = of(&self.index.routers_by_qos_policy, &id)
            .copied()
            .collect();
        for router in routers {
            self.mark_router(router);
        }
        let floating = of(&self.index.floating_ips_by_qos_policy, &id);
        for ip in floating.copied().collect::<Vec<FloatingIpId>>() {
            self.mark_floating_ip(ip);
        }
        let networks = of(&self.index.networks_by_qos_policy, &id);
        for network in networks.copied().collect::<Vec<NetworkId>>() {
            self.mark_policy(network);
        }
    }

    /// A host's address in the underlay.
    pub(super) fn tunnel_host_set(&mut self, host: &HostName, tunnel: Option<TunnelHost>) {
        self.changing(Key::TunnelHost(host.clone()));
        if self.tunnel_hosts.get(host) == tunnel.as_ref() {
            return;
        }
        match tunnel {
            Some(tunnel) => drop(self.tunnel_hosts.insert(host.clone(), tunnel)),
            None => drop(self.tunnel_hosts.remove(host)),
        }
        self.marks.tunnel_hosts.insert(host.clone());
        // Whoever looked after the hosts before it may not any more.
        let before: Vec<HostName> = probed(&self.index.ring, host).cloned().collect();
        self.marks.tunnel_hosts.extend(before);
        let place = ring_place(host);
        if self.tunnel_hosts.contains_key(host) {
            self.index.ring.insert(place);
        } else {
            self.index.ring.remove(&place);
        }
        self.look_who_is_down();
        self.gateway_host_moved(host);
        let blocks: Vec<RouterId> = of(&self.index.routers_by_block, host).copied().collect();
        for router in blocks {
            self.mark_router(router);
        }
        self.elections(|rows, network| rows.has_physical_network(host, network));
        let guests: Vec<PortId> = of(&self.index.guests_by_host, host).copied().collect();
        for id in guests {
            if let Some(port) = self.ports.get(&id) {
                let remote = self.marks.remote_ports.entry(port.network_id).or_default();
                remote.insert(id);
            }
        }
    }

    /// Ends the reading of everything: from here on, what changes is marked.
    pub(super) fn loaded(&mut self) {
        self.loading = false;
        self.look_who_is_down();
        self.elections(|_, _| true);
        let groups: Vec<SecurityGroupId> = self.index.rules.keys().copied().collect();
        for group in groups {
            self.weigh(group);
        }
        self.marks = Marks::default();
    }

    /// Judges again whether a group is heavy, after its rules or what they name changed.
    fn weigh(&mut self, group: SecurityGroupId) {
        if self.loading {
            return;
        }
        let was = self.index.heavy.contains(&group);
        let is = View::new(self).is_heavy(group);
        if is {
            self.index.heavy.insert(group);
        } else {
            self.index.heavy.remove(&group);
        }
        if was || is {
            self.mark_members(group);
        }
    }

    /// The same for the groups whose rules name one.
    fn weigh_naming(&mut self, remote: SecurityGroupId) {
        let naming = of(&self.index.rules_by_remote, &remote);
        let rules = naming.filter_map(|rule| self.security_group_rules.get(rule));
        let groups: BTreeSet<_> = rules.map(|rule| rule.security_group_id).collect();
        for group in groups {
            self.weigh(group);
        }
    }

    fn guests(&self, network: NetworkId) -> Vec<PortId> {
        of(&self.index.guests_by_network, &network)
            .copied()
            .collect()
    }

    /// Everything that is on a network.
    fn mark_network(&mut self, id: NetworkId) {
        if self.loading {
            return;
        }
        let services = of(&self.index.service_ports, &id).copied();
        let ports: Vec<PortId> = self.guests(id).into_iter().chain(services).collect();
        for port in ports {
            self.mark_port(port);
        }
    }

    /// Whatever has a network's QoS policy if it has none of its own: guests, gateways, floating IPs.
    fn mark_policy(&mut self, network: NetworkId) {
        if self.loading {
            return;
        }
        for port in self.guests(network) {
            self.mark_guest(port);
        }
        let services = of(&self.index.service_ports, &network);
        for port in services.copied().collect::<Vec<PortId>>() {
            self.mark_port(port);
        }
    }

    /// A port, and everything that is made with it.
    fn mark_port(&mut self, id: PortId) {
        if self.loading {
            return;
        }
        let Some(network) = self.ports.get(&id).map(|port| port.network_id) else {
            return;
        };
        self.mark_guest(id);
        let subports: Vec<PortId> = of(&self.index.subports, &id).copied().collect();
        for subport in subports {
            self.mark_guest(subport);
        }
        let remote = self.marks.remote_ports.entry(network).or_default();
        remote.insert(id);
        let legs = of(&self.index.routers_by_leg, &id);
        for router in legs.copied().collect::<Vec<RouterId>>() {
            self.mark_router(router);
        }
        let floating: Vec<_> = of(&self.index.floating_ports, &id).copied().collect();
        for ip in floating {
            self.mark_floating_ip(ip);
        }
    }

    /// A guest's port on its host, and the addresses that lead to it.
    pub(super) fn mark_guest(&mut self, id: PortId) {
        if self.loading {
            return;
        }
        for ip in self.floating_ips_of(id) {
            self.mark_floating_ip(ip);
        }
        let host = self.ports.get(&id).and_then(Port::guest_host);
        let Some(host) = host.cloned() else {
            return;
        };
        let same_name: Vec<PortId> = View::new(self).same_name(&host, id).collect();
        let ports = self.marks.ports.entry(host.clone()).or_default();
        ports.extend(same_name);
        ports.insert(id);
        let forwarded = of(&self.index.forwarded_ips, &id).copied();
        for ip in forwarded.collect::<Vec<_>>() {
            self.mark_floating_ip(ip);
        }
        if let Some(local) = self.index.local_ips.get(&id) {
            self.marks.local_ips.entry(host).or_default().extend(local);
        }
    }

    pub(super) fn mark_router(&mut self, id: RouterId) {
        if self.loading {
            return;
        }
        self.marks.routers.insert(id);
        let Some(router) = self.routers.get(&id) else {
            return;
        };
        self.marks.lonely |= View::new(self).is_lonely(router);
        for leg in &router.interfaces {
            if let Some(port) = self.ports.get(leg) {
                let near = self.marks.routers_near.entry(port.network_id).or_default();
                near.insert(id);
            }
        }
    }

    pub(super) fn mark_floating_ip(&mut self, id: FloatingIpId) {
        if self.loading {
            return;
        }
        let router = self.floating_ips.get(&id).map(|ip| ip.router_id);
        let router = router.or(self.forwarded_ips.get(&id).map(|ip| ip.router_id));
        let answers = router.and_then(|router| self.index.elected.get(&router));
        if let Some(host) = answers.cloned() {
            self.marks.floating_ips.entry(host).or_default().insert(id);
        }
        let floating = self.floating_ips.get(&id).and_then(|ip| self.holder(ip));
        let forwarded = self.forwarded_ips.get(&id);
        let forwarded = forwarded.into_iter().flat_map(|ip| &ip.port_forwardings);
        let ports = floating
            .into_iter()
            .chain(forwarded.map(|forwarding| forwarding.internal_port_id));
        let hosts = ports.filter_map(|port| self.ports.get(&port)?.guest_host());
        for host in hosts {
            let marks = self.marks.floating_ips.entry(host.clone()).or_default();
            marks.insert(id);
        }
    }

    fn mark_local_ip(&mut self, id: LocalIpId) {
        if self.loading {
            return;
        }
        let targets = self
            .local_ips
            .get(&id)
            .into_iter()
            .flat_map(|ip| &ip.targets);
        let hosts = targets.filter_map(|target| self.ports.get(&target.port_id)?.guest_host());
        for host in hosts {
            let marks = self.marks.local_ips.entry(host.clone()).or_default();
            marks.insert(id);
        }
    }

    fn mark_rule(&mut self, id: SecurityGroupRuleId) {
        if let Some(rule) = self.security_group_rules.get(&id) {
            let rules = self.marks.rules.entry(rule.security_group_id).or_default();
            rules.insert(id);
        }
    }

    fn mark_members(&mut self, group: SecurityGroupId) {
        let members: Vec<PortId> = of(&self.index.members, &group).copied().collect();
        for port in members {
            self.mark_guest(port);
        }
    }
}

fn is_range(pair: &weft_model::AllowedAddressPair) -> bool {
    let range: IpNet = pair.ip_address;
    range.prefix_len() < range.max_prefix_len()
}
