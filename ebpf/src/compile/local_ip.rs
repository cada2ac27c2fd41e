//! Local IPs: where an address leads on the network of each of its targets, and who does not use it.

use super::address::ipv4_word;
use super::delta::put_first;
use super::{Input, Tables};
use std::collections::BTreeSet;
use std::net::IpAddr;
use weft_ebpf_common::constants::slot;
use weft_ebpf_common::layout::{LocalIp, LocalIpKey};
use weft_model::{HostSnapshot, LocalIpMode, NetworkId};

/// The networks of all targets.
pub(super) fn networks(snapshot: &HostSnapshot) -> BTreeSet<NetworkId> {
    let targets = snapshot.local_ips.values().flat_map(|ip| &ip.targets);
    let ports = targets.filter_map(|target| snapshot.ports.get(&target.port_id));
    ports.map(|port| port.network_id).collect()
}

/// The one with the smallest id counts on a network, and of its targets there the first.
pub(super) fn local_ips(input: &Input<'_>, tables: &mut Tables) {
    let mut taken = BTreeSet::new();
    for ip in input.snapshot.local_ips.values() {
        let IpAddr::V4(address) = ip.local_ip_address else {
            continue;
        };
        let mut here = BTreeSet::new();
        for target in &ip.targets {
            let Some(port) = input.snapshot.ports.get(&target.port_id) else {
                continue;
            };
            let network = input.network(port.network_id);
            if taken.contains(&(network, address)) {
                continue;
            }
            here.insert((network, address));
            let key = |port| LocalIpKey {
                network,
                address: ipv4_word(address),
                port,
            };
            let fixed = match (ip.mode, target.fixed_ip) {
                (LocalIpMode::Translate, IpAddr::V4(fixed)) => fixed,
                _ => address,
            };
            let value = LocalIp {
                port: input.port(target.port_id),
                fixed: ipv4_word(fixed),
                mac: port.mac_address.0,
                reserved: 0,
            };
            put_first(&mut tables.local_ips, &key(slot::NONE), &value);
            put_first(&mut tables.local_ips, &key(value.port), &value);
        }
        taken.append(&mut here);
    }
}
