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
//! 6. the QoS policies of its ports, as far as they ask something of an engine;
//! 7. the guests of other hosts on these networks where frames travel in tunnels.

use super::decode::{Attached, FloatingIp, ForwardedIp, Port, Router};
use super::interface::{interface_key, tap_name};
use super::rows::Rows;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use weft_model::{
    self as model, Epoch, FixedIp, FloatingIpId, HostName, HostSnapshot, LocalIpId, NetworkId,
    PortBlock, PortId, PortInterface, QosPolicyId, Remote, RemotePort, RouterAddress,
    RouterGateway, RouterId, RouterInterface, SecurityGroupId, SecurityGroupMember,
    SecurityGroupRuleId, SubnetId, TunnelHost, limits,
};

/// The ports of a gateway's address that one host may use for SNAT. One host has them all until hosts share a
/// gateway.
const SNAT_PORT_BLOCK: PortBlock = PortBlock {
    first: 1_024,
    last: 65_535,
};

/// The rows by what they hang on.
pub(super) struct Index<'a> {
    rows: &'a Rows,
    subnets: BTreeMap<NetworkId, Vec<SubnetId>>,
    guests_by_host: BTreeMap<&'a HostName, Vec<PortId>>,
    guests_by_network: BTreeMap<NetworkId, Vec<PortId>>,
    members: BTreeMap<SecurityGroupId, Vec<PortId>>,
    routers: BTreeMap<NetworkId, Vec<RouterId>>,
    floating_ips: BTreeMap<PortId, Vec<FloatingIpId>>,
    forwarded_ips: BTreeMap<PortId, BTreeSet<FloatingIpId>>,
    local_ips: BTreeMap<PortId, Vec<LocalIpId>>,
    rules: BTreeMap<SecurityGroupId, Vec<SecurityGroupRuleId>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(rows: &'a Rows) -> Self {
        let mut index = Self {
            rows,
            subnets: BTreeMap::new(),
            guests_by_host: BTreeMap::new(),
            guests_by_network: BTreeMap::new(),
            members: BTreeMap::new(),
            routers: BTreeMap::new(),
            floating_ips: BTreeMap::new(),
            forwarded_ips: BTreeMap::new(),
            local_ips: BTreeMap::new(),
            rules: BTreeMap::new(),
        };
        for (id, subnet) in &rows.subnets {
            index
                .subnets
                .entry(subnet.network_id)
                .or_default()
                .push(*id);
        }
        for (id, port) in &rows.ports {
            for group in &port.security_groups {
                index.members.entry(*group).or_default().push(*id);
            }
            if let Some(host) = port.host.as_ref().filter(|_| port.is_guest()) {
                index.guests_by_host.entry(host).or_default().push(*id);
                index
                    .guests_by_network
                    .entry(port.network_id)
                    .or_default()
                    .push(*id);
            }
        }
        for (id, router) in &rows.routers {
            let legs = router
                .interfaces
                .iter()
                .filter_map(|port| rows.ports.get(port));
            for network in legs.map(|port| port.network_id).collect::<BTreeSet<_>>() {
                index.routers.entry(network).or_default().push(*id);
            }
        }
        for (id, floating_ip) in &rows.floating_ips {
            index
                .floating_ips
                .entry(floating_ip.port_id)
                .or_default()
                .push(*id);
        }
        for (id, forwarded_ip) in &rows.forwarded_ips {
            for forwarding in &forwarded_ip.port_forwardings {
                let of = index.forwarded_ips.entry(forwarding.internal_port_id);
                of.or_default().insert(*id);
            }
        }
        for (id, local_ip) in &rows.local_ips {
            for target in &local_ip.targets {
                index.local_ips.entry(target.port_id).or_default().push(*id);
            }
        }
        for (id, rule) in &rows.security_group_rules {
            index
                .rules
                .entry(rule.security_group_id)
                .or_default()
                .push(*id);
        }
        index
    }

    pub(super) fn rows(&self) -> &Rows {
        self.rows
    }

    /// The hosts that have guests.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.guests_by_host.keys().copied()
    }

    /// A group's rules.
    pub(super) fn rules_of(
        &self,
        group: SecurityGroupId,
    ) -> impl Iterator<Item = &model::SecurityGroupRule> {
        let ids = self.rules.get(&group).into_iter().flatten();
        ids.filter_map(|id| self.rows.security_group_rules.get(id))
    }

    /// How many ranges wider than one address the members of a group have in a family.
    pub(super) fn ranges_of_members(
        &self,
        group: SecurityGroupId,
        ethertype: model::EtherType,
    ) -> usize {
        let is_ipv6 = ethertype == model::EtherType::Ipv6;
        let ports = self.members.get(&group).into_iter().flatten();
        let pairs = ports
            .filter_map(|id| self.rows.ports.get(id))
            .flat_map(|port| &port.allowed_address_pairs)
            .map(|pair| pair.ip_address);
        pairs
            .filter(|range| range.addr().is_ipv6() == is_ipv6)
            .filter(|range| range.prefix_len() < range.max_prefix_len())
            .count()
    }

    /// The duty of `host` in a cloud of `hosts`. `tunnel_hosts` are those whose tunnel address is known.
    pub(super) fn snapshot(
        &self,
        host: &HostName,
        hosts: &BTreeSet<HostName>,
        tunnel_hosts: &BTreeMap<HostName, TunnelHost>,
        epoch: Epoch,
    ) -> HostSnapshot {
        let mut snapshot = HostSnapshot::empty(host.clone(), epoch);
        snapshot.revision = self.rows.revision;
        self.ports(&mut snapshot);
        self.policies_within_limits(&mut snapshot);
        let routers = self.routers(&snapshot, hosts.first() == Some(host));
        self.networks(&mut snapshot, &routers);
        for id in routers {
            if let Some(router) = self.rows.routers.get(&id) {
                let router = self.router(&snapshot, router);
                snapshot.routers.insert(id, router);
            }
        }
        self.floating_ips(&mut snapshot);
        self.forwarded_ips(&mut snapshot);
        self.local_ips(&mut snapshot);
        self.security_groups(&mut snapshot);
        self.remote_ports(&mut snapshot, tunnel_hosts);
        snapshot
    }

    fn ports(&self, snapshot: &mut HostSnapshot) {
        let local = self
            .guests_by_host
            .get(&snapshot.host)
            .map_or(&[][..], Vec::as_slice);
        if local.len() > limits::PORTS_PER_HOST_MAX {
            let (ports, max) = (local.len(), limits::PORTS_PER_HOST_MAX);
            tracing::error!(host = %snapshot.host, ports, max, "too many ports: the last ones get nothing");
        }
        let mut taken = BTreeSet::new();
        for id in local.iter().take(limits::PORTS_PER_HOST_MAX) {
            let Some((port, interface)) = self.port_and_interface(*id, &snapshot.host) else {
                continue;
            };
            // Two random ids in 2^40 share their first 11 characters; the later one must not stop the host.
            if taken.insert(interface_key(&interface)) {
                let port = self.port(port, interface);
                if let Some(policy) = port.qos_policy_id
                    && let Some(of) = self.rows.qos_policies.get(&policy)
                {
                    snapshot.qos_policies.insert(policy, of.clone());
                }
                snapshot.ports.insert(*id, port);
            } else {
                tracing::error!(port = %id, "another port of the host has the same device name: make a new port");
            }
        }
    }

    /// A port, and how it is attached to the host; none for a subport whose trunk is closed, or not here.
    fn port_and_interface(&self, id: PortId, host: &HostName) -> Option<(&'a Port, PortInterface)> {
        let port = self.rows.ports.get(&id)?;
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
                let here = trunk.host.as_ref() == Some(host) && trunk.is_guest();
                let plain = !matches!(trunk.attached, Attached::Subport { .. });
                (*open && here && plain).then_some(PortInterface::Subport {
                    parent: *parent,
                    vlan_id: *vlan_id,
                })?
            }
        };
        Some((port, interface))
    }

    fn port(&self, port: &Port, interface: PortInterface) -> model::Port {
        let groups = port.security_groups.iter();
        let known = |group: &&SecurityGroupId| self.rows.security_groups.contains_key(*group);
        model::Port {
            network_id: port.network_id,
            mac_address: port.mac_address,
            fixed_ips: port.fixed_ips.clone(),
            allowed_address_pairs: port.allowed_address_pairs.clone(),
            port_security_enabled: port.port_security_enabled,
            security_groups: groups.filter(known).copied().collect(),
            admin_state_up: port.admin_state_up,
            device_owner: port.device_owner.clone(),
            dns_name: port.dns_name.clone(),
            interface,
            extra_dhcp_opts: port.extra_dhcp_opts.clone(),
            qos_policy_id: self.qos_policy(port),
        }
    }

    /// The QoS policy that asks something of the port's engine.
    fn qos_policy(&self, port: &Port) -> Option<QosPolicyId> {
        let of_network = self.rows.network_qos_policies.get(&port.network_id);
        let policy = port.qos_policy_id.as_ref().or(of_network)?;
        self.rows
            .qos_policies
            .contains_key(policy)
            .then_some(*policy)
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
            .filter_map(|id| self.routers.get(id))
            .flatten()
            .copied();
        let near: BTreeSet<RouterId> = near.collect();
        let lonely = self
            .rows
            .routers
            .iter()
            .filter(|(id, router)| first_host && !near.contains(id) && self.is_lonely(router));
        let lonely = lonely.map(|(id, _)| *id);
        near.iter()
            .copied()
            .chain(lonely)
            .take(limits::ROUTERS_PER_HOST_MAX)
            .collect()
    }

    /// Whether a router has a gateway, and no host has a guest on any network it leads to.
    fn is_lonely(&self, router: &Router) -> bool {
        let legs = router
            .interfaces
            .iter()
            .filter_map(|port| self.rows.ports.get(port));
        router.gateway_port_id.is_some()
            && legs
                .into_iter()
                .all(|leg| !self.guests_by_network.contains_key(&leg.network_id))
    }

    /// The networks of the host's ports and of its routers' legs, with all their subnets.
    fn networks(&self, snapshot: &mut HostSnapshot, routers: &[RouterId]) {
        let mut ids: BTreeSet<_> = snapshot
            .ports
            .values()
            .map(|port| port.network_id)
            .collect();
        for router in routers.iter().filter_map(|id| self.rows.routers.get(id)) {
            let legs = router.interfaces.iter().chain(&router.gateway_port_id);
            ids.extend(
                legs.filter_map(|id| self.rows.ports.get(id))
                    .map(|port| port.network_id),
            );
        }
        for id in ids {
            let Some(network) = self.rows.networks.get(&id) else {
                continue;
            };
            snapshot.networks.insert(id, network.clone());
            for subnet_id in self.subnets.get(&id).into_iter().flatten() {
                if let Some(subnet) = self.rows.subnets.get(subnet_id) {
                    snapshot.subnets.insert(*subnet_id, subnet.clone());
                }
            }
        }
        // A port whose network cannot be realized cannot be either; the log has said so.
        snapshot
            .ports
            .retain(|_, port| snapshot.networks.contains_key(&port.network_id));
        let present: BTreeSet<PortId> = snapshot.ports.keys().copied().collect();
        snapshot.ports.retain(|_, port| match &port.interface {
            PortInterface::Subport { parent, .. } => present.contains(parent),
            _ => true,
        });
        for port in snapshot.ports.values_mut() {
            port.fixed_ips
                .retain(|ip| snapshot.subnets.contains_key(&ip.subnet_id));
        }
    }

    fn router(&self, snapshot: &HostSnapshot, router: &Router) -> model::Router {
        let leg = |id: &PortId| {
            let port = self.rows.ports.get(id)?;
            snapshot
                .networks
                .contains_key(&port.network_id)
                .then_some(port)
        };
        let interface = |id: &PortId| {
            let port = leg(id)?;
            Some(RouterInterface {
                port_id: *id,
                network_id: port.network_id,
                mac_address: port.mac_address,
                addresses: addresses(snapshot, &port.fixed_ips),
            })
        };
        let gateway = |id: PortId| {
            let port = leg(&id)?;
            Some(RouterGateway {
                port_id: id,
                network_id: port.network_id,
                mac_address: port.mac_address,
                addresses: addresses(snapshot, &port.fixed_ips),
                enable_snat: router.enable_snat,
                snat_port_block: SNAT_PORT_BLOCK,
            })
        };
        model::Router {
            admin_state_up: router.admin_state_up,
            interfaces: router.interfaces.iter().filter_map(interface).collect(),
            gateway: router.gateway_port_id.and_then(gateway),
            routes: router.routes.clone(),
            ndp_proxies: ndp_proxies(snapshot, router),
            conntrack_helpers: router.conntrack_helpers.clone(),
        }
    }

    fn floating_ips(&self, snapshot: &mut HostSnapshot) {
        let ids = snapshot
            .ports
            .keys()
            .filter_map(|port| self.floating_ips.get(port))
            .flatten();
        let realized = |id: &FloatingIpId| {
            Some((
                *id,
                self.floating_ip(snapshot, self.rows.floating_ips.get(id)?)?,
            ))
        };
        snapshot.floating_ips = ids.filter_map(realized).collect();
    }

    /// None while router, gateway or address are not (or not any more) what the floating IP needs.
    fn floating_ip(&self, snapshot: &HostSnapshot, ip: &FloatingIp) -> Option<model::FloatingIp> {
        let fits = has_gateway_in(snapshot, ip.router_id, ip.floating_network_id)
            && has_address(snapshot, ip.port_id, ip.fixed_ip_address.into());
        fits.then_some(model::FloatingIp {
            floating_network_id: ip.floating_network_id,
            floating_ip_address: ip.floating_ip_address,
            mac_address: self.rows.ports.get(&ip.floating_port_id)?.mac_address,
            router_id: ip.router_id,
            port_id: ip.port_id,
            fixed_ip_address: ip.fixed_ip_address,
        })
    }

    fn forwarded_ips(&self, snapshot: &mut HostSnapshot) {
        let near = snapshot.ports.keys();
        let ids: BTreeSet<_> = near
            .filter_map(|port| self.forwarded_ips.get(port))
            .flatten()
            .collect();
        for id in ids {
            let ip = self.rows.forwarded_ips.get(id);
            if let Some(ip) = ip.and_then(|ip| self.forwarded_ip(snapshot, ip)) {
                snapshot.forwarded_ips.insert(*id, ip);
            }
        }
    }

    /// What of it leads to ports of this host; none if nothing does.
    fn forwarded_ip(
        &self,
        snapshot: &HostSnapshot,
        ip: &ForwardedIp,
    ) -> Option<model::ForwardedIp> {
        let mut port_forwardings = ip.port_forwardings.clone();
        port_forwardings.retain(|forwarding| {
            let address = forwarding.internal_ip_address.into();
            has_address(snapshot, forwarding.internal_port_id, address)
        });
        let fits = has_gateway_in(snapshot, ip.router_id, ip.floating_network_id);
        (fits && !port_forwardings.is_empty()).then_some(model::ForwardedIp {
            floating_network_id: ip.floating_network_id,
            floating_ip_address: ip.floating_ip_address,
            mac_address: self.rows.ports.get(&ip.floating_port_id)?.mac_address,
            router_id: ip.router_id,
            port_forwardings,
        })
    }

    fn local_ips(&self, snapshot: &mut HostSnapshot) {
        let near = snapshot.ports.keys();
        let ids: BTreeSet<_> = near
            .filter_map(|port| self.local_ips.get(port))
            .flatten()
            .collect();
        for id in ids {
            let Some(ip) = self.rows.local_ips.get(id) else {
                continue;
            };
            let mut targets = ip.targets.clone();
            targets.retain(|target| has_address(snapshot, target.port_id, target.fixed_ip));
            if targets.is_empty() || !snapshot.networks.contains_key(&ip.network_id) {
                continue;
            }
            let local_ip = model::LocalIp {
                network_id: ip.network_id,
                local_ip_address: ip.local_ip_address,
                mode: ip.mode,
                targets,
            };
            snapshot.local_ips.insert(*id, local_ip);
        }
    }

    fn security_groups(&self, snapshot: &mut HostSnapshot) {
        let local: BTreeSet<SecurityGroupId> = snapshot
            .ports
            .values()
            .flat_map(|port| port.security_groups.iter().copied())
            .collect();
        let mut remote = BTreeSet::new();
        for id in local
            .iter()
            .filter_map(|group| self.rules.get(group))
            .flatten()
        {
            let Some(rule) = self.rows.security_group_rules.get(id) else {
                continue;
            };
            match rule.remote {
                Remote::Group(group) if self.rows.security_groups.contains_key(&group) => {
                    remote.insert(group);
                }
                Remote::AddressGroup(id) if self.rows.address_groups.contains_key(&id) => {
                    let group = self.rows.address_groups.get(&id).cloned();
                    snapshot
                        .address_groups
                        .extend(group.map(|group| (id, group)));
                }
                // What it speaks of cannot be realized; the log has said so.
                Remote::Group(_) | Remote::AddressGroup(_) => continue,
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
            let ports = self.members.get(&group).into_iter().flatten();
            for port in ports.filter_map(|id| self.rows.ports.get(id)) {
                let fixed = port.fixed_ips.iter().map(|ip| ip.ip_address.into());
                let pairs = port
                    .allowed_address_pairs
                    .iter()
                    .map(|pair| pair.ip_address);
                let member = |address| SecurityGroupMember {
                    security_group_id: group,
                    address,
                };
                snapshot
                    .security_group_members
                    .extend(fixed.chain(pairs).map(member));
            }
        }
    }

    fn remote_ports(
        &self,
        snapshot: &mut HostSnapshot,
        tunnel_hosts: &BTreeMap<HostName, TunnelHost>,
    ) {
        let tunnelled = snapshot
            .networks
            .iter()
            .filter(|(_, n)| !n.segment.network_type.is_physical());
        let ports = tunnelled
            .filter_map(|(id, _)| self.guests_by_network.get(id))
            .flatten();
        for id in ports {
            let Some(port) = self.rows.ports.get(id) else {
                continue;
            };
            let Some(host) = port.host.as_ref().filter(|host| **host != snapshot.host) else {
                continue;
            };
            let Some(tunnel) = tunnel_hosts.get(host) else {
                continue;
            };
            snapshot.tunnel_hosts.insert(host.clone(), tunnel.clone());
            let known = |ip: &&FixedIp| snapshot.subnets.contains_key(&ip.subnet_id);
            let remote = RemotePort {
                network_id: port.network_id,
                mac_address: port.mac_address,
                fixed_ips: port.fixed_ips.iter().filter(known).copied().collect(),
                host: host.clone(),
            };
            snapshot.remote_ports.insert(*id, remote);
        }
    }
}

