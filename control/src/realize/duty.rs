//! One host's snapshot, brought up to date entry by entry.
//!
//! Guarantees: given the marks of what changed since, the snapshot becomes what [`View::snapshot`] makes from scratch
//! (the tests hold it to that, with random histories), and the delta is what became different; it costs what is marked
//! and what follows from it, not what the host has. The order of the steps is that of the tables' dependence.
//!
//! A host that has more than it may have is none of its business: what is left out then depends on all that is there.

use super::external::{forwarded_hosts, hosts_of};
use super::index::{Move, of};
use super::snapshot::{Judged, View, local_ip, policy_of_gateway};
use ipnet::{IpNet, Ipv4Net};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weft_model::{
    AddressGroupId, FloatingIpId, HostName, HostSnapshot, LocalIpId, LogId, MeteringLabelId,
    Network, NetworkId, Port, PortId, QosPolicyId, Remote, RemoteFloatingIp, RemotePort, Router,
    RouterId, SecurityGroupId, SecurityGroupMember, SecurityGroupRule, SecurityGroupRuleId,
    Segment, SnapshotDelta, SubnetId, TableDelta, limits,
};

/// Why the parts of a snapshot are in it: how many of its entries need each. A function of the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Guests here on each network.
    pub(super) guests: BTreeMap<NetworkId, usize>,
    /// Routers' legs here on each network.
    pub(super) legs: BTreeMap<NetworkId, usize>,
    /// Guests here in each group.
    pub(super) groups: BTreeMap<SecurityGroupId, usize>,
    /// Rules here that name each group.
    pub(super) remote_groups: BTreeMap<SecurityGroupId, usize>,
    /// Rules here that name each address group.
    pub(super) address_groups: BTreeMap<AddressGroupId, usize>,
    /// Guests, gateways and floating IPs here under each QoS policy.
    pub(super) qos_policies: BTreeMap<QosPolicyId, usize>,
    /// Routers here with each metering label.
    pub(super) metering_labels: BTreeMap<MeteringLabelId, usize>,
    /// Guests here with each log.
    pub(super) logs: BTreeMap<LogId, usize>,
    /// What is known here of each other host: guests, floating IPs, ports of gateways' addresses, gateways.
    pub(super) tunnel_hosts: BTreeMap<HostName, usize>,
}

impl Needs {
    pub(super) fn of(snapshot: &HostSnapshot) -> Self {
        let mut needs = Self::default();
        for port in snapshot.ports.values() {
            needs.port(Move::In, port);
        }
        for router in snapshot.routers.values() {
            needs.router(Move::In, router);
        }
        for rule in snapshot.security_group_rules.values() {
            needs.rule(Move::In, rule);
        }
        for port in snapshot.remote_ports.values() {
            Move::In.count(&mut needs.tunnel_hosts, &port.host);
        }
        for ip in snapshot.remote_floating_ips.values() {
            Move::In.count(&mut needs.tunnel_hosts, &ip.host);
        }
        for host in snapshot.forwarded_ips.values().flat_map(forwarded_hosts) {
            Move::In.count(&mut needs.tunnel_hosts, host);
        }
        for host in snapshot.routers.values().flat_map(hosts_of) {
            Move::In.count(&mut needs.tunnel_hosts, host);
        }
        let floating = snapshot.floating_ips.values().map(|ip| ip.qos_policy_id);
        let forwarded = snapshot.forwarded_ips.values().map(|ip| ip.qos_policy_id);
        for policy in floating.chain(forwarded).flatten() {
            Move::In.count(&mut needs.qos_policies, &policy);
        }
        needs
    }

    fn port(&mut self, to: Move, port: &Port) {
        to.count(&mut self.guests, &port.network_id);
        for group in &port.security_groups {
            to.count(&mut self.groups, group);
        }
        if let Some(policy) = &port.qos_policy_id {
            to.count(&mut self.qos_policies, policy);
        }
        for log in &port.logs {
            to.count(&mut self.logs, log);
        }
    }

