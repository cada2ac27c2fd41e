//! Which network and router a project got by asking for one.

use super::sql::{self, record};
use super::{Conn, Result, WriteTx};

record! {
    /// A project's topology.
    pub struct TopologyRow {
        /// Whose it is.
        pub project_id: String,
        /// Its network; the row goes with it.
        pub network_id: String,
        /// Its router, while that is there.
        pub router_id: Option<String>,
    }
}

/// A project's topology.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn topology_get(conn: &mut Conn, project: &str) -> Result<Option<TopologyRow>> {
    sql::query_as(
        "SELECT project_id, network_id, router_id FROM auto_allocated_topologies \
         WHERE project_id = $1",
    )
    .bind(project)
    .fetch_optional(conn)
    .await
}

/// Writes a project's topology down.
///
/// # Errors
/// [`super::StoreError::Conflict`] if it has one.
pub async fn topology_insert(tx: &mut WriteTx, row: &TopologyRow) -> Result<()> {
    sql::query(
        "INSERT INTO auto_allocated_topologies (project_id, network_id, router_id) \
         VALUES ($1, $2, $3)",
    )
    .bind(&row.project_id)
    .bind(&row.network_id)
    .bind(&row.router_id)
    .execute(tx.conn())
    .await?;
    Ok(())
}
