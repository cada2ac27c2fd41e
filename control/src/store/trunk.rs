//! Trunks and their subports.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::row;
use super::sql::{self, record};
use super::{Conn, Resource, Result, WriteTx};

row! {
    /// A trunk, without its subports.
    TrunkRow: Trunk in "trunks" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// Whether its subports may carry traffic.
        admin_state_up: bool,
        /// DOWN, BUILD, ACTIVE, DEGRADED, ERROR: what its ports' hosts make of it.
        status: String,
        /// The guest's port that the others are reached through.
        port_id: String,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("admin_state_up", "admin_state_up IN ({})", "admin_state_up"),
        Column::sorted("status", "status IN ({})", "status"),
        Column::sorted("port_id", "port_id IN ({})", "port_id"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &[];
}

record! {
    /// A port that is reached through a trunk.
    pub struct SubportRow {
        /// The port.
        pub port_id: String,
        /// The trunk.
        pub trunk_id: String,
        /// vlan
        pub segmentation_type: String,
        /// The VLAN on the trunk.
        pub segmentation_id: i64,
        /// Its place, from 0.
        pub position: i64,
    }
}

record! {
    /// A subport, with what a guest and a host must know of it.
    pub struct SubportPlace {
        /// The port.
        pub port_id: String,
        /// Its MAC address.
        pub mac_address: String,
        /// The trunk.
        pub trunk_id: String,
        /// The trunk's own port.
        pub parent_id: String,
        /// vlan
        pub segmentation_type: String,
        /// The VLAN on the trunk.
        pub segmentation_id: i64,
        /// The trunk's.
        pub admin_state_up: bool,
    }
}

/// The columns of a [`SubportPlace`].
const PLACES: &str = "SELECT s.port_id, p.mac_address, s.trunk_id, t.port_id, s.segmentation_type, \
                      s.segmentation_id, t.admin_state_up FROM trunk_subports s \
                      JOIN trunks t ON t.id = s.trunk_id JOIN ports p ON p.id = s.port_id WHERE";

/// The subports of some trunks, by trunk and place.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subport_list(conn: &mut Conn, trunks: &[&str]) -> Result<Vec<SubportRow>> {
    by_parents(
        conn,
        "SELECT port_id, trunk_id, segmentation_type, segmentation_id, position \
         FROM trunk_subports WHERE trunk_id IN",
        "ORDER BY trunk_id, position",
        trunks,
    )
    .await
}

/// The trunk that a port is the parent of, for some ports: as port and trunk.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn trunk_of_parents(conn: &mut Conn, ports: &[&str]) -> Result<Vec<(String, String)>> {
    let select = "SELECT port_id, id FROM trunks WHERE port_id IN";
    by_parents(conn, select, "", ports).await
}

/// The places of those among some ports that are subports.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn places_of_ports(conn: &mut Conn, ports: &[&str]) -> Result<Vec<SubportPlace>> {
    by_parents(conn, &format!("{PLACES} s.port_id IN"), "", ports).await
}

/// The places of the subports of some trunks.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn places_of_trunks(conn: &mut Conn, trunks: &[&str]) -> Result<Vec<SubportPlace>> {
    let select = format!("{PLACES} s.trunk_id IN");
    by_parents(conn, &select, "ORDER BY s.trunk_id, s.position", trunks).await
}

/// Adds a subport.
///
/// # Errors
/// [`super::StoreError::Conflict`] if the port or the VLAN is taken.
pub async fn subport_insert(tx: &mut WriteTx, row: &SubportRow) -> Result<()> {
    tx.touch(Resource::Port, &row.port_id).await?;
    sql::query(
        "INSERT INTO trunk_subports (port_id, trunk_id, segmentation_type, segmentation_id, position) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&row.port_id)
    .bind(&row.trunk_id)
    .bind(&row.segmentation_type)
    .bind(row.segmentation_id)
    .bind(row.position)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes a subport from its trunk.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subport_delete(tx: &mut WriteTx, port: &str) -> Result<()> {
    tx.touch(Resource::Port, port).await?;
    sql::query("DELETE FROM trunk_subports WHERE port_id = $1")
        .bind(port)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Sets the status of the trunks that a port is in to what their ports' states make of it. Takes no revision: hosts do
/// not act on a status.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn status_refresh(tx: &mut WriteTx, port: &str) -> Result<()> {
    let now = tx.now();
    sql::query(
        "WITH seen AS (SELECT t.id, CASE \
            WHEN p.binding_host_id = '' OR p.status NOT IN ('ACTIVE', 'ERROR') THEN 'DOWN' \
            WHEN p.status = 'ERROR' THEN 'ERROR' \
            WHEN EXISTS (SELECT 1 FROM trunk_subports s JOIN ports c ON c.id = s.port_id \
                WHERE s.trunk_id = t.id AND c.status = 'ERROR') THEN 'DEGRADED' \
            WHEN EXISTS (SELECT 1 FROM trunk_subports s JOIN ports c ON c.id = s.port_id \
                WHERE s.trunk_id = t.id AND c.status <> 'ACTIVE') THEN 'BUILD' \
            ELSE 'ACTIVE' END AS status \
          FROM trunks t JOIN ports p ON p.id = t.port_id \
          WHERE t.port_id = $1 OR t.id IN (SELECT trunk_id FROM trunk_subports WHERE port_id = $1)) \
         UPDATE trunks SET status = (SELECT seen.status FROM seen WHERE seen.id = trunks.id), \
            updated_at = $2, revision_number = revision_number + 1 \
         WHERE EXISTS (SELECT 1 FROM seen WHERE seen.id = trunks.id AND seen.status <> trunks.status)",
    )
    .bind(port)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}
