//! Local IPs, and the ports that stand for them.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::{self, row};
use super::{Conn, Result, Row};

row! {
    /// A local IP.
    LocalIpRow: LocalIp in "local_ips" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// The network.
        network_id: String,
        /// The port that holds the address.
        local_port_id: String,
        /// The address.
        local_ip_address: String,
        /// translate, passthrough
        ip_mode: String,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("network_id", "network_id IN ({})", "network_id"),
        Column::sorted("local_port_id", "local_port_id IN ({})", "local_port_id"),
        Column::sorted("local_ip_address", "local_ip_address IN ({})", "local_ip_address"),
        Column::sorted("ip_mode", "ip_mode IN ({})", "ip_mode"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &[];
}

row! {
    /// A port that stands for a local IP.
    LocalIpPortAssociationRow: LocalIpPortAssociation in "local_ip_port_associations" {
        /// The local IP.
        local_ip_id: String,
        /// The port.
        fixed_port_id: String,
        /// Which of its addresses.
        fixed_ip: String,
    }
    filters &[
        Column::filter("local_ip_id", "local_ip_id IN ({})"),
        Column::sorted("fixed_port_id", "fixed_port_id IN ({})", "fixed_port_id"),
        Column::sorted("fixed_ip", "fixed_ip IN ({})", "fixed_ip"),
        Column::filter("local_ip_address",
            "(SELECT l.local_ip_address FROM local_ips l WHERE l.id = local_ip_id) IN ({})"),
        Column::filter("host",
            "(SELECT p.binding_host_id FROM ports p WHERE p.id = fixed_port_id) IN ({})"),
    ];
    visible &[];
}

/// Some local IPs, by id.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn local_ip_list(conn: &mut Conn, ids: &[&str]) -> Result<Vec<LocalIpRow>> {
    let select = format!("{}id IN", LocalIpRow::sql().select);
    by_parents(conn, &select, "ORDER BY id", ids).await
}

/// Whether a port holds a local IP's address.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn local_ip_is_held(conn: &mut Conn, port: &str) -> Result<bool> {
    let held: Vec<LocalIpRow> = row::fetch(conn, "local_port_id = $1 LIMIT 1", &[port]).await?;
    Ok(!held.is_empty())
}

/// All local IPs.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn local_ip_list_all(conn: &mut Conn) -> Result<Vec<LocalIpRow>> {
    row::fetch(conn, "TRUE ORDER BY id", &[]).await
}

/// The ports that stand for some local IPs, by local IP.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn association_list(
    conn: &mut Conn,
    local_ips: &[&str],
) -> Result<Vec<LocalIpPortAssociationRow>> {
    let select = format!("{}local_ip_id IN", LocalIpPortAssociationRow::sql().select);
    by_parents(conn, &select, "ORDER BY local_ip_id, id", local_ips).await
}

/// The local IPs that a port stands for.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn association_list_port(
    conn: &mut Conn,
    port: &str,
) -> Result<Vec<LocalIpPortAssociationRow>> {
    row::fetch(conn, "fixed_port_id = $1 ORDER BY id", &[port]).await
}

/// All ports that stand for local IPs.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn association_list_all(conn: &mut Conn) -> Result<Vec<LocalIpPortAssociationRow>> {
    row::fetch(conn, "TRUE ORDER BY id", &[]).await
}
