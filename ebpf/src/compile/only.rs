//! The entries of `fdb` and `owners` that a change of some ports may touch: nearly all of a host's entries are there, and a
//! change is of a port or two.
//!
//! Guarantees: entries of other keys are what they were.

use super::address::address_key;
use super::network::fdb_key;
use super::{Input, SlotTables};
use std::collections::BTreeSet;
use std::net::IpAddr;
use weft_model::{HostSnapshot, MacAddress, NetworkId, SnapshotDelta, eui64_link_local};
use zerocopy::IntoBytes;

/// Ports that change at once; of more, everything is made anew.
const PORTS_MAX: usize = 1_024;

/// Keys, and what leads to them quickly.
#[derive(Debug, Default)]
pub(crate) struct Only {
    networks: BTreeSet<NetworkId>,
    macs: BTreeSet<(u32, MacAddress)>,
    addresses: BTreeSet<(u32, IpAddr)>,
}

impl Only {
    /// What leads from a snapshot, and its slots, to the input's; none if more than ports may lead to other entries.
    pub(crate) fn between(
        (before, slots): (&HostSnapshot, &SlotTables),
        input: &Input<'_>,
    ) -> Option<Self> {
        let now = input.snapshot;
        if (&before.host, before.epoch) != (&now.host, now.epoch)
            || slots.communities != input.slots.communities
        {
            return None;
        }
        let mut delta = SnapshotDelta::between(before, now);
        let here = std::mem::take(&mut delta.ports);
        let elsewhere = std::mem::take(&mut delta.remote_ports);
        // The two tables are not made of these.
        delta.security_groups = Default::default();
        delta.security_group_rules = Default::default();
        delta.security_group_members = Default::default();
        delta.address_groups = Default::default();
        delta.qos_policies = Default::default();
        delta.metering_labels = Default::default();
        delta.logs = Default::default();
        let (here, elsewhere) = (
            here.put.keys().chain(&here.delete),
            elsewhere.put.keys().chain(&elsewhere.delete),
        );
        let few = here.clone().chain(elsewhere.clone()).nth(PORTS_MAX);
        if few.is_some() || !delta.is_empty() {
            return None;
        }
        let mut only = Self::default();
        for snapshot in [before, now] {
            for port in here.clone().filter_map(|id| snapshot.ports.get(id)) {
                let addresses = port.fixed_ips.iter().map(|ip| &ip.ip_address);
                let addresses = addresses.chain(&port.claimed_ips);
                only.port(input, (port.network_id, port.mac_address), addresses);
            }
            for port in elsewhere
                .clone()
                .filter_map(|id| snapshot.remote_ports.get(id))
            {
                let addresses = port.fixed_ips.iter().map(|ip| &ip.ip_address);
                let addresses = addresses.chain(&port.claimed_ips);
                only.port(input, (port.network_id, port.mac_address), addresses);
            }
        }
        Some(only)
    }

    fn port<'a>(
        &mut self,
        input: &Input<'_>,
        (network_id, mac): (NetworkId, MacAddress),
        addresses: impl Iterator<Item = &'a IpAddr>,
    ) {
        let network = input.network(network_id);
        self.networks.insert(network_id);
        self.macs.insert((network, mac));
        let own = IpAddr::from(eui64_link_local(mac));
        let addresses = addresses.copied().chain([own]);
        self.addresses
            .extend(addresses.map(|address| (network, address)));
    }

    /// Whether one of them is in a network.
    pub(super) fn has_network(&self, network: NetworkId) -> bool {
        self.networks.contains(&network)
    }

    /// Whether it is one of `fdb`.
    pub(super) fn has_mac(&self, place: (u32, MacAddress)) -> bool {
        self.macs.contains(&place)
    }

    /// Whether it is one of `owners`.
    pub(super) fn has_address(&self, place: (u32, IpAddr)) -> bool {
        self.addresses.contains(&place)
    }

    /// Those of a table; none if all of its entries are made.
    pub(crate) fn keys(&self, table: &str) -> Option<Vec<Vec<u8>>> {
        let macs = self.macs.iter();
        let macs = macs.map(|(network, mac)| fdb_key(*network, *mac).as_bytes().to_vec());
        let addresses = self.addresses.iter();
        let addresses =
            addresses.map(|(network, address)| address_key(*network, *address).as_bytes().to_vec());
        match table {
            "fdb" => Some(macs.collect()),
            "owners" => Some(addresses.collect()),
            _ => None,
        }
    }
}
