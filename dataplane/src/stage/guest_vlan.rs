//! Guests' own tags, in VLAN-transparent networks. docs/pipeline.md, "Guests' own tags".
//!
//! Guarantees: what has such a tag is bridged within its network and VLAN, and leaves with the tag as it came. A frame has
//! at most one, of 802.1Q and with a VLAN id. Assumes that tags of segments and of subports are off already. Cost: a copy.

use super::decode::{Body, Fragment, IpPacket, Packet};
use super::{Sight, vlan};
use crate::flow::key::{GuestVlan, Tuple};
use crate::mutant::Mutant;
use std::borrow::Cow;
use weft_model::{DropReason, HostSnapshot, NetworkId, NetworkType};
use weft_wire::{arp, ethernet, ndisc, protocol};

/// VLAN ids that guests may use: 0 is no VLAN, 4095 is reserved.
const VLAN_IDS: std::ops::RangeInclusive<u16> = 1..=4094;

/// A frame of a network without its guest's own tag, and the tag (priority, DEI and VLAN id); none if the network takes no
/// such tags, or the frame has none.
#[must_use]
pub fn take(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    frame: &[u8],
) -> Option<(u16, Vec<u8>)> {
    let network = snapshot.networks.get(&network_id)?;
    let tagged = ethernet::untag_whole(frame).filter(|_| network.vlan_transparent)?;
    let vlan_id = ethernet::tag_vlan_id(tagged.0);
    // On the wire of a flat network they would be another network's.
    let taken = network.segment.network_type == NetworkType::Flat
        && vlan::network_of(snapshot, network_id, vlan_id).is_some();
    (VLAN_IDS.contains(&vlan_id) && !taken).then_some(tagged)
}

/// The frame with the tag that it came with, if it was one.
#[must_use]
pub fn put(tag: Option<u16>, frame: Vec<u8>) -> Vec<u8> {
    match tag {
        Some(tci) => ethernet::tag_whole(&frame, tci),
        None => frame,
    }
}

/// The same of a borrowed frame.
#[must_use]
pub fn put_borrowed(tag: Option<u16>, frame: &[u8]) -> Cow<'_, [u8]> {
    match tag {
        Some(tci) => Cow::Owned(ethernet::tag_whole(frame, tci)),
        None => Cow::Borrowed(frame),
    }
}

/// Says of a packet in which VLAN it is, if it came with a tag. ARP becomes a packet from its sender's address to its
/// target's.
///
/// # Errors
/// ND that could be from beyond a router, or is cut.
pub fn settle(sight: &Sight<'_>, packet: &mut Packet) -> Result<(), DropReason> {
    let Some(tci) = sight.tag else {
        return Ok(());
    };
    let id = match sight.has(Mutant::GuestVlanSession) {
        true => *VLAN_IDS.start(),
        false => ethernet::tag_vlan_id(tci),
    };
    let vlan = match sight.has(Mutant::GuestVlanRules) {
        true => GuestVlan(id).neighbour(),
        false => GuestVlan(id),
    };
    match &mut packet.body {
        Body::Arp(arp) => packet.body = Body::Ip(arp_flow(arp, vlan.neighbour())),
        Body::Ip(ip) => ip.tuple.vlan = if nd_is(ip)? { vlan.neighbour() } else { vlan },
    }
    Ok(())
}

fn arp_flow(arp: &arp::Repr, vlan: GuestVlan) -> IpPacket {
    IpPacket {
        tuple: Tuple {
            protocol: 0,
            source: arp.sender_ip.into(),
            destination: arp.target_ip.into(),
            source_port: 0,
            destination_port: 0,
            vlan,
        },
        icmp: None,
        tcp_flags: 0,
        ttl: 0,
        ip_bytes: arp::PACKET_BYTES,
        l4: 0..0,
        fragment: Fragment::Whole,
    }
}

/// Whether it is ND or MLD, as in section 3.
fn nd_is(ip: &IpPacket) -> Result<bool, DropReason> {
    let v6 = ip.tuple.is_ipv6() && ip.tuple.protocol == protocol::ICMPV6;
    let Some((kind, code)) = ip.icmp.filter(|_| v6 && !ip.is_later_fragment()) else {
        return Ok(false);
    };
    let told = matches!(
        kind,
        ndisc::NEIGHBOUR_SOLICITATION | ndisc::NEIGHBOUR_ADVERTISEMENT
    );
    let short = told && ip.l4.len() < ndisc::NEIGHBOUR_BYTES;
    match kind {
        133..=137 if ip.ttl != ndisc::HOP_LIMIT || code != 0 || short => Err(DropReason::Malformed),
        130..=137 | 143 => Ok(true),
        _ => Ok(false),
    }
}
