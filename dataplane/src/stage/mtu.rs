//! TTL of a routed packet, MTU of one that is routed or goes into a tunnel. docs/pipeline.md, section 6.
//!
//! Guarantees: nothing routed leaves with a TTL of 0, nothing routed or tunnelled larger than its network. Assumes a transformation. Cost: none.

use crate::flow::session::{Transformation, Way};
use crate::mutant::Mutant;
use weft_model::DropReason;

/// Whether a packet with this TTL and of this many bytes may go this way.
///
/// # Errors
/// The reason to drop it.
pub fn process(
    ttl: u8,
    ip_bytes: usize,
    transformation: &Transformation,
    way: Way,
    mutant: Option<Mutant>,
) -> Result<(), DropReason> {
    if let Some(hop) = &transformation.hop
        && ttl <= hop.ttl_decrement
    {
        return Err(DropReason::TtlExceeded);
    }
    let measured = way == Way::Forward || mutant != Some(Mutant::ReplyMtu);
    let mtu = of(transformation, mutant).filter(|_| measured);
    if mtu.is_some_and(|mtu| ip_bytes > usize::try_from(mtu).unwrap_or(usize::MAX)) {
        return Err(DropReason::MtuExceeded);
    }
    Ok(())
}

/// The MTU that holds on a way; none if it is bridged on this host.
#[must_use]
pub fn of(transformation: &Transformation, mutant: Option<Mutant>) -> Option<u32> {
    let tunnel = transformation
        .tunnel
        .filter(|_| mutant != Some(Mutant::TunnelMtu));
    let routed = transformation.hop.map(|hop| hop.mtu);
    routed.or(tunnel.map(|tunnel| tunnel.mtu))
}
