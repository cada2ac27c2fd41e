//! QoS: the limits of the two ports that a packet passes, and the mark of the first. docs/pipeline.md, section 6.
//!
//! Guarantees: in the long run a port passes what its policy allows, and never more than the burst and one packet ahead of
//! it. Assumes a transformation. Cost: the same for every policy.

use super::decode::IpPacket;
use crate::flow::key::Ingress;
use std::collections::BTreeMap;
use weft_model::{DropReason, HostSnapshot, PortId, QosDirection, QosPolicy};
use weft_wire::{ethernet, ipv4, ipv6};

/// Up to when a port's limits are paid, in nanoseconds: from the guest bytes and packets, to the guest bytes and packets.
pub type Paid = [u64; 4];

/// The ports' limits; a port that is not there has not passed anything yet.
pub type Ledger = BTreeMap<PortId, Paid>;

fn policy(snapshot: &HostSnapshot, place: Ingress) -> Option<(PortId, &QosPolicy)> {
    let Ingress::Port(id) = place else {
        return None;
    };
    let policy = snapshot.ports.get(&id)?.qos_policy_id?;
    Some((id, snapshot.qos_policies.get(&policy)?))
}

/// Whether a frame of this many bytes may pass from there to there.
///
/// # Errors
/// A limit's refusal.
pub fn process(
    snapshot: &HostSnapshot,
    ledger: &mut Ledger,
    from: Ingress,
    to: Ingress,
    bytes: usize,
    now_s: u32,
) -> Result<(), DropReason> {
    let now_ns = u64::from(now_s) * 1_000_000_000;
    let units = [u64::try_from(bytes).unwrap_or(u64::MAX), 1];
    for (place, direction, first) in [
        (from, QosDirection::Egress, 0),
        (to, QosDirection::Ingress, 2),
    ] {
        let Some((id, policy)) = policy(snapshot, place) else {
            continue;
        };
        let paid = ledger.entry(id).or_default();
        let rates = policy.rates(direction).into_iter().zip(units);
        for ((rate, units), paid) in rates.zip(&mut paid[first..]) {
            if rate.is_some_and(|rate| !rate.take(paid, now_ns, units)) {
                return Err(DropReason::QosRateLimit);
            }
        }
    }
    Ok(())
}

/// The mark that packets from there get.
#[must_use]
pub fn mark(snapshot: &HostSnapshot, from: Ingress) -> Option<u8> {
    policy(snapshot, from)?.1.dscp_mark
}

/// Writes a mark; the bits of ECN stay.
pub fn mark_write(frame: &mut [u8], ip: &IpPacket, mark: u8) {
    let Some(packet) = frame.get_mut(ethernet::HEADER_BYTES..) else {
        return;
    };
    if ip.tuple.is_ipv6() {
        if let Ok(mut packet) = ipv6::Packet::new_header_checked(packet) {
            packet.set_dscp(mark);
        }
    } else if let Ok(mut packet) = ipv4::Packet::new_header_checked(packet) {
        packet.set_dscp(mark);
    }
}
