//! The checks of ports, this host's and others'.

use crate::validate::{Report, check_mac, is_canonical};
use crate::{
    HostSnapshot, MacAddress, NetworkId, Port, PortId, PortInterface, PvlanRole, RemotePort, limits,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What only one port can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Interface<'a> {
    Device(&'a str),
    Socket(&'a str),
    Vlan(PortId, u16),
}

impl HostSnapshot {
    pub(crate) fn validate_ports<'a>(
        &'a self,
        r: &mut Report,
        ports: impl Iterator<Item = (&'a PortId, &'a Port)>,
    ) {
        let mut macs: BTreeMap<(NetworkId, MacAddress), PortId> = BTreeMap::new();
        let mut taken: BTreeMap<Interface<'_>, PortId> = BTreeMap::new();
        for (id, port) in ports {
            let path = |field: &str| format!("ports.{id}.{field}");
            self.network_known(r, port.network_id, || path("network_id"));
            check_mac(r, port.mac_address, || path("mac_address"));
            if let Some(other) = macs.insert((port.network_id, port.mac_address), *id) {
                r.check(
                    false,
                    || path("mac_address"),
                    format_args!("one that port {other} does not have"),
                );
            }
            r.count(
                &path("fixed_ips"),
                port.fixed_ips.len(),
                limits::FIXED_IPS_MAX,
            );
            for (n, ip) in port.fixed_ips.iter().enumerate() {
                let at = || path(&format!("fixed_ips[{n}]"));
                self.address_fits(r, port.network_id, ip.subnet_id, ip.ip_address, at);
            }
            r.count(
                &path("claimed_ips"),
                port.claimed_ips.len(),
                limits::CLAIMED_IPS_PER_PORT_MAX,
            );
            let pairs = &port.allowed_address_pairs;
            r.count(
                &path("allowed_address_pairs"),
                pairs.len(),
                limits::ALLOWED_ADDRESS_PAIRS_MAX,
            );
            for (n, pair) in pairs.iter().enumerate() {
                let at = || path(&format!("allowed_address_pairs[{n}].ip_address"));
                r.check(
                    is_canonical(pair.ip_address),
                    at,
                    "a range with its host bits zero",
                );
            }
            let groups = &port.security_groups;
            r.count(
                &path("security_groups"),
                groups.len(),
                limits::SECURITY_GROUPS_PER_PORT_MAX,
            );
            for (n, group) in groups.iter().enumerate() {
                let at = || path(&format!("security_groups[{n}]"));
                r.check(
                    self.security_groups.contains_key(group),
                    at,
                    "a group in security_groups",
                );
            }
            r.count(
                &path("extra_dhcp_opts"),
                port.extra_dhcp_opts.len(),
                limits::DHCP_OPTIONS_MAX,
            );
            self.policy_known(r, port.qos_policy_id, || path("qos_policy_id"));
            check_pvlan(r, port.pvlan.as_ref(), || path("pvlan.community"));
            self.logs_known(r, port, path);
            self.validate_interface(r, *id, &port.interface, &mut taken);
        }
    }

    /// `taken`: the interfaces of the ports before, and whose they are.
    fn validate_interface<'a>(
        &'a self,
        r: &mut Report,
        id: PortId,
        interface: &'a PortInterface,
        taken: &mut BTreeMap<Interface<'a>, PortId>,
    ) {
        let path = |field: &str| format!("ports.{id}.interface.{field}");
        let (key, field) = match interface {
            PortInterface::Tap { name } => {
                let good = (1..=15).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
                r.check(good, || path("name"), "a device name of 1 to 15 bytes");
                (Interface::Device(name), "name")
            }
            PortInterface::VhostUser { socket, .. } => (Interface::Socket(socket), "socket"),
            PortInterface::Subport { parent, vlan_id } => {
                let carries =
                    |port: &Port| !matches!(port.interface, PortInterface::Subport { .. });
                let good = self.ports.get(parent).is_some_and(carries);
                r.check(
                    good,
                    || path("parent"),
                    "a port in ports that is no subport",
                );
                let good = (1..=4_094).contains(vlan_id);
                r.check(good, || path("vlan_id"), "a VLAN of 1 to 4094");
                (Interface::Vlan(*parent, *vlan_id), "vlan_id")
            }
        };
        if let Some(other) = taken.insert(key, id) {
            let other = format_args!("one that port {other} does not have");
            r.check(false, || path(field), other);
        }
    }

    pub(crate) fn validate_remote_ports<'a>(
        &'a self,
        r: &mut Report,
        remote_ports: impl Iterator<Item = (&'a PortId, &'a Arc<RemotePort>)>,
    ) {
        for (id, port) in remote_ports {
            let path = |field: &str| format!("remote_ports.{id}.{field}");
            self.network_known(r, port.network_id, || path("network_id"));
            check_mac(r, port.mac_address, || path("mac_address"));
            let known = self.tunnel_hosts.contains_key(&port.host);
            r.check(known, || path("host"), "a host in tunnel_hosts");
            check_pvlan(r, port.pvlan.as_ref(), || path("pvlan.community"));
            for (n, ip) in port.fixed_ips.iter().enumerate() {
                let at = || path(&format!("fixed_ips[{n}]"));
                self.address_fits(r, port.network_id, ip.subnet_id, ip.ip_address, at);
            }
        }
    }
}

fn check_pvlan(r: &mut Report, role: Option<&PvlanRole>, path: impl FnOnce() -> String) {
    if let Some(PvlanRole::Community { community }) = role {
        let good = (1..=limits::PVLAN_COMMUNITY_BYTES_MAX).contains(&community.len());
        r.check(good, path, "a name of 1 to 232 bytes");
    }
}
