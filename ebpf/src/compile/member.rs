//! Members of networks: who gets copies of multicast and broadcast frames. docs/pipeline.md, section 8.
//!
//! A network with more than a frame is copied to has its number, and no entries.

use super::delta::put;
use super::{Input, Tables, tunnel};
use std::collections::{BTreeMap, BTreeSet};
use weft_ebpf_common::constants::slot;
use weft_ebpf_common::layout::{Member, MemberKey};
use weft_model::NetworkId;
use weft_model::limits::MULTICAST_COPIES_MAX;

/// Writes the members, and says how many there are on each network.
pub(super) fn members(input: &Input<'_>, tables: &mut Tables) -> BTreeMap<NetworkId, u32> {
    let mut members: BTreeMap<NetworkId, BTreeSet<u32>> = BTreeMap::new();
    for (id, port) in &input.snapshot.ports {
        let of = members.entry(port.network_id).or_default();
        of.insert(input.port(*id));
    }
    for port in input.snapshot.remote_ports.values() {
        let host = tunnel::host_slot(input, port.network_id, &port.host);
        if host != slot::NONE {
            let of = members.entry(port.network_id).or_default();
            of.insert(slot::TUNNEL | host);
        }
    }
    let count = |of: &BTreeSet<u32>| u32::try_from(of.len()).unwrap_or(u32::MAX);
    for (id, of) in &members {
        if count(of) > MULTICAST_COPIES_MAX {
            continue;
        }
        let network = input.network(*id);
        for (index, slot) in (0..).zip(of) {
            let key = MemberKey { network, index };
            put(&mut tables.members, &key, &Member { slot: *slot });
        }
    }
    members.iter().map(|(id, of)| (*id, count(of))).collect()
}
