//! Rows to one host's duty: a pure function, and the oracle of everything incremental.
//!
//! A host is told of
//! 1. its guests' ports, and their networks;
//! 2. routers with a leg in those networks, all networks that they lead to, and their gateways;
//!    routers with a gateway and no guest anywhere near belong to the cloud's first host, so that somebody answers
//!    for the gateway's address;
//! 3. all subnets of these networks;
//! 4. floating IPs, port forwardings and local IPs that lead to its ports;
//! 5. the security groups of its ports, their rules, and who is in the groups that those rules name;
//! 6. the QoS policies of its ports, floating IPs and routers' gateways, as far as they ask something of an engine;
//! 7. the metering labels of its routers, and the logs of its ports;
//! 8. the guests of other hosts on these networks where frames travel in tunnels, with the hosts' addresses, and its own.

use super::decode::{Attached, LocalIp, Port, Router};
use super::external::{forwarded_hosts, hosts_of};
use super::floating_ip::{FloatingIp, ForwardedIp};
use super::index::{Index, member_addresses, of};
use super::interface::{interface_key, tap_name};
use super::rows::Rows;
use super::shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;
use weft_model::{
    self as model, Epoch, FixedIp, FloatingIpId, HostName, HostSnapshot, NetworkId, PortId,
    PortInterface, QosPolicyId, Remote, RemotePort, RouterId, SecurityGroupId, SecurityGroupMember,
    SecurityGroupRuleId, limits,
};

/// All of an id but the ten hexadecimal digits that are in a device's name.
const DIGITS_NOT_IN_NAMES: u128 = (1 << 88) - 1;

/// What duties are made from.
pub(super) struct View<'a> {
    rows: &'a Rows,
    index: &'a Index,
    /// Where what several hosts are told alike is one; none where it is not kept.
    shared: Option<&'a Shared>,
}

/// Which lists of security groups a port may have: asked for many ports, judged once.
pub(super) type Judged = BTreeMap<Vec<SecurityGroupId>, bool>;

impl<'a> View<'a> {
    pub(super) fn new(rows: &'a Rows) -> Self {
        Self {
            rows,
            index: &rows.index,
            shared: None,
        }
    }

    /// The same, for what is kept.
    pub(super) fn sharing(rows: &'a Rows, shared: &'a Shared) -> Self {
        Self {
            shared: Some(shared),
            ..Self::new(rows)
        }
    }