    fn router(&mut self, to: Move, router: &Router) {
        for network in networks(router) {
            to.count(&mut self.legs, &network);
        }
        if let Some(policy) = policy_of_gateway(router) {
            to.count(&mut self.qos_policies, &policy);
        }
        for label in &router.metering_labels {
            to.count(&mut self.metering_labels, label);
        }
    }

    fn rule(&mut self, to: Move, rule: &SecurityGroupRule) {
        match &rule.remote {
            Remote::Group(group) => drop(to.count(&mut self.remote_groups, group)),
            Remote::AddressGroup(group) => drop(to.count(&mut self.address_groups, group)),
            Remote::Any | Remote::Prefix(_) => {}
        }
    }
}

/// The networks that a router leads to.
fn networks(router: &Router) -> impl Iterator<Item = NetworkId> + '_ {
    let interfaces = router.interfaces.iter().map(|leg| leg.network_id);
    interfaces.chain(router.gateway.as_ref().map(|leg| leg.network_id))
}

/// Entries of one host that may differ.
#[derive(Clone, Debug, Default)]
pub(super) struct Dirt {
    pub(super) ports: BTreeSet<PortId>,
    pub(super) routers: BTreeSet<RouterId>,
    pub(super) networks: BTreeSet<NetworkId>,
    pub(super) subnets: BTreeSet<SubnetId>,
    /// Forwarded ones too.
    pub(super) floating_ips: BTreeSet<FloatingIpId>,
    pub(super) local_ips: BTreeSet<LocalIpId>,
    pub(super) rules: BTreeSet<SecurityGroupRuleId>,
    pub(super) security_groups: BTreeSet<SecurityGroupId>,
    pub(super) members: BTreeSet<(SecurityGroupId, IpNet)>,
    pub(super) address_groups: BTreeSet<AddressGroupId>,
    pub(super) qos_policies: BTreeSet<QosPolicyId>,
    pub(super) metering_labels: BTreeSet<MeteringLabelId>,
    pub(super) logs: BTreeSet<LogId>,
    pub(super) remote_ports: BTreeSet<PortId>,
    pub(super) tunnel_hosts: BTreeSet<HostName>,
}

/// What is at hand for every host.
pub(super) struct Cloud<'a> {
    pub(super) view: View<'a>,
    /// The one that has the routers that are near nobody.
    pub(super) first_host: Option<&'a HostName>,
}

/// An entry's value before and after.
type Change<V> = (Option<V>, Option<V>);

/// Sets an entry of a table, and notes what it is and what it was. What it was and is, if that differs.
fn set<K: Ord + Clone, V: PartialEq + Clone>(
    table: &mut BTreeMap<K, V>,
    (delta, undo): (&mut TableDelta<K, V>, &mut TableDelta<K, V>),
    id: &K,
    value: Option<&V>,
) -> Option<Change<V>> {
    if table.get(id) == value {
        return None;
    }
    let old = match value {
        Some(value) => {
            delta.put.insert(id.clone(), value.clone());
            table.insert(id.clone(), value.clone())
        }
        None => {
            delta.delete.insert(id.clone());
            table.remove(id)
        }
    };
    match &old {
        Some(old) => drop(undo.put.insert(id.clone(), old.clone())),
        None => drop(undo.delete.insert(id.clone())),
    }
    Some((old, value.cloned()))
}

/// Sets an entry of one of the snapshot's tables.
macro_rules! set {
    ($update:ident.$table:ident, $id:expr, $value:expr) => {
        set(
            &mut $update.snapshot.$table,
            (
                &mut $update.done.delta.$table,
                &mut $update.done.undo.$table,
            ),
            $id,
            $value,
        )
    };
}

/// What an update did; the revisions are left as they were.
pub(super) struct Done {
    /// What became different.
    pub(super) delta: SnapshotDelta,
    /// The way back.
    pub(super) undo: SnapshotDelta,
}

