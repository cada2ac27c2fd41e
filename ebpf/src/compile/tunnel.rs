//! Tunnels: which networks are in one, and which hosts they lead to.

use super::Slots;
use super::address::{AddressBytes, address_key};
use super::delta::{put, put_first};
use super::{Input, Tables};
use std::collections::BTreeMap;
use std::net::IpAddr;
use weft_ebpf_common::constants::slot;
use weft_ebpf_common::layout::{TunnelHost, TunnelSlot};
use weft_model::{HostName, HostSnapshot, Network, NetworkId, NetworkType};

/// The outer IP header's words that are always the same: version and header length; flag DF; TTL and protocol.
const FIXED_WORDS: [[u8; 2]; 3] = [[0x45, 0], [0x40, 0], [64, 17]];

/// The slot of a network's tunnel, if it can be in one; `number` is the network's own slot.
pub(super) fn slot_of(network: &Network, number: u32) -> Option<u32> {
    let vni = network.segment.segmentation_id?;
    match network.segment.network_type {
        NetworkType::Vxlan => Some(slot::TUNNEL | vni),
        NetworkType::Geneve => Some(slot::TUNNEL | slot::GENEVE | vni),
        NetworkType::Gre => Some(slot::TUNNEL | slot::GRE | number),
        _ => None,
    }
}

/// GRE: the key of a network's tunnel.
pub(super) fn gre_key(network: &Network) -> Option<u32> {
    let is_gre = network.segment.network_type == NetworkType::Gre;
    network.segment.segmentation_id.filter(|_| is_gre)
}

/// The slot of a physical network's transit.
pub(super) fn transit_slot_of(network: &Network) -> Option<u32> {
    network.transit.map(|transit| slot::TUNNEL | transit.vni)
}

/// The network in each tunnel; of two with one number the one with the smaller id.
pub(super) fn networks(
    snapshot: &HostSnapshot,
    numbers: &Slots<NetworkId>,
) -> BTreeMap<u32, NetworkId> {
    let mut networks = BTreeMap::new();
    for (id, network) in &snapshot.networks {
        let number = numbers.get(*id).unwrap_or_default();
        for slot in slot_of(network, number)
            .into_iter()
            .chain(transit_slot_of(network))
        {
            networks.entry(slot).or_insert(*id);
        }
    }
    networks
}

/// The addresses of other hosts.
pub(super) fn hosts(snapshot: &HostSnapshot) -> impl Iterator<Item = IpAddr> {
    let others = snapshot
        .tunnel_hosts
        .iter()
        .filter(|(name, _)| **name != snapshot.host);
    others.map(|(_, host)| host.tunnel_ip)
}

/// Where a network's tunnel to a host leads, if there is one.
pub(super) fn host(snapshot: &HostSnapshot, network: NetworkId, host: &HostName) -> Option<IpAddr> {
    slot_of(snapshot.networks.get(&network)?, 0)?;
    any_host(snapshot, host)
}

/// Where tunnels to a host lead, if there can be any.
fn any_host(snapshot: &HostSnapshot, host: &HostName) -> Option<IpAddr> {
    let (own, other) = (snapshot.tunnel_ip()?, snapshot.tunnel_hosts.get(host)?);
    (own.is_ipv6() == other.tunnel_ip.is_ipv6()).then_some(other.tunnel_ip)
}

/// The slot of the host that a network's tunnel leads to, or `slot::NONE`.
pub(super) fn host_slot(input: &Input<'_>, network: NetworkId, name: &HostName) -> u32 {
    host(input.snapshot, network, name)
        .and_then(|address| input.slots.hosts.get(address))
        .unwrap_or(slot::NONE)
}

/// The slot of a host that tunnels can lead to, or `slot::NONE`.
pub(super) fn any_host_slot(input: &Input<'_>, name: &HostName) -> u32 {
    any_host(input.snapshot, name)
        .and_then(|address| input.slots.hosts.get(address))
        .unwrap_or(slot::NONE)
}

pub(super) fn tunnels(input: &Input<'_>, tables: &mut Tables) {
    let Some(own) = input.snapshot.tunnel_ip() else {
        return;
    };
    put(&mut tables.tunnel_hosts, &0_u32, &record(own, own));
    for (address, slot) in input.slots.hosts.iter() {
        put(&mut tables.tunnel_hosts, &slot, &record(own, address));
        put(
            &mut tables.tunnel_slots,
            &address_key(0, address),
            &TunnelSlot { slot },
        );
    }
    for (tunnel, id) in &input.slots.tunnels {
        let slot = input.network(*id);
        put(&mut tables.tunnel_nets, tunnel, &TunnelSlot { slot });
    }
    for (id, network) in &input.snapshot.networks {
        if let Some(key) = gre_key(network) {
            let slot = input.network(*id);
            // Of two with one key the one with the smaller id.
            put_first(&mut tables.gre_keys, &key, &TunnelSlot { slot });
        }
    }
    for transit in input.snapshot.networks.values().filter_map(transit_slot_of) {
        let hint = transit & (slot::TRANSIT_HINTS - 1);
        put(&mut tables.transits, &hint, &1_u32);
    }
}

fn record(own: IpAddr, address: IpAddr) -> TunnelHost {
    let bytes = AddressBytes::from(address);
    TunnelHost {
        address: bytes.bytes,
        family: bytes.family.into(),
        checksum: match (own, address) {
            (IpAddr::V4(own), IpAddr::V4(address)) => {
                let addresses = [own.octets(), address.octets()];
                let words = addresses
                    .iter()
                    .flat_map(|octets| octets.chunks_exact(2))
                    .map(|word| [word[0], word[1]]);
                words
                    .chain(FIXED_WORDS)
                    .map(|word| u32::from(u16::from_ne_bytes(word)))
                    .sum()
            }
            _ => 0,
        },
    }
}
