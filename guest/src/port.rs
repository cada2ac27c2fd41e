//! What this host's agent says of its ports.

use anyhow::{Context, Result};
use std::path::Path;
use weft_agent::socket::{Client, PortState};
use weft_model::PortId;

/// All ports of this host.
pub(crate) fn all(socket: &Path) -> Result<Vec<PortState>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(Client::new(socket).status())?.ports)
}

/// One port of this host.
pub(crate) fn one(socket: &Path, id: PortId) -> Result<PortState> {
    let mut ports = all(socket)?;
    let at = ports.iter().position(|port| port.port_id == id);
    let at = at.with_context(|| {
        format!(
            "this host has no port {id}: is it bound here (openstack port set --host HOST {id})?"
        )
    })?;
    Ok(ports.swap_remove(at))
}