    pub(super) fn rows(&self) -> &'a Rows {
        self.rows
    }

    pub(super) fn index(&self) -> &'a Index {
        self.index
    }

    /// A group's rules.
    pub(super) fn rules_of(
        &self,
        group: SecurityGroupId,
    ) -> impl Iterator<Item = &'a model::SecurityGroupRule> {
        of(&self.index.rules, &group).filter_map(|id| self.rows.security_group_rules.get(id))
    }

    /// How many ranges wider than one address the members of a group have in a family.
    pub(super) fn ranges_of_members(
        &self,
        group: SecurityGroupId,
        ethertype: model::EtherType,
    ) -> usize {
        let [v4, v6] = self.index.ranges.get(&group).copied().unwrap_or_default();
        match ethertype {
            model::EtherType::Ipv4 => v4,
            model::EtherType::Ipv6 => v6,
        }
    }

    /// The duty of `host` in a cloud of `hosts`.
    pub(super) fn snapshot(
        &self,
        host: &HostName,
        hosts: &BTreeSet<HostName>,
        epoch: Epoch,
    ) -> HostSnapshot {
        let mut snapshot = HostSnapshot::empty(host.clone(), epoch);
        snapshot.revision = self.rows.revision;
        self.ports(&mut snapshot);
        let routers = self.routers(&snapshot, hosts.first() == Some(host));
        self.networks(&mut snapshot, &routers);
        for id in routers {
            if let Some(router) = self.rows.routers.get(&id) {
                let router = self.router(&snapshot.host, (id, router));
                snapshot.routers.insert(id, router);
            }
        }
        self.floating_ips(&mut snapshot);
        self.remote_floating_ips(&mut snapshot);
        self.forwarded_ips(&mut snapshot);
        self.local_ips(&mut snapshot);
        self.qos_policies(&mut snapshot);
        self.noted(&mut snapshot);
        self.security_groups(&mut snapshot);
        self.remote_ports(&mut snapshot);
        snapshot
    }

    fn ports(&self, snapshot: &mut HostSnapshot) {
        let local = self.index.guests_by_host.get(&snapshot.host);
        let (ports, max) = (local.map_or(0, BTreeSet::len), limits::PORTS_PER_HOST_MAX);
        if ports > max {
            tracing::error!(host = %snapshot.host, ports, max, "too many ports: the last ones get nothing");
        }
        let mut judged = Judged::new();
        for id in local.into_iter().flatten().take(max) {
            if let Some(port) = self.guest(&snapshot.host, *id, &mut judged) {
                snapshot.ports.insert(*id, port);
            }
        }
    }

    fn qos_policies(&self, snapshot: &mut HostSnapshot) {
        let ports = snapshot.ports.values().map(|port| port.qos_policy_id);
        let gateways = snapshot.routers.values().map(policy_of_gateway);
        let floating = snapshot.floating_ips.values().map(|ip| ip.qos_policy_id);
        let forwarded = snapshot.forwarded_ips.values().map(|ip| ip.qos_policy_id);
        let all = ports.chain(gateways).chain(floating).chain(forwarded);
        let known = |id: QosPolicyId| Some((id, self.rows.qos_policies.get(&id)?.clone()));
        snapshot.qos_policies = all.flatten().filter_map(known).collect();
    }

    /// What is counted and written down.
    fn noted(&self, snapshot: &mut HostSnapshot) {
        for id in snapshot.routers.values().flat_map(|r| &r.metering_labels) {
            if let Some(label) = self.rows.metering_labels.get(id) {
                snapshot.metering_labels.insert(*id, label.label.clone());
            }
        }
        for id in snapshot.ports.values().flat_map(|port| &port.logs) {
            if let Some(log) = self.rows.logs.get(id) {
                snapshot.logs.insert(*id, log.log.clone());
            }
        }
    }

    /// A guest's port, if the host can have it: its network is known, and its device's name is its own.
    pub(super) fn guest(
        &self,
        host: &HostName,
        id: PortId,
        judged: &mut Judged,
    ) -> Option<model::Port> {
        let (port, interface) = self.port_and_interface(id, host)?;
        let key = interface_key(&interface);
        let taken = |other: &PortId| {
            let other = self.port_and_interface(*other, host);
            other.is_some_and(|(_, other)| interface_key(&other) == key)
        };
        // Two random ids in 2^40 share their first 11 characters; the later one must not stop the host.
        if self
            .same_name(host, id)
            .take_while(|other| *other < id)
            .any(|other| taken(&other))
        {
            tracing::error!(port = %id, "another port of the host has the same device name: make a new port");
            return None;
        }
        let mut port = self.port(id, port, interface);
        if !self.fits(&port.security_groups, judged) {
            tracing::error!(
                port = %id,
                rules_max = limits::RULES_PER_POLICY_MAX,
                remote_groups_max = limits::REMOTE_GROUPS_PER_POLICY_MAX,
                "the port's security groups are too large: nothing passes until they are smaller"
            );
            port.security_groups.clear();
        }
        Some(port)
    }

    /// The other guests of the host whose devices may have the same name, in order: it is made of an id's first digits.
    pub(super) fn same_name(
        &self,
        host: &HostName,
        id: PortId,
    ) -> impl Iterator<Item = PortId> + use<'a> {
        let guests = self.index.guests_by_host.get(host);
        let number = id.0.as_u128();
        let first = PortId(Uuid::from_u128(number & !DIGITS_NOT_IN_NAMES));
        let last = PortId(Uuid::from_u128(number | DIGITS_NOT_IN_NAMES));
        let near = guests
            .into_iter()
            .flat_map(move |guests| guests.range(first..=last));
        near.copied().filter(move |other| *other != id)
    }

    /// A port, and how it is attached to the host; none for a subport whose trunk is closed, or not here, and for a
    /// port whose network cannot be realized (the log has said so).
    fn port_and_interface(&self, id: PortId, host: &HostName) -> Option<(&'a Port, PortInterface)> {
        let port = self.rows.ports.get(&id)?;
        self.rows.networks.get(&port.network_id)?;
        let interface = match &port.attached {
            Attached::Tap => PortInterface::Tap { name: tap_name(id) },
            Attached::VhostUser { socket, mode } => PortInterface::VhostUser {
                socket: socket.clone(),
                mode: *mode,
            },
            Attached::Subport {
                parent,
                vlan_id,
                open,
            } => {
                let trunk = self.rows.ports.get(parent)?;
                let here = trunk.guest_host() == Some(host)
                    && self.rows.networks.contains_key(&trunk.network_id);
                let plain = !matches!(trunk.attached, Attached::Subport { .. });
                (*open && here && plain).then_some(PortInterface::Subport {
                    parent: *parent,
                    vlan_id: *vlan_id,
                })?
            }
        };
        Some((port, interface))
    }

    fn port(&self, id: PortId, port: &Port, interface: PortInterface) -> model::Port {
        let groups = port.security_groups.iter();
        let known = |group: &&SecurityGroupId| self.rows.security_groups.contains_key(*group);
        model::Port {
            network_id: port.network_id,
            mac_address: port.mac_address,
            fixed_ips: self.known_addresses(port),
            claimed_ips: port.claimed_ips.clone(),
            allowed_address_pairs: port.allowed_address_pairs.clone(),
            port_security_enabled: port.port_security_enabled,
            security_groups: groups.filter(known).copied().collect(),
            admin_state_up: port.admin_state_up,
            device_owner: port.device_owner.clone(),
            dns_name: port.dns_name.clone(),
            interface,
            extra_dhcp_opts: port.extra_dhcp_opts.clone(),
            qos_policy_id: self.qos_policy(port.qos_policy_id, port.network_id),
            pvlan: port.pvlan.clone(),
            logs: self.logs(id, port),
        }
    }

    /// The addresses of a port whose subnets can be realized.
    pub(super) fn known_addresses(&self, port: &Port) -> Vec<FixedIp> {
        let known = |ip: &&FixedIp| {
            let subnet = self.rows.subnets.get(&ip.subnet_id);
            subnet.is_some_and(|subnet| subnet.network_id == port.network_id)
        };
        port.fixed_ips.iter().filter(known).copied().collect()
    }

    /// The QoS policy of what is on a network, its own or the network's, if that asks something of an engine.
    pub(super) fn qos_policy(
        &self,
        own: Option<QosPolicyId>,
        network: NetworkId,
    ) -> Option<QosPolicyId> {
        let of_network = || self.rows.network_qos_policies.get(&network).copied();
        let policy = own.or_else(of_network)?;
        let known = self.rows.qos_policies.contains_key(&policy);
        known.then_some(policy)
    }

    /// Which routers the host needs: in order, and not more than it may have.
    fn routers(&self, snapshot: &HostSnapshot, first_host: bool) -> Vec<RouterId> {
        let networks: BTreeSet<_> = snapshot
            .ports
            .values()
            .map(|port| port.network_id)
            .collect();
        let near = networks
            .iter()
            .flat_map(|id| of(&self.index.routers, id))
            .copied();
        let near: BTreeSet<RouterId> = near.collect();
        let others = self.rows.routers.iter().filter(|(id, router)| {
            let answered = self.index.elected.get(id);
            let mine = answered.map_or_else(
                || first_host && self.is_lonely(router),
                |host| *host == snapshot.host,
            );
            mine && !near.contains(id)
        });
        let others = others.map(|(id, _)| *id);
        near.iter()
            .copied()
            .chain(others)
            .take(limits::ROUTERS_PER_HOST_MAX)
            .collect()
    }

    /// Whether a router has a gateway, and no host has a guest on any network it leads to.
    pub(super) fn is_lonely(&self, router: &Router) -> bool {
        let mut legs = router
            .interfaces
            .iter()
            .filter_map(|port| self.rows.ports.get(port));
        router.gateway_port_id.is_some()
            && legs.all(|leg| !self.index.guest_hosts.contains_key(&leg.network_id))
    }

    /// The networks of the host's ports and of its routers' legs, with all their subnets.
    fn networks(&self, snapshot: &mut HostSnapshot, routers: &[RouterId]) {
        let mut ids: BTreeSet<_> = snapshot
            .ports
            .values()
            .map(|port| port.network_id)
            .collect();
        for router in routers.iter().filter_map(|id| self.rows.routers.get(id)) {
            let legs = router.legs().filter_map(|id| self.rows.ports.get(&id));
            ids.extend(legs.map(|port| port.network_id));
        }
        for id in ids {
            let Some(network) = self.network(&snapshot.host, id) else {
                continue;
            };
            snapshot.networks.insert(id, network);
            for subnet_id in of(&self.index.subnets, &id) {
                if let Some(subnet) = self.rows.subnets.get(subnet_id) {
                    snapshot.subnets.insert(*subnet_id, subnet.clone());
                }
            }
        }
    }

    /// A host's segment of a network that has several: the first that it reaches, or the first of all.
    pub(super) fn segment(&self, host: &HostName, id: NetworkId) -> Option<&'a model::Segment> {
        let segments = self.rows.segments.get(&id)?;
        let connected = self.rows.gateway_hosts.get(host);
        let connected = connected.map(|known| &known.physical_networks);
        let reached = |segment: &&model::Segment| match &segment.physical_network {
            Some(name) => connected.is_some_and(|connected| connected.contains(name)),
            None => true,
        };
        segments.iter().find(reached).or(segments.first())
    }

    fn floating_ips(&self, snapshot: &mut HostSnapshot) {
        let ids = snapshot
            .ports
            .keys()
            .flat_map(|port| self.rows.floating_ips_of(*port));
        let realized = |id: FloatingIpId| {
            let ip = self.rows.floating_ips.get(&id)?;
            Some((id, self.floating_ip(snapshot, ip)?))
        };
        snapshot.floating_ips = ids.filter_map(realized).collect();
    }

    /// None while router, gateway or address are not (or not any more) what the floating IP needs.
    pub(super) fn floating_ip(
        &self,
        snapshot: &HostSnapshot,
        ip: &FloatingIp,
    ) -> Option<model::FloatingIp> {
        let port_id = self.rows.holder(ip)?;
        let fits = has_gateway_in(snapshot, ip.router_id, ip.floating_network_id)
            && has_address(&snapshot.ports, port_id, ip.fixed_ip_address.into());
        fits.then_some(model::FloatingIp {
            floating_network_id: ip.floating_network_id,
            floating_ip_address: ip.floating_ip_address,
            mac_address: self.rows.ports.get(&ip.floating_port_id)?.mac_address,
            router_id: ip.router_id,
            port_id,
            fixed_ip_address: ip.fixed_ip_address,
            qos_policy_id: self.qos_policy(ip.qos_policy_id, ip.floating_network_id),
        })
    }

    fn forwarded_ips(&self, snapshot: &mut HostSnapshot) {
        let near = snapshot.ports.keys();
        let ids: BTreeSet<_> = near
            .flat_map(|port| of(&self.index.forwarded_ips, port))
            .collect();
        for id in ids {
            let ip = self.rows.forwarded_ips.get(id);
            if let Some(ip) = ip.and_then(|ip| self.forwarded_ip(snapshot, ip)) {
                snapshot.forwarded_ips.insert(*id, ip);
            }
        }
    }

    /// What of it leads to ports of this host, and, at the host that answers for the router, to other hosts; none if nothing
    /// does.
    pub(super) fn forwarded_ip(
        &self,
        snapshot: &HostSnapshot,
        ip: &ForwardedIp,
    ) -> Option<model::ForwardedIp> {
        let mut port_forwardings = ip.port_forwardings.clone();
        port_forwardings.retain(|forwarding| {
            let address = forwarding.internal_ip_address.into();
            has_address(&snapshot.ports, forwarding.internal_port_id, address)
        });
        let elsewhere = self.forwarded_elsewhere(snapshot, ip);
        let fits = has_gateway_in(snapshot, ip.router_id, ip.floating_network_id);
        let any = !port_forwardings.is_empty() || !elsewhere.is_empty();
        (fits && any).then_some(model::ForwardedIp {
            floating_network_id: ip.floating_network_id,
            floating_ip_address: ip.floating_ip_address,
            mac_address: self.rows.ports.get(&ip.floating_port_id)?.mac_address,
            router_id: ip.router_id,
            port_forwardings,
            qos_policy_id: self.qos_policy(ip.qos_policy_id, ip.floating_network_id),
            elsewhere,
        })
    }

    fn local_ips(&self, snapshot: &mut HostSnapshot) {
        let near = snapshot.ports.keys();
        let ids: BTreeSet<_> = near
            .flat_map(|port| of(&self.index.local_ips, port))
            .collect();
        for id in ids {
            let ip = self.rows.local_ips.get(id);
            if let Some(ip) = ip.and_then(|ip| local_ip(snapshot, ip)) {
                snapshot.local_ips.insert(*id, ip);
            }
        }
    }

    fn security_groups(&self, snapshot: &mut HostSnapshot) {
        let local: BTreeSet<SecurityGroupId> = snapshot
            .ports
            .values()
            .flat_map(|port| port.security_groups.iter().copied())
            .collect();
        let mut remote = BTreeSet::new();
        for id in local.iter().flat_map(|group| of(&self.index.rules, group)) {
            let Some(rule) = self.rule(*id) else {
                continue;
            };
            match rule.remote {
                Remote::Group(group) => {
                    remote.insert(group);
                }
                Remote::AddressGroup(id) => {
                    let group = self.rows.address_groups.get(&id).cloned();
                    snapshot
                        .address_groups
                        .extend(group.map(|group| (id, group)));
                }
                Remote::Any | Remote::Prefix(_) => {}
            }
            snapshot.security_group_rules.insert(*id, rule.clone());
        }
        for id in local.union(&remote) {
            if let Some(group) = self.rows.security_groups.get(id) {
                snapshot.security_groups.insert(*id, group.clone());
            }
        }
        for group in remote {
            let ports = of(&self.index.members, &group);
            for port in ports.filter_map(|id| self.rows.ports.get(id)) {
                let member = |address| SecurityGroupMember {
                    security_group_id: group,
                    address,
                };
                snapshot
                    .security_group_members
                    .extend(member_addresses(port).map(member));
            }
        }
    }

    /// A rule, if what it speaks of can be realized; if not, the log has said so.
    pub(super) fn rule(&self, id: SecurityGroupRuleId) -> Option<&'a model::SecurityGroupRule> {
        let rule = self.rows.security_group_rules.get(&id)?;
        let known = match rule.remote {
            Remote::Group(group) => self.rows.security_groups.contains_key(&group),
            Remote::AddressGroup(group) => self.rows.address_groups.contains_key(&group),
            Remote::Any | Remote::Prefix(_) => true,
        };
        known.then_some(rule)
    }

    fn remote_ports(&self, snapshot: &mut HostSnapshot) {
        if let Some(own) = self.tunnel_host(&snapshot.host, &snapshot.host) {
            let host = snapshot.host.clone();
            snapshot.tunnel_hosts.insert(host, own);
        }
        let tunnelled = snapshot
            .networks
            .iter()
            .filter(|(_, n)| !n.segment.network_type.is_physical());
        let ports: BTreeSet<PortId> = tunnelled
            .flat_map(|(id, _)| of(&self.index.guests_by_network, id))
            .copied()
            .collect();
        for id in ports {
            let Some(remote) = self.remote_port(&snapshot.host, id) else {
                continue;
            };
            if let Some(tunnel) = self.tunnel_host(&snapshot.host, &remote.host) {
                let host = remote.host.clone();
                snapshot.tunnel_hosts.insert(host, tunnel);
                snapshot.remote_ports.insert(id, remote);
            }
        }
        let routers = snapshot.routers.values().flat_map(hosts_of);
        let floating = snapshot.remote_floating_ips.values().map(|ip| &ip.host);
        let floating = floating.chain(snapshot.forwarded_ips.values().flat_map(forwarded_hosts));
        let probed = self.rows.probed_by(&snapshot.host);
        let hosts: BTreeSet<HostName> = routers.chain(floating).chain(probed).cloned().collect();
        for host in hosts {
            if let Some(tunnel) = self.tunnel_host(&snapshot.host, &host) {
                snapshot.tunnel_hosts.insert(host, tunnel);
            }
        }
    }

    /// A guest of another host.
    pub(super) fn remote_port(&self, here: &HostName, id: PortId) -> Option<Arc<RemotePort>> {
        let port = self.rows.ports.get(&id)?;
        let host = port.guest_host().filter(|host| *host != here)?;
        // On another segment it is not reached by frames.
        let network = port.network_id;
        if self.segment(host, network) != self.segment(here, network) {
            return None;
        }
        let remote = RemotePort {
            network_id: port.network_id,
            mac_address: port.mac_address,
            fixed_ips: self.known_addresses(port),
            claimed_ips: port.claimed_ips.clone(),
            host: host.clone(),
            pvlan: port.pvlan.clone(),
        };
        Some(match self.shared {
            Some(shared) => shared.one(id, remote),
            None => Arc::new(remote),
        })
    }
}