/// Whether a router of the snapshot has its gateway in a network.
fn has_gateway_in(snapshot: &HostSnapshot, router: RouterId, network: NetworkId) -> bool {
    let router = snapshot.routers.get(&router);
    let gateway = router.and_then(|router| router.gateway.as_ref());
    gateway.is_some_and(|gateway| gateway.network_id == network)
}

/// Whether a port of the host has an address.
fn has_address(snapshot: &HostSnapshot, port: PortId, address: IpAddr) -> bool {
    let port = snapshot.ports.get(&port);
    port.is_some_and(|port| port.fixed_ips.iter().any(|ip| ip.ip_address == address))
}

/// The addresses of the host's guests that a router answers for outside.
fn ndp_proxies(snapshot: &HostSnapshot, router: &Router) -> Vec<Ipv6Addr> {
    let local = router
        .ndp_proxies
        .iter()
        .filter(|(port, address)| has_address(snapshot, *port, (*address).into()));
    let addresses: BTreeSet<Ipv6Addr> = local.map(|(_, address)| *address).collect();
    let addresses = addresses.into_iter().take(limits::NDP_PROXIES_MAX);
    addresses.collect()
}

fn addresses(snapshot: &HostSnapshot, fixed_ips: &[FixedIp]) -> Vec<RouterAddress> {
    let known = fixed_ips
        .iter()
        .filter(|ip| snapshot.subnets.contains_key(&ip.subnet_id));
    known
        .map(|ip| RouterAddress {
            subnet_id: ip.subnet_id,
            ip_address: ip.ip_address,
        })
        .collect()
}
