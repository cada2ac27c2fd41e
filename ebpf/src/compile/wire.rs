//! Wires: the networks of a physical network, told apart by their frames' tags.
//!
//! Guarantees: a physical network has the same number after a restart, so that the stubs that are on its interface still
//! name it; no two have one number.

use super::delta::put;
use super::{Input, Tables, tunnel};
use std::collections::{BTreeMap, BTreeSet};
use weft_ebpf_common::constants::slot;
use weft_ebpf_common::layout::{UplinkRecord, Wire, WireKey};
use weft_model::{HostSnapshot, Network, NetworkType};

/// Numbers are below `slot::TUNNEL`: the bits above say what kind of place a slot is.
const NUMBER_MASK: u32 = slot::TUNNEL - 1;

/// Physical networks and their numbers: a hash (FNV-1a) of the name; the later one in order gives way.
pub(super) fn numbers(snapshot: &HostSnapshot) -> BTreeMap<String, u32> {
    let mut taken = BTreeSet::new();
    let mut numbers = BTreeMap::new();
    let names: BTreeSet<&String> = (snapshot.networks.values())
        .filter_map(|network| network.segment.physical_network.as_ref())
        .collect();
    for name in names {
        let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| {
            (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
        });
        let mut number = hash & NUMBER_MASK;
        while !taken.insert(number) {
            number = (number + 1) & NUMBER_MASK;
        }
        numbers.insert(name.clone(), number);
    }
    numbers
}

/// The tag of a network's frames on its wire; 0: none.
fn vlan(network: &Network) -> u32 {
    let segment = &network.segment;
    let tagged = segment.network_type == NetworkType::Vlan;
    let id = segment.segmentation_id.filter(|_| tagged);
    id.unwrap_or_default()
}

pub(super) fn wires(input: &Input<'_>, tables: &mut Tables) {
    let mut seen = BTreeSet::new();
    for (id, network) in &input.snapshot.networks {
        let wire = (network.segment.physical_network.as_ref())
            .and_then(|name| input.slots.wires.get(name));
        let (Some(uplink), Some(wire)) = (input.slots.uplinks.get(*id), wire) else {
            continue;
        };
        let vlan = vlan(network);
        let record = UplinkRecord {
            network: input.network(*id),
            vlan,
            transit: tunnel::transit_slot_of(network).unwrap_or(0),
            wire: *wire,
            id: *id.0.as_bytes(),
        };
        put(&mut tables.uplinks, &uplink, &record);
        // Of two networks with one tag the one with the smaller id.
        if seen.insert((*wire, vlan)) {
            let key = WireKey { wire: *wire, vlan };
            put(&mut tables.wires, &key, &Wire { uplink });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::{Epoch, Segment};

    #[test]
    fn numbers_depend_on_names_alone() {
        let epoch = Epoch::from(uuid::Uuid::nil());
        let mut snapshot = HostSnapshot::empty("host".parse().unwrap(), epoch);
        for (id, name) in (1_u128..).zip(["b", "a", "b", "c"]) {
            let segment = Segment {
                network_type: NetworkType::Vlan,
                physical_network: Some(name.to_owned()),
                segmentation_id: u32::try_from(id).ok(),
            };
            let network = Network {
                segment,
                mtu: 1500,
                external: false,
                dns_domain: String::new(),
                transit: None,
                vlan_transparent: false,
            };
            let id = uuid::Uuid::from_u128(id).into();
            snapshot.networks.insert(id, network);
        }
        let all = numbers(&snapshot);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        let different: BTreeSet<_> = all.values().collect();
        assert_eq!(different.len(), 3);
        assert!(all.values().all(|number| number & !NUMBER_MASK == 0));
        snapshot.networks.pop_first();
        snapshot.networks.pop_first();
        let fewer = numbers(&snapshot);
        assert_eq!((fewer.len(), fewer["b"]), (2, all["b"]));
    }
}
