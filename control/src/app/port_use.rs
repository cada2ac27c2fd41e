//! What hangs on a port besides itself: it may keep the port from going, and changes or goes with it.

use super::error::{Error, Result};
use super::port::{FLOATING_IP, ROUTER_GATEWAY, ROUTER_INTERFACE};
use super::resource::Write;
use super::{floating_ip, local_ip_port_association, ndp_proxy, port_forwarding};
use crate::store::floating_ip::floating_ip_of_floating_port;
use crate::store::local_ip::local_ip_is_held;
use crate::store::port::Port;
use crate::store::router::router_of_port;

/// Refuses to delete a port that belongs to a router, a floating IP or a local IP.
pub(super) async fn check_unused(write: &mut Write<'_>, port: &Port) -> Result<()> {
    let id = &port.row.id;
    let owner = port.row.device_owner.as_str();
    let conn = write.conn();
    let used = match owner {
        ROUTER_INTERFACE | ROUTER_GATEWAY => router_of_port(&mut *conn, id).await?.is_some(),
        FLOATING_IP => floating_ip_of_floating_port(&mut *conn, id)
            .await?
            .is_some(),
        _ => false,
    };
    let reason = if used {
        format!("has device owner {owner}")
    } else if local_ip_is_held(conn, id).await? {
        "still referenced by Local IPs".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::conflict(
        "ServicePortInUse",
        format!("Port {id} cannot be deleted directly via the port API: {reason}."),
    ))
}

/// A port goes: what led to it leads nowhere.
pub(super) async fn gone(write: &mut Write<'_>, port: &str) -> Result<()> {
    floating_ip::port_gone(write, port).await?;
    port_forwarding::port_gone(write, port).await?;
    ndp_proxy::port_gone(write, port).await?;
    local_ip_port_association::port_gone(write, port).await
}

/// A port has other addresses now: those that floating IPs lead to must be among them, and what led to others that it
/// lost goes.
pub(super) async fn addresses_changed(write: &mut Write<'_>, port: &Port) -> Result<()> {
    floating_ip::addresses_kept(write, port).await?;
    port_forwarding::addresses_gone(write, port).await?;
    ndp_proxy::addresses_gone(write, port).await?;
    local_ip_port_association::addresses_gone(write, port).await
}
