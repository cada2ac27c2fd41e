//! Address scopes.

use super::list::Column;
use super::row::row;
use super::{Conn, Result, sql};

row! {
    /// An address scope.
    AddressScopeRow: AddressScope in "address_scopes" {
        /// For people.
        name: String,
        /// 4 or 6.
        ip_version: i64,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::sorted("ip_version", "ip_version IN ({})", "ip_version"),
        Column::sorted("shared",
            "(id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'address_scope' \
              AND action = 'access_as_shared' AND target_project IN ('*', $1))) IN ({})",
            "(address_scopes.id IN (SELECT object_id FROM rbac_policies \
              WHERE object_type = 'address_scope' AND target_project IN ('*', $1)))"),
    ];
    visible &["id IN (SELECT object_id FROM rbac_policies \
                  WHERE object_type = 'address_scope' AND target_project IN ('*', $1))"];
}

/// Whether a subnet pool is in a scope.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn address_scope_used(conn: &mut Conn, scope: &str) -> Result<bool> {
    let found: Option<i64> =
        sql::query_scalar("SELECT 1 FROM subnetpools WHERE address_scope_id = $1 LIMIT 1")
            .bind(scope)
            .fetch_optional(conn)
            .await?;
    Ok(found.is_some())
}
