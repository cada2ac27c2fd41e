//! Address groups.

use super::list::Column;
use super::row::{self, row};
use super::{Conn, JsonText, Result, sql};

row! {
    /// A named set of address ranges.
    AddressGroupRow: AddressGroup in "address_groups" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// The ranges, host bits zero, in order, none twice.
        addresses: JsonText<Vec<String>>,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::sorted("description", "description IN ({})", "description"),
        Column::filter("shared",
            "(id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'address_group' \
              AND action = 'access_as_shared' AND target_project IN ('*', $1))) IN ({})"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &["id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'address_group' \
                  AND target_project IN ('*', $1))"];
}

/// All address groups.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn address_group_list_all(conn: &mut Conn) -> Result<Vec<AddressGroupRow>> {
    row::fetch(conn, "TRUE", &[]).await
}

/// Whether a rule, or the template of one, speaks of an address group.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn address_group_in_use(conn: &mut Conn, id: &str) -> Result<bool> {
    let found: Option<i64> = sql::query_scalar(
        "SELECT 1 FROM security_group_rules WHERE remote_address_group_id = $1 \
         UNION ALL SELECT 1 FROM default_security_group_rules WHERE remote_address_group_id = $1 \
         LIMIT 1",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}