/// One update of one host.
pub(super) struct Update<'a> {
    cloud: &'a Cloud<'a>,
    snapshot: &'a mut HostSnapshot,
    needs: &'a mut Needs,
    dirt: Dirt,
    done: Done,
}

impl<'a> Update<'a> {
    /// Whether a host has as much as it may have, or more, so that what it has depends on all that is there.
    pub(super) fn is_too_much(cloud: &Cloud<'_>, snapshot: &HostSnapshot) -> bool {
        let guests = cloud.view.index().guests_by_host.get(&snapshot.host);
        guests.is_some_and(|guests| guests.len() > limits::PORTS_PER_HOST_MAX)
            || snapshot.routers.len() >= limits::ROUTERS_PER_HOST_MAX
    }

    /// Brings `snapshot` up to date.
    pub(super) fn run(
        cloud: &'a Cloud<'a>,
        snapshot: &'a mut HostSnapshot,
        needs: &'a mut Needs,
        dirt: Dirt,
    ) -> Done {
        let none = SnapshotDelta::none(snapshot);
        let mut update = Self {
            cloud,
            snapshot,
            needs,
            dirt,
            done: Done {
                delta: none.clone(),
                undo: none,
            },
        };
        update.ports();
        update.routers();
        update.networks();
        update.floating_ips();
        update.local_ips();
        update.qos_policies();
        update.noted();
        update.rules();
        update.groups();
        update.remote_ports();
        update.done
    }

    fn ports(&mut self) {
        let (view, index) = (&self.cloud.view, self.cloud.view.index());
        let mut judged = Judged::new();
        for id in std::mem::take(&mut self.dirt.ports) {
            let guests = index.guests_by_host.get(&self.snapshot.host);
            let here = guests.is_some_and(|guests| guests.contains(&id));
            let port = here.then(|| view.guest(&self.snapshot.host, id, &mut judged));
            let Some((old, new)) = set!(self.ports, &id, port.flatten().as_ref()) else {
                continue;
            };
            for (to, port) in [(Move::In, new), (Move::Out, old)] {
                if let Some(port) = port {
                    self.port_needed(to, &port);
                }
            }
            let floating = view.rows().floating_ips_of(id);
            let forwarded = of(&index.forwarded_ips, &id).copied();
            self.dirt
                .floating_ips
                .extend(floating.into_iter().chain(forwarded));
            self.dirt.local_ips.extend(of(&index.local_ips, &id));
        }
    }

    fn qos_policies(&mut self) {
        for id in std::mem::take(&mut self.dirt.qos_policies) {
            let needed = self.needs.qos_policies.contains_key(&id);
            let policy = self.cloud.view.rows().qos_policies.get(&id);
            set!(self.qos_policies, &id, policy.filter(|_| needed));
        }
    }

    /// What is counted and written down.
    fn noted(&mut self) {
        let rows = self.cloud.view.rows();
        for id in std::mem::take(&mut self.dirt.metering_labels) {
            let needed = self.needs.metering_labels.contains_key(&id);
            let label = rows.metering_labels.get(&id).filter(|_| needed);
            set!(self.metering_labels, &id, label.map(|label| &label.label));
        }
        for id in std::mem::take(&mut self.dirt.logs) {
            let needed = self.needs.logs.contains_key(&id);
            let log = rows.logs.get(&id).filter(|_| needed);
            set!(self.logs, &id, log.map(|log| &log.log));
        }
    }

    /// Counts the need of a QoS policy in or out.
    fn policy_needed(&mut self, to: Move, policy: Option<QosPolicyId>) {
        if let Some(policy) = policy
            && to.count(&mut self.needs.qos_policies, &policy)
        {
            self.dirt.qos_policies.insert(policy);
        }
    }

