//! VLAN: which network a frame of an uplink belongs to, whose frame of a trunk it is, and the tag that it leaves with.
//! docs/pipeline.md, section 1.
//!
//! Guarantees: a frame is of one network of its physical network, or of none. Assumes nothing. Cost: a search for the
//! network, a copy of what is tagged.

use super::{Entered, Sight, guest_vlan};
use crate::flow::key::Ingress;
use crate::mutant::Mutant;
use crate::topology;
use crate::trace::Verdict;
use std::borrow::Cow;
use weft_model::{DropReason, HostSnapshot, NetworkId, NetworkType, PortId, PortInterface};
use weft_wire::ethernet;

/// The tag that frames leave with by a network's uplink, if it is of type VLAN.
#[must_use]
pub fn id_of(snapshot: &HostSnapshot, network_id: NetworkId) -> Option<u16> {
    let segment = &snapshot.networks.get(&network_id)?.segment;
    let tagged = segment.network_type == NetworkType::Vlan;
    let id = segment.segmentation_id.filter(|_| tagged)?;
    u16::try_from(id).ok()
}

/// The network whose frames have this tag (0: none) on the wire that `network_id` is on.
#[must_use]
pub fn network_of(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    vlan_id: u16,
) -> Option<NetworkId> {
    let wire = &snapshot.networks.get(&network_id)?.segment.physical_network;
    let wanted = Some(vlan_id).filter(|id| *id != 0);
    let mut networks = snapshot.networks.iter();
    let found = networks.find(|(id, network)| {
        network.segment.network_type.is_physical()
            && network.segment.physical_network == *wire
            && id_of(snapshot, **id) == wanted
    });
    found.map(|(id, _)| *id)
}

/// What a frame is that came in by the uplink of the wire that `network_id` is on: of which network, without its tags. None if
/// it is of no network.
#[must_use]
pub fn entered<'a>(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    frame: &'a [u8],
    mutant: Option<Mutant>,
) -> Option<Entered<'a>> {
    let (vlan_id, rest) = match ethernet::untag(frame) {
        Some((vlan_id, rest)) => (vlan_id, Cow::Owned(rest)),
        None => (0, Cow::Borrowed(frame)),
    };
    let flat = || network_of(snapshot, network_id, 0);
    let of = |id, frame| Entered::plain(Ingress::Network(id), frame);
    if let Some(id) = network_of(snapshot, network_id, vlan_id) {
        let entered = of(id, rest);
        return Some(match vlan_id {
            0 => entered,
            _ => entered.untagged(snapshot, id),
        });
    }
    if mutant == Some(Mutant::VlanNative) {
        return Some(of(flat()?, rest));
    }
    // The tag of a guest on the flat network.
    let id = flat()?;
    let entered = of(id, Cow::Borrowed(frame)).untagged(snapshot, id);
    entered.tag.is_some().then_some(entered)
}

/// Whose frame it is that came in by the interface of a guest's port: that port's own, or a subport's, without its tag.
///
/// # Errors
/// The port is a trunk's and down, or no subport has the tag.
pub fn port_entered<'a>(
    snapshot: &HostSnapshot,
    id: PortId,
    frame: &'a [u8],
    mutant: Option<Mutant>,
) -> Result<Entered<'a>, DropReason> {
    let of = |id, frame| Entered::plain(Ingress::Port(id), frame);
    let network = |id| snapshot.ports.get(&id).map(|port| port.network_id);
    let untagged = |entered: Entered<'a>, id| match network(id) {
        Some(network) => entered.untagged(snapshot, network),
        None => entered,
    };
    let own = of(id, Cow::Borrowed(frame));
    let mut subports = topology::subports(snapshot, id).peekable();
    if subports.peek().is_none() {
        return Ok(untagged(own, id));
    }
    let port = snapshot.ports.get(&id);
    if !port.is_some_and(|port| port.admin_state_up) {
        return Err(DropReason::PortDown);
    }
    let Some((vlan_id, rest)) = ethernet::untag(frame) else {
        return Ok(own);
    };
    if let Some((subport, _)) = subports.find(|(_, own)| *own == vlan_id) {
        return Ok(untagged(of(subport, Cow::Owned(rest)), subport));
    }
    if mutant == Some(Mutant::TrunkNative) {
        return Ok(of(id, Cow::Owned(rest)));
    }
    let own = untagged(own, id);
    own.tag.map(|_| own).ok_or(DropReason::VlanUnknown)
}

/// A frame as it leaves to a guest's port: with a tag to a subport.
#[must_use]
pub fn port_tagged(snapshot: &HostSnapshot, id: PortId, frame: Vec<u8>) -> Vec<u8> {
    match snapshot.ports.get(&id).map(|port| &port.interface) {
        Some(PortInterface::Subport { vlan_id, .. }) => ethernet::tag(&frame, *vlan_id),
        _ => frame,
    }
}

/// A frame as it leaves by a network's uplink.
#[must_use]
pub fn tagged(snapshot: &HostSnapshot, network_id: NetworkId, frame: Vec<u8>) -> Vec<u8> {
    match id_of(snapshot, network_id) {
        Some(vlan_id) => ethernet::tag(&frame, vlan_id),
        None => frame,
    }
}

/// A verdict with the guest's own tag, and that of the uplink that it leads out of or of the subport that it leads to. What leads
/// into a tunnel has the guest's tag already.
#[must_use]
pub fn leave(sight: &Sight<'_>, verdict: Verdict) -> Verdict {
    let own = |frame| guest_vlan::put(sight.tag, frame);
    match verdict {
        Verdict::Uplink { network, frame } => Verdict::Uplink {
            network,
            frame: tagged(sight.snapshot, network, own(frame)),
        },
        Verdict::Reply { frame } if sight.is_uplink() => Verdict::Reply {
            frame: tagged(sight.snapshot, sight.network_id, frame),
        },
        Verdict::Reply { frame } => Verdict::Reply {
            frame: match sight.port {
                Some((id, _)) => port_tagged(sight.snapshot, id, frame),
                None => frame,
            },
        },
        Verdict::Deliver { port, frame } => Verdict::Deliver {
            port,
            frame: port_tagged(sight.snapshot, port, own(frame)),
        },
        verdict => verdict,
    }
}
