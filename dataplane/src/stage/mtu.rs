//! TTL and MTU of a routed packet. docs/pipeline.md, section 6.
//!
//! Guarantees: nothing routed leaves with a TTL of 0 or larger than its network. Assumes a transformation. Cost: none.

use crate::flow::session::{Hop, Way};
use crate::mutant::Mutant;
use weft_model::DropReason;

/// Whether a packet with this TTL and of this many bytes may take a hop.
///
/// # Errors
/// The reason to drop it.
pub fn process(
    ttl: u8,
    ip_bytes: usize,
    hop: &Hop,
    way: Way,
    mutant: Option<Mutant>,
) -> Result<(), DropReason> {
    if ttl <= hop.ttl_decrement {
        return Err(DropReason::TtlExceeded);
    }
    let measured = way == Way::Forward || mutant != Some(Mutant::ReplyMtu);
    if measured && ip_bytes > usize::try_from(hop.mtu).unwrap_or(usize::MAX) {
        return Err(DropReason::MtuExceeded);
    }
    Ok(())
}
