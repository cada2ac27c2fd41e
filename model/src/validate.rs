//! The checks that hold between the fields of a snapshot. What passes here, engines may rely on.

use crate::{
    FloatingIp, FloatingIpId, HostSnapshot, LocalIp, LocalIpId, MacAddress, Network, NetworkId,
    NetworkType, PortId, QosDirection, QosPolicy, QosPolicyId, Router, RouterId, SNAPSHOT_FORMAT,
    SnapshotDelta, Subnet, SubnetId, limits,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;

/// A mistake in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{path}: expected {expected}")]
pub struct Invalid {
    /// Where, such as `ports.<id>.network_id`.
    pub path: String,
    /// What should stand there.
    pub expected: String,
}

/// Mistakes reported at most; the rest would say nothing new.
const MISTAKES_MAX: usize = 100;

pub(crate) struct Report(Vec<Invalid>);

impl Report {
    pub(crate) fn check(
        &mut self,
        good: bool,
        path: impl FnOnce() -> String,
        expected: impl Display,
    ) {
        if !good && self.0.len() < MISTAKES_MAX {
            self.0.push(Invalid {
                path: path(),
                expected: expected.to_string(),
            });
        }
    }

    pub(crate) fn count(&mut self, path: &str, have: usize, max: usize) {
        self.check(
            have <= max,
            || path.to_owned(),
            format_args!("at most {max} entries, not {have}"),
        );
    }
}

impl HostSnapshot {
    /// All mistakes, up to a hundred; none if the snapshot can be enforced as it stands.
    #[must_use]
    pub fn validate(&self) -> Vec<Invalid> {
        let mut report = Report(Vec::new());
        let r = &mut report;
        r.check(
            self.format == SNAPSHOT_FORMAT,
            || "format".into(),
            SNAPSHOT_FORMAT,
        );
        self.validate_counts(r);
        self.validate_networks(r, self.networks.iter());
        self.validate_subnets(r, self.subnets.iter());
        self.validate_ports(r, self.ports.iter());
        self.validate_remote_ports(r, self.remote_ports.iter());
        self.validate_routers(r, self.routers.iter());
        self.validate_floating_ips(r, self.floating_ips.iter());
        self.validate_remote_floating_ips(r, self.remote_floating_ips.iter());
        self.validate_forwarded_ips(r, self.forwarded_ips.iter());
        self.validate_local_ips(r, self.local_ips.iter());
        self.validate_rules(r, self.security_group_rules.iter());
        self.validate_members(r, self.security_group_members.iter());
        self.validate_address_groups(r, self.address_groups.iter());
        self.validate_qos_policies(r, self.qos_policies.iter());
        self.validate_metering_labels(r, self.metering_labels.iter());
        report.0
    }

    /// The mistakes in what a delta put here, if it was made from a snapshot without any. It does not look for what
    /// only all entries together can show: a MAC address or an interface of two ports, a group of too many rules, an
    /// entry whose foundation is gone.
    #[must_use]
    pub fn validate_changes(&self, delta: &SnapshotDelta) -> Vec<Invalid> {
        let mut report = Report(Vec::new());
        let r = &mut report;
        self.validate_counts(r);
        self.validate_networks(r, delta.networks.put.iter());
        self.validate_subnets(r, delta.subnets.put.iter());
        self.validate_ports(r, delta.ports.put.iter());
        self.validate_remote_ports(r, delta.remote_ports.put.iter());
        self.validate_routers(r, delta.routers.put.iter());
        self.validate_floating_ips(r, delta.floating_ips.put.iter());
        self.validate_remote_floating_ips(r, delta.remote_floating_ips.put.iter());
        self.validate_forwarded_ips(r, delta.forwarded_ips.put.iter());
        self.validate_local_ips(r, delta.local_ips.put.iter());
        self.validate_rules(r, delta.security_group_rules.put.iter());
        self.validate_members(r, delta.security_group_members.add.iter());
        self.validate_address_groups(r, delta.address_groups.put.iter());
        self.validate_qos_policies(r, delta.qos_policies.put.iter());
        self.validate_metering_labels(r, delta.metering_labels.put.iter());
        report.0
    }

    #[allow(clippy::unused_self, reason = "one shape for all tables")]
    fn validate_qos_policies<'a>(
        &self,
        r: &mut Report,
        policies: impl Iterator<Item = (&'a QosPolicyId, &'a QosPolicy)>,
    ) {
        for (id, policy) in policies {
            let path = |field: &str| format!("qos_policies.{id}.{field}");
            let mark = policy.dscp_mark.is_none_or(|mark| mark < 64);
            r.check(mark, || path("dscp_mark"), "0 to 63");
            for way in [QosDirection::Egress, QosDirection::Ingress] {
                let limits = policy.bandwidth_limits.iter();
                let one = limits.filter(|l| l.direction == way).count() <= 1;
                r.check(one, || path("bandwidth_limits"), "one for each direction");
                let limits = policy.packet_rate_limits.iter();
                let one = limits.filter(|l| l.direction == way).count() <= 1;
                r.check(one, || path("packet_rate_limits"), "one for each direction");
            }
        }
    }

    fn validate_counts(&self, r: &mut Report) {
        r.count(
            "networks",
            self.networks.len(),
            limits::NETWORKS_PER_HOST_MAX,
        );
        r.count("ports", self.ports.len(), limits::PORTS_PER_HOST_MAX);
        r.count("routers", self.routers.len(), limits::ROUTERS_PER_HOST_MAX);
        r.count(
            "remote_ports",
            self.remote_ports.len(),
            limits::REMOTE_PORTS_PER_HOST_MAX,
        );
        r.count(
            "security_group_members",
            self.security_group_members.len(),
            limits::GROUP_MEMBERS_PER_HOST_MAX,
        );
    }

    #[allow(clippy::unused_self, reason = "one shape for all tables")]
    fn validate_networks<'a>(
        &self,
        r: &mut Report,
        networks: impl Iterator<Item = (&'a NetworkId, &'a Network)>,
    ) {
        for (id, network) in networks {
            let s = &network.segment;
            let path = |field: &str| format!("networks.{id}.{field}");
            r.check(
                (68..=65_535).contains(&network.mtu),
                || path("mtu"),
                "68 to 65535",
            );
            let physical = s.physical_network.as_deref().is_some_and(|p| !p.is_empty());
            r.check(
                physical == s.network_type.is_physical(),
                || path("segment.physical_network"),
                "a name for flat and vlan, nothing for the others",
            );
            let (good, expected) = match s.network_type {
                NetworkType::Local | NetworkType::Flat => (s.segmentation_id.is_none(), "nothing"),
                NetworkType::Vlan => (
                    s.segmentation_id.is_some_and(|i| (1..=4_094).contains(&i)),
                    "1 to 4094",
                ),
                NetworkType::Vxlan | NetworkType::Geneve => (
                    s.segmentation_id
                        .is_some_and(|i| (1..=0xff_ffff).contains(&i)),
                    "1 to 16777215",
                ),
                NetworkType::Gre => (s.segmentation_id.is_some_and(|i| i >= 1), "1 to 4294967295"),
            };
            r.check(good, || path("segment.segmentation_id"), expected);
            self.validate_transit(r, *id, network);
        }
    }

    fn validate_subnets<'a>(
        &self,
        r: &mut Report,
        subnets: impl Iterator<Item = (&'a SubnetId, &'a Subnet)>,
    ) {
        for (id, subnet) in subnets {
            let path = |field: &str| format!("subnets.{id}.{field}");
            self.network_known(r, subnet.network_id, || path("network_id"));
            r.check(
                is_canonical(subnet.cidr),
                || path("cidr"),
                "a range with its host bits zero",
            );
            let v6 = subnet.cidr.addr().is_ipv6();
            if let Some(gateway) = subnet.gateway_ip {
                r.check(
                    gateway.is_ipv6() == v6,
                    || path("gateway_ip"),
                    "the family of cidr",
                );
            }
            let modes = subnet.ipv6_ra_mode.is_some() || subnet.ipv6_address_mode.is_some();
            r.check(
                v6 || !modes,
                || path("ipv6_ra_mode"),
                "nothing for an IPv4 subnet",
            );
            for (n, route) in subnet.host_routes.iter().enumerate() {
                let good = route.destination.addr().is_ipv6() == v6
                    && route.nexthop.is_ipv6() == v6
                    && is_canonical(route.destination);
                r.check(
                    good,
                    || path(&format!("host_routes[{n}]")),
                    "two of cidr's family",
                );
            }
            r.count(
                &path("dns_nameservers"),
                subnet.dns_nameservers.len(),
                limits::DNS_NAMESERVERS_MAX,
            );
            r.count(
                &path("host_routes"),
                subnet.host_routes.len(),
                limits::HOST_ROUTES_MAX,
            );
        }
    }

    fn validate_routers<'a>(
        &'a self,
        r: &mut Report,
        routers: impl Iterator<Item = (&'a RouterId, &'a Router)>,
    ) {
        for (id, router) in routers {
            let path = |field: &str| format!("routers.{id}.{field}");
            r.count(
                &path("interfaces"),
                router.interfaces.len(),
                limits::ROUTER_INTERFACES_MAX,
            );
            r.count(
                &path("routes"),
                router.routes.len(),
                limits::ROUTER_ROUTES_MAX,
            );
            for (n, interface) in router.interfaces.iter().enumerate() {
                let at = |field: &str| path(&format!("interfaces[{n}].{field}"));
                self.network_known(r, interface.network_id, || at("network_id"));
                check_mac(r, interface.mac_address, || at("mac_address"));
                for (m, a) in interface.addresses.iter().enumerate() {
                    let at = || at(&format!("addresses[{m}]"));
                    self.address_fits(r, interface.network_id, a.subnet_id, a.ip_address, at);
                }
            }
            r.count(
                &path("ndp_proxies"),
                router.ndp_proxies.as_ref().map_or(0, BTreeSet::len),
                limits::NDP_PROXIES_MAX,
            );
            r.count(
                &path("conntrack_helpers"),
                router.conntrack_helpers.len(),
                limits::CONNTRACK_HELPERS_MAX,
            );
            self.labels_known(r, router, path);
            for (n, route) in router.routes.iter().enumerate() {
                let good = is_canonical(route.destination)
                    && route.destination.addr().is_ipv6() == route.nexthop.is_ipv6();
                r.check(
                    good,
                    || path(&format!("routes[{n}]")),
                    "a range and a next hop of one family",
                );
            }
            let Some(gateway) = &router.gateway else {
                continue;
            };
            let at = |field: &str| path(&format!("gateway.{field}"));
            self.network_known(r, gateway.network_id, || at("network_id"));
            check_mac(r, gateway.mac_address, || at("mac_address"));
            for (m, a) in gateway.addresses.iter().enumerate() {
                let at = || at(&format!("addresses[{m}]"));
                self.address_fits(r, gateway.network_id, a.subnet_id, a.ip_address, at);
            }
            self.policy_known(r, gateway.qos_policy_id, || at("qos_policy_id"));
            self.validate_blocks(r, gateway, at);
        }
    }

    fn validate_floating_ips<'a>(
        &'a self,
        r: &mut Report,
        floating_ips: impl Iterator<Item = (&'a FloatingIpId, &'a FloatingIp)>,
    ) {
        for (id, fip) in floating_ips {
            let path = |field: &str| format!("floating_ips.{id}.{field}");
            check_mac(r, fip.mac_address, || path("mac_address"));
            self.gateway_in(r, fip.router_id, fip.floating_network_id, || {
                path("router_id")
            });
            self.address_owned(r, fip.port_id, fip.fixed_ip_address.into(), path);
            self.policy_known(r, fip.qos_policy_id, || path("qos_policy_id"));
        }
    }

    fn validate_local_ips<'a>(
        &'a self,
        r: &mut Report,
        local_ips: impl Iterator<Item = (&'a LocalIpId, &'a LocalIp)>,
    ) {
        for (id, ip) in local_ips {
            let path = |field: &str| format!("local_ips.{id}.{field}");
            self.network_known(r, ip.network_id, || path("network_id"));
            let v4 = ip.local_ip_address.is_ipv4();
            r.check(v4, || path("local_ip_address"), "an IPv4 address");
            r.count(
                &path("targets"),
                ip.targets.len(),
                limits::LOCAL_IP_TARGETS_MAX,
            );
            r.check(!ip.targets.is_empty(), || path("targets"), "at least one");
            for (n, target) in ip.targets.iter().enumerate() {
                let at = |field: &str| path(&format!("targets[{n}].{field}"));
                self.address_owned(r, target.port_id, target.fixed_ip, at);
            }
        }
    }

    pub(crate) fn gateway_in(
        &self,
        r: &mut Report,
        router: RouterId,
        network: NetworkId,
        path: impl FnOnce() -> String,
    ) {
        let router = self.routers.get(&router);
        let gateway = router.and_then(|router| router.gateway.as_ref());
        r.check(
            gateway.is_some_and(|gateway| gateway.network_id == network),
            path,
            "a router with its gateway in floating_network_id",
        );
    }

    /// A port of the host, and one of its addresses.
    pub(crate) fn address_owned(
        &self,
        r: &mut Report,
        port: PortId,
        address: IpAddr,
        path: impl Fn(&str) -> String,
    ) {
        let port = self.ports.get(&port);
        r.check(port.is_some(), || path("port_id"), "a port in ports");
        let owned = port.is_some_and(|p| {
            p.fixed_ips.iter().any(|f| f.ip_address == address) || p.claimed_ips.contains(&address)
        });
        r.check(
            owned,
            || path("fixed_ip_address"),
            "one of the port's addresses",
        );
    }

    pub(crate) fn policy_known(
        &self,
        r: &mut Report,
        policy: Option<QosPolicyId>,
        path: impl FnOnce() -> String,
    ) {
        let known = policy.is_none_or(|policy| self.qos_policies.contains_key(&policy));
        r.check(known, path, "a policy in qos_policies");
    }

    pub(crate) fn network_known(
        &self,
        r: &mut Report,
        id: NetworkId,
        path: impl FnOnce() -> String,
    ) {
        r.check(
            self.networks.contains_key(&id),
            path,
            "a network in networks",
        );
    }

    pub(crate) fn address_fits(
        &self,
        r: &mut Report,
        network_id: NetworkId,
        subnet_id: SubnetId,
        address: IpAddr,
        path: impl Fn() -> String,
    ) {
        let subnet = self.subnets.get(&subnet_id);
        let known = subnet.is_some_and(|s| s.network_id == network_id);
        r.check(
            known,
            || path() + ".subnet_id",
            "a subnet in subnets, of the same network",
        );
        let inside = subnet.is_none_or(|s| s.cidr.contains(&address));
        r.check(
            inside,
            || path() + ".ip_address",
            "an address inside the subnet",
        );
    }
}

pub(crate) fn is_canonical(range: IpNet) -> bool {
    range.trunc() == range
}

pub(crate) fn check_mac(r: &mut Report, mac: MacAddress, path: impl FnOnce() -> String) {
    r.check(
        !mac.is_zero() && !mac.is_multicast(),
        path,
        "a station's MAC address",
    );
}
