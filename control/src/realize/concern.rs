//! Which hosts marked rows lead to, by the rows' index alone: for hosts whose duties are kept elsewhere, or nowhere.
//!
//! Guarantees: a host whose duty is changed by what is marked is among them (the tests hold it to that, with random
//! histories), if the answer is not that any host may be; one that is among them may turn out to have no change. It costs
//! what is marked, and is bounded.

use super::decode::Router;
use super::index::of;
use super::mark::Marks;
use super::rows::Rows;
use super::snapshot::View;
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{HostName, NetworkId, PortId, RouterId, SecurityGroupId};

/// Entries that are looked at; beyond that any host may be concerned.
const LOOKED_AT_MAX: usize = 4_096;
/// Hosts that are named; likewise.
const HOSTS_MAX: usize = 256;

/// The hosts, or none if any host may be concerned.
pub(super) fn concerned(rows: &Rows, marks: &Marks) -> Option<BTreeSet<HostName>> {
    // Whatever only the first host had.
    let anyone = marks.everything
        || marks.lonely
        || !marks.tunnel_hosts.is_empty()
        || !marks.metering_labels.is_empty()
        || !marks.logs.is_empty();
    if anyone {
        return None;
    }
    let mut all = Concerned {
        rows,
        hosts: BTreeSet::new(),
        left: LOOKED_AT_MAX,
    };
    all.named(marks)?;
    all.networks(marks)?;
    all.groups(marks)?;
    all.policies(marks)?;
    (all.hosts.len() <= HOSTS_MAX).then_some(all.hosts)
}

struct Concerned<'a> {
    rows: &'a Rows,
    hosts: BTreeSet<HostName>,
    left: usize,
}

impl Concerned<'_> {
    fn look(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        Some(())
    }

    /// What is marked at certain hosts.
    fn named(&mut self, marks: &Marks) -> Option<()> {
        let hosts = marks.ports.keys().chain(marks.floating_ips.keys());
        let hosts = hosts.chain(marks.local_ips.keys()).chain(&marks.hosts);
        for host in hosts.chain(marks.routers_at.keys()) {
            self.look()?;
            self.hosts.insert(host.clone());
        }
        Some(())
    }

    /// What hosts know that know a network or a router.
    fn networks(&mut self, marks: &Marks) -> Option<()> {
        let moved: BTreeSet<RouterId> = marks.routers_at.values().flatten().copied().collect();
        for id in &marks.routers {
            // One that is gone may have been anybody's, and one that nobody was elected for as well.
            let router = self.rows.routers.get(id)?;
            let elected = self.rows.index.elected.contains_key(id) && !moved.contains(id);
            if router.gateway_port_id.is_some() && !elected {
                return None;
            }
            self.router(router)?;
        }
        for network in marks.routers_near.keys() {
            self.guests(*network)?;
        }
        let networks: BTreeSet<NetworkId> = (marks.networks.iter())
            .chain(marks.subnets.keys())
            .chain(marks.remote_ports.keys())
            .copied()
            .collect();
        for network in networks {
            self.network(network)?;
        }
        Some(())
    }

    /// Those that have guests on a network.
    fn guests(&mut self, network: NetworkId) -> Option<()> {
        let hosts = self.rows.index.guest_hosts.get(&network);
        for host in hosts.into_iter().flat_map(BTreeMap::keys) {
            self.look()?;
            self.hosts.insert(host.clone());
        }
        Some(())
    }

    /// Those that know a network: by guests, or by a router that leads there.
    fn network(&mut self, network: NetworkId) -> Option<()> {
        self.guests(network)?;
        for id in of(&self.rows.index.routers, &network) {
            self.router(self.rows.routers.get(id)?)?;
        }
        // By a gateway: there is no index of these, so it costs what routers there are.
        let rows = self.rows;
        for port in of(&rows.index.service_ports, &network) {
            self.look()?;
            for id in of(&rows.index.routers_by_leg, port) {
                self.router(rows.routers.get(id)?)?;
            }
        }
        Some(())
    }

    /// Those that have a router: they have guests near, or answer for it outside.
    fn router(&mut self, router: &Router) -> Option<()> {
        self.look()?;
        let rows = self.rows;
        if View::new(rows).is_lonely(router) {
            // The first host has it, of those that follow whatever server.
            return None;
        }
        for leg in &router.interfaces {
            if let Some(port) = rows.ports.get(leg) {
                self.guests(port.network_id)?;
            }
        }
        for leg in router.legs() {
            for id in of(&rows.index.routers_by_leg, &leg) {
                self.hosts.extend(rows.index.elected.get(id).cloned());
            }
        }
        Some(())
    }

    fn guest(&mut self, id: PortId) -> Option<()> {
        self.look()?;
        let host = self.rows.ports.get(&id).and_then(|port| port.guest_host());
        self.hosts.extend(host.cloned());
        Some(())
    }

    /// What hosts know that have guests in a group, or in one whose rules name it.
    fn groups(&mut self, marks: &Marks) -> Option<()> {
        let index = &self.rows.index;
        let marked = marks.security_groups.iter();
        let marked = marked.chain(marks.rules.keys()).chain(marks.members.keys());
        let marked: BTreeSet<SecurityGroupId> = marked.copied().collect();
        let mut rules = BTreeSet::new();
        for group in &marked {
            rules.extend(of(&index.rules_by_remote, group));
        }
        for group in &marks.address_groups {
            rules.extend(of(&index.rules_by_address_group, group));
        }
        let mut groups = marked;
        for rule in rules {
            self.look()?;
            let rule = self.rows.security_group_rules.get(rule);
            groups.extend(rule.map(|rule| rule.security_group_id));
        }
        for group in groups {
            for id in of(&index.members, &group) {
                self.guest(*id)?;
            }
        }
        Some(())
    }

    /// What hosts know that have a guest under a policy. Those of routers and floating IPs are not looked for.
    fn policies(&mut self, marks: &Marks) -> Option<()> {
        let index = &self.rows.index;
        for policy in &marks.qos_policies {
            let routers = index.routers_by_qos_policy.contains_key(policy);
            if routers || index.floating_ips_by_qos_policy.contains_key(policy) {
                return None;
            }
            for id in of(&index.ports_by_qos_policy, policy) {
                self.guest(*id)?;
            }
            for network in of(&index.networks_by_qos_policy, policy) {
                self.network(*network)?;
            }
        }
        Some(())
    }
}