    /// Counts a port's needs in or out, and marks what that brings or takes.
    fn port_needed(&mut self, to: Move, port: &Port) {
        let index = self.cloud.view.index();
        let network = port.network_id;
        if to.count(&mut self.needs.guests, &network) {
            self.dirt.networks.insert(network);
            self.dirt.routers.extend(of(&index.routers, &network));
        }
        for group in &port.security_groups {
            if to.count(&mut self.needs.groups, group) {
                self.dirt.security_groups.insert(*group);
                self.dirt.rules.extend(of(&index.rules, group));
            }
        }
        self.policy_needed(to, port.qos_policy_id);
        for log in &port.logs {
            if to.count(&mut self.needs.logs, log) {
                self.dirt.logs.insert(*log);
            }
        }
    }

    fn routers(&mut self) {
        let (view, rows) = (&self.cloud.view, self.cloud.view.rows());
        let first = self.cloud.first_host == Some(&self.snapshot.host);
        for id in std::mem::take(&mut self.dirt.routers) {
            let row = rows.routers.get(&id).filter(|row| {
                let mut legs = row.interfaces.iter().filter_map(|leg| rows.ports.get(leg));
                let answered = view.index().elected.get(&id);
                let mine = answered.map_or_else(
                    || first && view.is_lonely(row),
                    |host| *host == self.snapshot.host,
                );
                mine || legs.any(|leg| self.needs.guests.contains_key(&leg.network_id))
            });
            let router = row.map(|row| view.router(&self.snapshot.host, (id, row)));
            let Some((old, new)) = set!(self.routers, &id, router.as_ref()) else {
                continue;
            };
            for (to, router) in [(Move::In, &new), (Move::Out, &old)] {
                for network in router.iter().flat_map(networks) {
                    if to.count(&mut self.needs.legs, &network) {
                        self.dirt.networks.insert(network);
                    }
                }
                for host in router.iter().flat_map(hosts_of) {
                    if to.count(&mut self.needs.tunnel_hosts, host) {
                        self.dirt.tunnel_hosts.insert(host.clone());
                    }
                }
                self.policy_needed(to, router.as_ref().and_then(policy_of_gateway));
                for label in router.iter().flat_map(|router| &router.metering_labels) {
                    if to.count(&mut self.needs.metering_labels, label) {
                        self.dirt.metering_labels.insert(*label);
                    }
                }
            }
            let gateway = |router: &Option<Router>| {
                let gateway = router.as_ref().and_then(|router| router.gateway.as_ref());
                gateway.map(|leg| (leg.network_id, leg.gateway_host.clone()))
            };
            if gateway(&old) != gateway(&new) {
                self.floating_ips_through(id);
            }
        }
    }

    /// Marks the floating IPs that lead to this host through a router.
    fn floating_ips_through(&mut self, id: RouterId) {
        let index = self.cloud.view.index();
        let all = of(&index.floating_routers, &id);
        let rows = self.cloud.view.rows();
        let here = |port: PortId| self.snapshot.ports.contains_key(&port);
        let mine = index.elected.get(&id) == Some(&self.snapshot.host);
        let near = all.filter(|ip| {
            let known = self.snapshot.remote_floating_ips.contains_key(ip)
                || self.snapshot.forwarded_ips.contains_key(ip);
            if mine || known {
                return true;
            }
            let floating = rows.floating_ips.get(ip);
            let forwarded = rows.forwarded_ips.get(ip);
            let holder = floating.and_then(|ip| rows.holder(ip));
            holder.is_some_and(here)
                || forwarded.is_some_and(|ip| {
                    let mut ports = ip.port_forwardings.iter();
                    ports.any(|forwarding| here(forwarding.internal_port_id))
                })
        });
        self.dirt.floating_ips.extend(near);
    }

