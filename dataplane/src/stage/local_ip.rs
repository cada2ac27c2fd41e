//! Local IPs: an address of a network that leads to a port of this host. docs/pipeline.md, section 5.
//!
//! Guarantees: only guests of the target's network get there, and never a target itself. Assumes egress rules. Cost: all local
//! IPs of the snapshot.

use super::Sight;
use crate::flow::key::{Ingress, Tuple};
use crate::flow::session::{Hop, Opener, Path};
use crate::mutant::Mutant;
use crate::topology;

/// The way to a local IP's target, if the packet's destination is one that its sender uses.
#[must_use]
pub fn process(sight: &Sight<'_>, opener: &Opener, tuple: Tuple) -> Option<Path> {
    let (output, translated) = topology::local_ip(sight.snapshot, sight.port?, tuple.destination)?;
    let port = sight.snapshot.ports.get(&output)?;
    let mtu = topology::mtu(sight.snapshot, sight.network_id);
    let translated = translated.filter(|_| !sight.has(Mutant::LocalIp));
    Some(Path {
        hop: Some(Hop {
            ttl_decrement: 0,
            source_mac: opener.source_mac,
            destination_mac: port.mac_address,
            next_hop: None,
            mtu,
            reply_mtu: mtu,
        }),
        destination: translated.unwrap_or(tuple.destination),
        ..Path::bridged(Ingress::Port(output), tuple)
    })
}
