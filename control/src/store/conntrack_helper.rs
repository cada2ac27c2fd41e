//! Conntrack helpers of routers.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::{self, row};
use super::{Conn, Result, Row};

row! {
    /// A conntrack helper.
    ConntrackHelperRow: ConntrackHelper in "conntrack_helpers" {
        /// The router.
        router_id: String,
        /// tcp, udp
        protocol: String,
        /// The port of the control connection.
        port: i64,
        /// ftp, tftp, …
        helper: String,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::filter("router_id", "router_id IN ({})"),
        Column::sorted("protocol", "protocol IN ({})", "protocol"),
        Column::sorted("port", "port IN ({})", "port"),
        Column::sorted("helper", "helper IN ({})", "helper"),
    ];
    visible &[];
}

/// The helpers of some routers, by router.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn conntrack_helper_list(
    conn: &mut Conn,
    routers: &[&str],
) -> Result<Vec<ConntrackHelperRow>> {
    let select = format!("{}router_id IN", ConntrackHelperRow::sql().select);
    by_parents(conn, &select, "ORDER BY router_id, id", routers).await
}

/// All helpers.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn conntrack_helper_list_all(conn: &mut Conn) -> Result<Vec<ConntrackHelperRow>> {
    row::fetch(conn, "TRUE ORDER BY id", &[]).await
}