    fn networks(&mut self) {
        let (view, rows) = (&self.cloud.view, self.cloud.view.rows());
        let index = view.index();
        for id in std::mem::take(&mut self.dirt.networks) {
            let needed = self.needs.guests.contains_key(&id) || self.needs.legs.contains_key(&id);
            let network = needed.then(|| view.network(&self.snapshot.host, id));
            let Some((old, new)) = set!(self.networks, &id, network.flatten().as_ref()) else {
                continue;
            };
            if old.is_some() != new.is_some() {
                self.dirt.subnets.extend(of(&index.subnets, &id));
                let local_ips = of(&index.local_ips_by_network, &id);
                self.dirt.local_ips.extend(local_ips);
            }
            if old.as_ref().and_then(tunnel) != new.as_ref().and_then(tunnel) {
                let guests = of(&index.guests_by_network, &id);
                self.dirt.remote_ports.extend(guests);
            }
        }
        for id in std::mem::take(&mut self.dirt.subnets) {
            let subnet = rows.subnets.get(&id);
            let subnet =
                subnet.filter(|subnet| self.snapshot.networks.contains_key(&subnet.network_id));
            set!(self.subnets, &id, subnet);
        }
    }

    fn floating_ips(&mut self) {
        let (view, rows) = (&self.cloud.view, self.cloud.view.rows());
        for id in std::mem::take(&mut self.dirt.floating_ips) {
            let ip = rows.floating_ips.get(&id);
            let ip = ip.and_then(|ip| view.floating_ip(self.snapshot, ip));
            if let Some((old, new)) = set!(self.floating_ips, &id, ip.as_ref()) {
                for (to, ip) in [(Move::In, new), (Move::Out, old)] {
                    self.policy_needed(to, ip.and_then(|ip| ip.qos_policy_id));
                }
            }
            let ip = view.remote_floating_ip(self.snapshot, id);
            if let Some((old, new)) = set!(self.remote_floating_ips, &id, ip.as_ref()) {
                for (to, ip) in [(Move::In, new), (Move::Out, old)] {
                    if let Some(RemoteFloatingIp { host, .. }) = ip
                        && to.count(&mut self.needs.tunnel_hosts, &host)
                    {
                        self.dirt.tunnel_hosts.insert(host);
                    }
                }
            }
            let ip = rows.forwarded_ips.get(&id);
            let ip = ip.and_then(|ip| view.forwarded_ip(self.snapshot, ip));
            if let Some((old, new)) = set!(self.forwarded_ips, &id, ip.as_ref()) {
                for (to, ip) in [(Move::In, new), (Move::Out, old)] {
                    self.policy_needed(to, ip.as_ref().and_then(|ip| ip.qos_policy_id));
                    for host in ip.iter().flat_map(forwarded_hosts) {
                        if to.count(&mut self.needs.tunnel_hosts, host) {
                            self.dirt.tunnel_hosts.insert(host.clone());
                        }
                    }
                }
            }
        }
    }

    fn local_ips(&mut self) {
        for id in std::mem::take(&mut self.dirt.local_ips) {
            let ip = self.cloud.view.rows().local_ips.get(&id);
            let ip = ip.and_then(|ip| local_ip(self.snapshot, ip));
            set!(self.local_ips, &id, ip.as_ref());
        }
    }

    fn rules(&mut self) {
        for id in std::mem::take(&mut self.dirt.rules) {
            let rule = self.cloud.view.rule(id);
            let rule = rule.filter(|rule| self.needs.groups.contains_key(&rule.security_group_id));
            let Some((old, new)) = set!(self.security_group_rules, &id, rule) else {
                continue;
            };
            for (to, rule) in [(Move::In, new), (Move::Out, old)] {
                if let Some(rule) = rule {
                    self.rule_needed(to, &rule);
                }
            }
        }
    }

