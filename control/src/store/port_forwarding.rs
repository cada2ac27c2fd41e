//! Port forwardings of floating IPs.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::{self, row};
use super::{Conn, Result, Row};

row! {
    /// A port forwarding.
    PortForwardingRow: PortForwarding in "port_forwardings" {
        /// For people.
        description: String,
        /// The floating IP.
        floatingip_id: String,
        /// tcp, udp, …
        protocol: String,
        /// The first external port.
        external_port_first: i64,
        /// The last external port.
        external_port_last: i64,
        /// The guest's port.
        internal_port_id: String,
        /// Which of its addresses.
        internal_ip_address: String,
        /// The first internal port.
        internal_port_first: i64,
        /// The last internal port: as many as external ones, or one.
        internal_port_last: i64,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::filter("floatingip_id", "floatingip_id IN ({})"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("protocol", "protocol IN ({})", "protocol"),
        Column::sorted("internal_port_id", "internal_port_id IN ({})", "internal_port_id"),
        Column::sorted("external_port",
            "external_port_first = external_port_last AND external_port_first IN ({})",
            "external_port_first"),
        Column::sorted("external_port_range",
            "external_port_first || ':' || external_port_last IN ({})", "external_port_first"),
    ];
    visible &[];
}

/// The forwardings of some floating IPs, by floating IP.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_forwarding_list(
    conn: &mut Conn,
    floating_ips: &[&str],
) -> Result<Vec<PortForwardingRow>> {
    let select = format!("{}floatingip_id IN", PortForwardingRow::sql().select);
    by_parents(conn, &select, "ORDER BY floatingip_id, id", floating_ips).await
}

/// The forwardings that lead to a port.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_forwarding_list_port(
    conn: &mut Conn,
    port: &str,
) -> Result<Vec<PortForwardingRow>> {
    row::fetch(conn, "internal_port_id = $1 ORDER BY id", &[port]).await
}

/// All forwardings.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_forwarding_list_all(conn: &mut Conn) -> Result<Vec<PortForwardingRow>> {
    row::fetch(conn, "TRUE ORDER BY id", &[]).await
}
