//! NDP proxies.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::{self, row};
use super::{Conn, Result, Row};

row! {
    /// An address inside that a router's gateway answers for outside.
    NdpProxyRow: NdpProxy in "ndp_proxies" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// The router.
        router_id: String,
        /// The guest's port.
        port_id: String,
        /// Which of its addresses.
        ip_address: String,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("router_id", "router_id IN ({})", "router_id"),
        Column::sorted("port_id", "port_id IN ({})", "port_id"),
        Column::sorted("ip_address", "ip_address IN ({})", "ip_address"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &[];
}

/// The proxies of some routers, by router.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn ndp_proxy_list(conn: &mut Conn, routers: &[&str]) -> Result<Vec<NdpProxyRow>> {
    let select = format!("{}router_id IN", NdpProxyRow::sql().select);
    by_parents(conn, &select, "ORDER BY router_id, id", routers).await
}

/// The proxies for a port's addresses.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn ndp_proxy_list_port(conn: &mut Conn, port: &str) -> Result<Vec<NdpProxyRow>> {
    row::fetch(conn, "port_id = $1 ORDER BY id", &[port]).await
}

/// All proxies.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn ndp_proxy_list_all(conn: &mut Conn) -> Result<Vec<NdpProxyRow>> {
    row::fetch(conn, "TRUE ORDER BY id", &[]).await
}
