//! Routers and their interfaces.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::{self, row};
use super::sql::{self, record};
use super::subnet::Route;
use super::{Conn, JsonText, Resource, Result, WriteTx};

row! {
    /// A router.
    RouterRow: Router in "routers" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// Whether it forwards.
        admin_state_up: bool,
        /// As it was asked for; every Weft router is.
        distributed: bool,
        /// As it was asked for; every Weft router is.
        ha: bool,
        /// Whether IPv4 traffic leaves under the gateway's address.
        enable_snat: bool,
        /// The port in the external network.
        gateway_port_id: Option<String>,
        /// Extra routes.
        routes: JsonText<Vec<Route>>,
        /// Names of availability zones.
        availability_zone_hints: JsonText<Vec<String>>,
        /// Its flavor.
        flavor_id: Option<String>,
        /// Whether it answers outside for IPv6 addresses inside.
        enable_ndp_proxy: bool,
        /// The gateway's QoS policy.
        gateway_qos_policy_id: Option<String>,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("admin_state_up", "admin_state_up IN ({})", "admin_state_up"),
        Column::sorted("status", "'ACTIVE' IN ({})", "id"),
        Column::sorted("flavor_id", "flavor_id IN ({})", "flavor_id"),
        Column::filter("distributed", "distributed IN ({})"),
        Column::filter("ha", "ha IN ({})"),
        Column::filter("enable_ndp_proxy", "enable_ndp_proxy IN ({})"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
        // What one L3 agent serves; the API asks for it by a path of its own.
        Column::filter("l3_agent",
            "id NOT IN (SELECT router_id FROM l3_agent_routers WHERE agent_id = {} AND NOT hosted)"),
    ];
    visible &[];
}

record! {
    /// A leg of a router in a project network: the port `port_id`.
    pub struct RouterInterfaceRow {
        /// The port (device owner `network:router_interface`).
        pub port_id: String,
        /// The router.
        pub router_id: String,
    }
}

/// The legs of some routers, by router.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn interface_list(conn: &mut Conn, routers: &[&str]) -> Result<Vec<RouterInterfaceRow>> {
    by_parents(
        conn,
        "SELECT port_id, router_id FROM router_interfaces WHERE router_id IN",
        "ORDER BY router_id, port_id",
        routers,
    )
    .await
}

/// All legs of all routers.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn interface_list_all(conn: &mut Conn) -> Result<Vec<RouterInterfaceRow>> {
    sql::query_as("SELECT port_id, router_id FROM router_interfaces ORDER BY router_id, port_id")
        .fetch_all(conn)
        .await
}

/// All routers.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn router_list_all(conn: &mut Conn) -> Result<Vec<RouterRow>> {
    row::fetch(conn, "TRUE", &[]).await
}

/// The router that a port is a leg or the gateway of.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn router_of_port(conn: &mut Conn, port: &str) -> Result<Option<RouterRow>> {
    let condition = "gateway_port_id = $1 \
         OR id IN (SELECT router_id FROM router_interfaces WHERE port_id = $1)";
    Ok(row::fetch(conn, condition, &[port])
        .await?
        .into_iter()
        .next())
}

/// The routers with a leg in a subnet.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn router_list_subnet(conn: &mut Conn, subnet: &str) -> Result<Vec<RouterRow>> {
    let condition = "id IN (SELECT i.router_id FROM router_interfaces i \
         JOIN port_fixed_ips f ON f.port_id = i.port_id WHERE f.subnet_id = $1) ORDER BY id";
    row::fetch(conn, condition, &[subnet]).await
}

/// Whether a project has an HA router.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn ha_router_exists(conn: &mut Conn, project: &str) -> Result<bool> {
    let found: Vec<RouterRow> =
        row::fetch(conn, "project_id = $1 AND ha LIMIT 1", &[project]).await?;
    Ok(!found.is_empty())
}

/// Whether a router has this flavor.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn flavor_is_used(conn: &mut Conn, flavor: &str) -> Result<bool> {
    let found: Vec<RouterRow> = row::fetch(conn, "flavor_id = $1 LIMIT 1", &[flavor]).await?;
    Ok(!found.is_empty())
}

/// Makes a port a leg of a router.
///
/// # Errors
/// [`super::StoreError::Conflict`] if it is one already.
pub async fn interface_insert(tx: &mut WriteTx, router: &str, port: &str) -> Result<()> {
    tx.touch(Resource::Router, router).await?;
    sql::query("INSERT INTO router_interfaces (port_id, router_id) VALUES ($1, $2)")
        .bind(port)
        .bind(router)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Makes a port no leg of its router any more.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn interface_delete(tx: &mut WriteTx, router: &str, port: &str) -> Result<()> {
    tx.touch(Resource::Router, router).await?;
    sql::query("DELETE FROM router_interfaces WHERE port_id = $1 AND router_id = $2")
        .bind(port)
        .bind(router)
        .execute(tx.conn())
        .await?;
    Ok(())
}