    /// Counts a rule's needs in or out, and marks what that brings or takes.
    fn rule_needed(&mut self, to: Move, rule: &SecurityGroupRule) {
        match rule.remote {
            Remote::Group(group) => {
                if to.count(&mut self.needs.remote_groups, &group) {
                    self.dirt.security_groups.insert(group);
                    self.all_members(group);
                }
            }
            Remote::AddressGroup(group) => {
                if to.count(&mut self.needs.address_groups, &group) {
                    self.dirt.address_groups.insert(group);
                }
            }
            Remote::Any | Remote::Prefix(_) => {}
        }
    }

    /// Marks the members of a group: those that are here, and those that there are.
    fn all_members(&mut self, group: SecurityGroupId) {
        let first = SecurityGroupMember {
            security_group_id: group,
            address: IpNet::V4(Ipv4Net::default()),
        };
        let here = self.snapshot.security_group_members.range(first..);
        let here = here.take_while(|member| member.security_group_id == group);
        let there = self.cloud.view.index().addresses.get(&group);
        let there = there.into_iter().flat_map(BTreeMap::keys);
        let all = here.map(|member| member.address).chain(there.copied());
        self.dirt
            .members
            .extend(all.map(|address| (group, address)));
    }

    fn groups(&mut self) {
        let rows = self.cloud.view.rows();
        for id in std::mem::take(&mut self.dirt.security_groups) {
            let needed =
                self.needs.groups.contains_key(&id) || self.needs.remote_groups.contains_key(&id);
            let group = rows.security_groups.get(&id).filter(|_| needed);
            set!(self.security_groups, &id, group);
        }
        for id in std::mem::take(&mut self.dirt.address_groups) {
            let needed = self.needs.address_groups.contains_key(&id);
            let group = rows.address_groups.get(&id).filter(|_| needed);
            set!(self.address_groups, &id, group);
        }
        for (group, address) in std::mem::take(&mut self.dirt.members) {
            let addresses = self.cloud.view.index().addresses.get(&group);
            let known = addresses.is_some_and(|addresses| addresses.contains_key(&address));
            let is_member = known && self.needs.remote_groups.contains_key(&group);
            let member = SecurityGroupMember {
                security_group_id: group,
                address,
            };
            let delta = &mut self.done.delta.security_group_members;
            let undo = &mut self.done.undo.security_group_members;
            if is_member {
                if self.snapshot.security_group_members.insert(member) {
                    delta.add.insert(member);
                    undo.delete.insert(member);
                }
            } else if self.snapshot.security_group_members.remove(&member) {
                delta.delete.insert(member);
                undo.add.insert(member);
            }
        }
    }

    fn remote_ports(&mut self) {
        let (view, rows) = (&self.cloud.view, self.cloud.view.rows());
        for id in std::mem::take(&mut self.dirt.remote_ports) {
            let known = |port: &Arc<RemotePort>| {
                let network = self.snapshot.networks.get(&port.network_id);
                network.and_then(tunnel).is_some() && rows.tunnel_hosts.contains_key(&port.host)
            };
            let port = view.remote_port(&self.snapshot.host, id).filter(known);
            let Some((old, new)) = set!(self.remote_ports, &id, port.as_ref()) else {
                continue;
            };
            for (to, port) in [(Move::In, new), (Move::Out, old)] {
                if let Some(port) = port
                    && to.count(&mut self.needs.tunnel_hosts, &port.host)
                {
                    self.dirt.tunnel_hosts.insert(port.host.clone());
                }
            }
        }
        for host in std::mem::take(&mut self.dirt.tunnel_hosts) {
            let own = host == self.snapshot.host;
            let tunnel = view.tunnel_host(&self.snapshot.host, &host);
            let tunnel = tunnel.filter(|tunnel| {
                own || tunnel.probed || self.needs.tunnel_hosts.contains_key(&host)
            });
            set!(self.tunnel_hosts, &host, tunnel.as_ref());
        }
    }
}

/// The segment, if frames of it travel in tunnels.
fn tunnel(network: &Network) -> Option<&Segment> {
    let segment = &network.segment;
    (!segment.network_type.is_physical()).then_some(segment)
}
