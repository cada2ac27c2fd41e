//! Ports: flags, allowed sources, policies.

use super::address::{AddressBytes, mask_bytes};
use super::{Input, Tables, delta::put, pvlan};
use crate::policy::PolicyKey;
use ipnet::IpNet;
use std::collections::BTreeSet;
use weft_ebpf_common::constants::{allowed, port as flag, slot};
use weft_ebpf_common::layout::{ALLOWED_MAX, Allowed, PortRecord, Subport, SubportKey};
use weft_model::{
    Direction, EtherType, HostSnapshot, Ipv6Mode, MacAddress, Port, PortId, PortInterface,
};

pub(super) fn ports(
    input: &Input<'_>,
    policy: &dyn Fn(&PolicyKey) -> Option<u32>,
    tables: &mut Tables,
) {
    let trunks = subports(input, tables);
    for (id, port) in &input.snapshot.ports {
        let mut record = PortRecord::zero();
        record.mac = port.mac_address.0;
        record.flags = flags(input.snapshot, port);
        if trunks.contains(id) {
            record.flags |= flag::TRUNK;
        }
        record.network = input.network(port.network_id);
        record.role = pvlan::number(input, port.pvlan.as_ref());
        record.id = *id.0.as_bytes();
        record.policy = policies(port, policy);
        let mut count = 0;
        for (slot, entry) in record.allowed.iter_mut().zip(sources(port)) {
            *slot = entry;
            count += 1;
        }
        record.allowed_count = count;
        put(&mut tables.ports, &input.port(*id), &record);
    }
}

/// Subports by their tags, and the ports that carry them.
fn subports(input: &Input<'_>, tables: &mut Tables) -> BTreeSet<PortId> {
    let mut trunks = BTreeSet::new();
    for (id, port) in &input.snapshot.ports {
        if let PortInterface::Subport { parent, vlan_id } = port.interface {
            let key = SubportKey {
                parent: input.port(parent),
                vlan: vlan_id.into(),
            };
            let slot = input.port(*id);
            put(&mut tables.subports, &key, &Subport { slot });
            trunks.insert(parent);
        }
    }
    trunks
}

/// Whether it is up, and the port that carries it too.
fn is_up(snapshot: &HostSnapshot, port: &Port) -> bool {
    let carried = match &port.interface {
        PortInterface::Subport { parent, .. } => {
            let parent = snapshot.ports.get(parent);
            parent.is_some_and(|parent| parent.admin_state_up)
        }
        _ => true,
    };
    port.admin_state_up && carried
}

fn flags(snapshot: &HostSnapshot, port: &Port) -> u16 {
    let subnets = || {
        port.fixed_ips
            .iter()
            .filter_map(|ip| snapshot.subnets.get(&ip.subnet_id))
    };
    let dhcp = subnets().any(|s| s.cidr.addr().is_ipv4() && s.enable_dhcp);
    let dhcpv6 = subnets().any(|s| {
        let mode = s.ipv6_address_mode;
        let by_dhcp = matches!(
            mode,
            Some(Ipv6Mode::Dhcpv6Stateful | Ipv6Mode::Dhcpv6Stateless)
        );
        s.cidr.addr().is_ipv6() && s.enable_dhcp && by_dhcp
    });
    let network = snapshot.networks.get(&port.network_id);
    let transparent = network.is_some_and(|network| network.vlan_transparent);
    let logs = |allowed: bool| {
        let mut logs = port.logs.iter().filter_map(|id| snapshot.logs.get(id));
        logs.any(|log| log.event.is_of(allowed))
    };
    [
        (logs(true), flag::LOG_ACCEPT),
        (logs(false), flag::LOG_DROP),
        (is_up(snapshot, port), flag::UP),
        (port.port_security_enabled, flag::SECURITY),
        (snapshot.is_stateless(port), flag::STATELESS),
        (dhcp, flag::DHCP),
        (dhcpv6, flag::DHCPV6),
        (transparent, flag::TRANSPARENT),
    ]
    .into_iter()
    .filter_map(|(holds, bit)| holds.then_some(bit))
    .sum()
}

fn policies(port: &Port, policy: &dyn Fn(&PolicyKey) -> Option<u32>) -> [u32; 4] {
    if !port.port_security_enabled {
        return [slot::NONE; 4];
    }
    let mut key = PolicyKey {
        groups: port.security_groups.iter().copied().collect(),
        direction: Direction::Egress,
        ethertype: EtherType::Ipv4,
    };
    let mut ask = |direction, ethertype| {
        key.direction = direction;
        key.ethertype = ethertype;
        policy(&key).unwrap_or(slot::NONE)
    };
    [
        ask(Direction::Egress, EtherType::Ipv4),
        ask(Direction::Egress, EtherType::Ipv6),
        ask(Direction::Ingress, EtherType::Ipv4),
        ask(Direction::Ingress, EtherType::Ipv6),
    ]
}

fn sources(port: &Port) -> impl Iterator<Item = Allowed> + '_ {
    let fixed = port
        .fixed_ips
        .iter()
        .map(|ip| source(port.mac_address, IpNet::from(ip.ip_address), allowed::FIXED));
    let pairs = port
        .allowed_address_pairs
        .iter()
        .map(|pair| source(pair.mac_address, pair.ip_address, 0));
    fixed.chain(pairs).take(ALLOWED_MAX)
}

fn source(mac: MacAddress, range: IpNet, flags: u8) -> Allowed {
    let address = AddressBytes::from(range.network());
    Allowed {
        mac: mac.0,
        family: address.family,
        flags,
        address: address.bytes,
        mask: mask_bytes(range),
    }
}
