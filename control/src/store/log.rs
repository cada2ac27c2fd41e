//! Logs: which security groups' decisions are to be written down.

use super::list::Column;
use super::row::{self, row};
use super::{Conn, Result, sql};

row! {
    /// A log.
    LogRow: Log in "logs" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// Whether it is written.
        enabled: bool,
        /// ACCEPT, DROP, ALL
        event: String,
        /// What kind of resource decides.
        resource_type: String,
        /// The security group; none for all.
        resource_id: Option<String>,
        /// The port; none for all.
        target_id: Option<String>,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("enabled", "enabled IN ({})", "enabled"),
        Column::filter("event", "event IN ({})"),
        Column::sorted("resource_type", "resource_type IN ({})", "resource_type"),
        Column::sorted("resource_id", "resource_id IN ({})", "resource_id"),
        Column::sorted("target_id", "target_id IN ({})", "target_id"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &[];
}

/// Whether a port is in a security group.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_is_in_group(conn: &mut Conn, port: &str, group: &str) -> Result<bool> {
    let found: Option<i64> = sql::query_scalar(
        "SELECT 1 FROM port_security_groups WHERE port_id = $1 AND security_group_id = $2",
    )
    .bind(port)
    .bind(group)
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// All logs.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn log_list_all(conn: &mut Conn) -> Result<Vec<LogRow>> {
    row::fetch(conn, "TRUE", &[]).await
}
