//! Whether new security groups keep state, where their creators do not say.

use super::list::Column;
use super::row::{self, row};
use super::{Conn, Result};

row! {
    /// The setting of a project; the one with an empty project holds for all that have none.
    DefaultStatefulnessRow: SecurityGroupsDefaultStatefulness in "security_groups_default_statefulness" {
        /// Whether new groups keep state.
        stateful: bool,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::sorted("stateful", "stateful IN ({})", "stateful"),
    ];
    visible &[];
}

/// What holds for a new group of a project.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn default_stateful(conn: &mut Conn, project: &str) -> Result<bool> {
    let rows: Vec<DefaultStatefulnessRow> = row::fetch(
        conn,
        "project_id IN ($1, '') ORDER BY project_id DESC",
        &[project],
    )
    .await?;
    Ok(rows.first().is_none_or(|row| row.stateful))
}
