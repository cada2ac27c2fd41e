//! Who may use what of other projects.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::row;
use super::{Conn, Result, WriteTx, sql};

/// The target that stands for all projects.
pub const EVERYBODY: &str = "*";

row! {
    /// One permission.
    RbacPolicyRow: RbacPolicy in "rbac_policies" {
        /// Neutron's name of the kind of object: network, qos_policy, security_group, …
        object_type: String,
        /// The object.
        object_id: String,
        /// The project that may, or [`EVERYBODY`].
        target_project: String,
        /// access_as_shared, access_as_external
        action: String,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::sorted("object_type", "object_type IN ({})", "object_type"),
        Column::sorted("object_id", "object_id IN ({})", "object_id"),
        Column::sorted("target_tenant", "target_project IN ({})", "target_project"),
        Column::sorted("action", "action IN ({})", "action"),
    ];
    visible Some("target_project = $1");
}

/// The permissions on some objects of a kind that a project has, as object and action.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn granted(
    conn: &mut Conn,
    object_type: &'static str,
    project: &str,
    objects: &[&str],
) -> Result<Vec<(String, String)>> {
    let mut found: Vec<RbacPolicyRow> = policies_of(conn, object_type, objects).await?;
    found.retain(|row| row.target_project == EVERYBODY || row.target_project == project);
    Ok(found
        .into_iter()
        .map(|row| (row.object_id, row.action))
        .collect())
}

/// All permissions on some objects of a kind.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn policies_of(
    conn: &mut Conn,
    object_type: &'static str,
    objects: &[&str],
) -> Result<Vec<RbacPolicyRow>> {
    let select = format!(
        "{}object_type = '{object_type}' AND object_id IN",
        <RbacPolicyRow as super::Row>::sql().select
    );
    by_parents(conn, &select, "ORDER BY object_id, id", objects).await
}

/// Takes all permissions on an object away, because it is gone.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn object_gone(tx: &mut WriteTx, object_type: &str, object_id: &str) -> Result<()> {
    sql::query("DELETE FROM rbac_policies WHERE object_type = $1 AND object_id = $2")
        .bind(object_type)
        .bind(object_id)
        .execute(tx.conn())
        .await?;
    Ok(())
}
