//! Floating IPs.

use super::list::Column;
use super::row::{self, row};
use super::{Conn, Result};

row! {
    /// A floating IP.
    FloatingIpRow: FloatingIp in "floating_ips" {
        /// For people.
        description: String,
        /// The external network.
        floating_network_id: String,
        /// The address seen outside.
        floating_ip_address: String,
        /// The port that holds the address on the external network.
        floating_port_id: String,
        /// The router between; none while it leads nowhere.
        router_id: Option<String>,
        /// The guest's port.
        port_id: Option<String>,
        /// Which of the port's addresses.
        fixed_ip_address: Option<String>,
        /// Its name in DNS.
        dns_name: String,
        /// Its domain in DNS.
        dns_domain: String,
        /// Its QoS policy.
        qos_policy_id: Option<String>,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("floating_network_id", "floating_network_id IN ({})", "floating_network_id"),
        Column::sorted("floating_ip_address", "floating_ip_address IN ({})", "floating_ip_address"),
        Column::sorted("router_id", "router_id IN ({})", "router_id"),
        Column::filter("port_id", "port_id IN ({})"),
        Column::sorted("fixed_ip_address", "fixed_ip_address IN ({})", "fixed_ip_address"),
        Column::sorted("status",
            "(CASE WHEN router_id IS NULL THEN 'DOWN' ELSE 'ACTIVE' END) IN ({})",
            "(CASE WHEN router_id IS NULL THEN 'DOWN' ELSE 'ACTIVE' END)"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &[];
}

/// The floating IPs that lead to a port.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn floating_ip_list_port(conn: &mut Conn, port: &str) -> Result<Vec<FloatingIpRow>> {
    row::fetch(conn, "port_id = $1 ORDER BY id", &[port]).await
}

/// The floating IPs that go through a router.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn floating_ip_list_router(conn: &mut Conn, router: &str) -> Result<Vec<FloatingIpRow>> {
    row::fetch(conn, "router_id = $1 ORDER BY id", &[router]).await
}

/// The floating IP whose address a port holds.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn floating_ip_of_floating_port(
    conn: &mut Conn,
    port: &str,
) -> Result<Option<FloatingIpRow>> {
    Ok(row::fetch(conn, "floating_port_id = $1", &[port])
        .await?
        .into_iter()
        .next())
}

/// All floating IPs.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn floating_ip_list_all(conn: &mut Conn) -> Result<Vec<FloatingIpRow>> {
    row::fetch(conn, "TRUE", &[]).await
}
