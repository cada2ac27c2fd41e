//! Subnet pools, what of them is in use, and where the search for room starts.

use super::list::Column;
use super::row::{self, row};
use super::sql;
use super::{Conn, JsonText, Result, WriteTx};
use ipnet::IpNet;

row! {
    /// A subnet pool.
    SubnetpoolRow: Subnetpool in "subnetpools" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// 4 or 6.
        ip_version: i64,
        /// In ascending order, disjoint, merged.
        prefixes: JsonText<Vec<IpNet>>,
        /// The shortest prefix length that is given.
        min_prefixlen: i64,
        /// The longest one.
        max_prefixlen: i64,
        /// That of subnets that ask for none.
        default_prefixlen: i64,
        /// What one project may take, in addresses (v4) or /64s (v6).
        default_quota: Option<i64>,
        /// Whether it is what `use_default_subnetpool` means.
        is_default: bool,
        /// Its address scope.
        address_scope_id: Option<String>,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("ip_version", "ip_version IN ({})", "ip_version"),
        Column::sorted("min_prefixlen", "min_prefixlen IN ({})", "min_prefixlen"),
        Column::sorted("max_prefixlen", "max_prefixlen IN ({})", "max_prefixlen"),
        Column::sorted("default_prefixlen", "default_prefixlen IN ({})", "default_prefixlen"),
        Column::sorted("default_quota", "default_quota IN ({})", "COALESCE(default_quota, -1)"),
        Column::sorted("is_default", "is_default IN ({})", "is_default"),
        Column::sorted("address_scope_id", "address_scope_id IN ({})",
            "COALESCE(address_scope_id, '')"),
        Column::sorted("shared",
            "(id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'subnetpool' \
              AND action = 'access_as_shared' AND target_project IN ('*', $1))) IN ({})",
            "(subnetpools.id IN (SELECT object_id FROM rbac_policies \
              WHERE object_type = 'subnetpool' AND target_project IN ('*', $1)))"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &["id IN (SELECT object_id FROM rbac_policies \
                  WHERE object_type = 'subnetpool' AND target_project IN ('*', $1))"];
}

/// The default pool of a family.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnetpool_default(conn: &mut Conn, ip_version: i64) -> Result<Option<SubnetpoolRow>> {
    let condition = match ip_version {
        4 => "is_default AND ip_version = 4",
        _ => "is_default AND ip_version = 6",
    };
    Ok(row::fetch(conn, condition, &[]).await?.into_iter().next())
}

/// The pools that are in an address scope, each with its scope.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn scope_list(conn: &mut Conn) -> Result<Vec<(String, String)>> {
    sql::query_as("SELECT id, address_scope_id FROM subnetpools WHERE address_scope_id IS NOT NULL")
        .fetch_all(conn)
        .await
}

/// Whether a subnet is from a pool.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnetpool_used(conn: &mut Conn, pool: &str) -> Result<bool> {
    let found: Option<i64> =
        sql::query_scalar("SELECT 1 FROM subnets WHERE subnetpool_id = $1 LIMIT 1")
            .bind(pool)
            .fetch_optional(conn)
            .await?;
    Ok(found.is_some())
}

/// The pools of an address scope.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnetpool_list_scope(conn: &mut Conn, scope: &str) -> Result<Vec<SubnetpoolRow>> {
    row::fetch(conn, "address_scope_id = $1 ORDER BY id", &[scope]).await
}

/// The pools of some networks' subnets: network, family and address scope.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn address_scopes_of(
    conn: &mut Conn,
    networks: &[&str],
) -> Result<Vec<(String, i64, Option<String>)>> {
    super::fixed_ip::by_parents(
        conn,
        "SELECT DISTINCT s.network_id, p.ip_version, p.address_scope_id FROM subnets s \
         JOIN subnetpools p ON p.id = s.subnetpool_id WHERE s.network_id IN",
        "ORDER BY s.network_id, p.ip_version",
        networks,
    )
    .await
}

/// The ranges (as keys) of a pool's subnets that end at a key or behind it, in order, at most `limit`.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn ranges_used(
    conn: &mut Conn,
    pool: &str,
    from: &str,
    limit: u32,
) -> Result<Vec<(String, String)>> {
    sql::query_as(
        "SELECT first_key, last_key FROM subnets WHERE subnetpool_id = $1 AND last_key >= $2 \
         ORDER BY last_key LIMIT $3",
    )
    .bind(pool)
    .bind(from)
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
}

/// The ranges (as prefixes) that a project has from a pool, or all projects.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn cidrs_of_pool(
    conn: &mut Conn,
    pool: &str,
    project: Option<&str>,
) -> Result<Vec<String>> {
    sql::query_scalar(
        "SELECT cidr FROM subnets WHERE subnetpool_id = $1 AND ($2 IS NULL OR project_id = $2)",
    )
    .bind(pool)
    .bind(project)
    .fetch_all(conn)
    .await
}

/// Whether a network has subnets of this family that are not from this pool, beside subnets that are.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn pool_shares_a_network(conn: &mut Conn, pool: &str) -> Result<bool> {
    let found: Option<i64> = sql::query_scalar(
        "SELECT 1 FROM subnets mine JOIN subnets other ON other.network_id = mine.network_id \
         AND other.ip_version = mine.ip_version \
         WHERE mine.subnetpool_id = $1 AND (other.subnetpool_id IS NULL OR other.subnetpool_id <> $1) \
         LIMIT 1",
    )
    .bind(pool)
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// Below which key no block of this length is free.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn cursor_get(conn: &mut Conn, pool: &str, prefixlen: i64) -> Result<Option<String>> {
    sql::query_scalar(
        "SELECT first_key FROM subnetpool_cursors WHERE subnetpool_id = $1 AND prefixlen = $2",
    )
    .bind(pool)
    .bind(prefixlen)
    .fetch_optional(conn)
    .await
}

/// Remembers where the next search for a block of this length starts.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn cursor_set(
    tx: &mut WriteTx,
    pool: &str,
    prefixlen: i64,
    first_key: &str,
) -> Result<()> {
    sql::query(
        "INSERT INTO subnetpool_cursors (subnetpool_id, prefixlen, first_key) VALUES ($1, $2, $3) \
         ON CONFLICT (subnetpool_id, prefixlen) DO UPDATE SET first_key = excluded.first_key",
    )
    .bind(pool)
    .bind(prefixlen)
    .bind(first_key)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A subnet's range is given back: searches for blocks not larger than it start there at the latest, those for larger
/// ones from the beginning.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn cursors_lower(
    tx: &mut WriteTx,
    pool: &str,
    prefixlen: i64,
    first_key: &str,
) -> Result<()> {
    sql::query("DELETE FROM subnetpool_cursors WHERE subnetpool_id = $1 AND prefixlen < $2")
        .bind(pool)
        .bind(prefixlen)
        .execute(tx.conn())
        .await?;
    sql::query(
        "UPDATE subnetpool_cursors SET first_key = $2 WHERE subnetpool_id = $1 AND first_key > $2",
    )
    .bind(pool)
    .bind(first_key)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// All searches start from the beginning: the pool has other prefixes.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn cursors_reset(tx: &mut WriteTx, pool: &str) -> Result<()> {
    sql::query("DELETE FROM subnetpool_cursors WHERE subnetpool_id = $1")
        .bind(pool)
        .execute(tx.conn())
        .await?;
    Ok(())
}
