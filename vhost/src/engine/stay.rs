//! What stays with this engine, where the host has two: docs/adr/0011-one-engine-a-flow.md.
//!
//! Guarantees: looks at nothing but where a packet would go, so that every packet of a flow, in either direction, is the same
//! engine's.

use super::path::{End, Opening};
use super::plan::Plan;
use super::walk::{Neighbours, Walk};

/// Whether a packet would go from a guest's port to a vhost-user port of this host, whatever the policies say.
pub(super) fn stays(plan: &Plan, neighbours: &Neighbours, opening: &Opening) -> bool {
    let untested = Opening {
        test: None,
        ..*opening
    };
    let Ok(walk) = Walk::begin(plan, neighbours, &untested) else {
        return true;
    };
    match walk.lead() {
        Ok(End::Path(path)) if path.tunnel.is_none() => {
            plan.port(path.output).is_some_and(|port| port.served)
        }
        _ => false,
    }
}