/// What of a local IP leads to ports of the host; none if nothing does.
pub(super) fn local_ip(snapshot: &HostSnapshot, ip: &LocalIp) -> Option<model::LocalIp> {
    let mut targets = ip.targets.clone();
    targets.retain(|target| has_address(&snapshot.ports, target.port_id, target.fixed_ip));
    let good = !targets.is_empty() && snapshot.networks.contains_key(&ip.network_id);
    good.then_some(model::LocalIp {
        network_id: ip.network_id,
        local_ip_address: ip.local_ip_address,
        mode: ip.mode,
        targets,
    })
}

/// The QoS policy of a router's gateway.
pub(super) fn policy_of_gateway(router: &model::Router) -> Option<QosPolicyId> {
    router.gateway.as_ref()?.qos_policy_id
}

/// Whether a router of the snapshot has its gateway in a network.
pub(super) fn has_gateway_in(
    snapshot: &HostSnapshot,
    router: RouterId,
    network: NetworkId,
) -> bool {
    let router = snapshot.routers.get(&router);
    let gateway = router.and_then(|router| router.gateway.as_ref());
    gateway.is_some_and(|gateway| gateway.network_id == network)
}

/// Whether a port of the host has an address.
pub(super) fn has_address(
    local: &BTreeMap<PortId, model::Port>,
    port: PortId,
    address: IpAddr,
) -> bool {
    local.get(&port).is_some_and(|port| {
        let mut fixed = port.fixed_ips.iter();
        fixed.any(|ip| ip.ip_address == address) || port.claimed_ips.contains(&address)
    })
}
