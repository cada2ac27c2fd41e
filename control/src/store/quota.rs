//! Quotas that differ from the configured defaults, and how much is in use.

use super::sql::{self, AssertSqlSafe};
use super::{Conn, Result, WriteTx};

/// A project's own limits, by resource.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn quota_get(conn: &mut Conn, project: &str) -> Result<Vec<(String, i64)>> {
    sql::query_as("SELECT resource, quota_limit FROM quotas WHERE project_id = $1")
        .bind(project)
        .fetch_all(conn)
        .await
}

/// The projects with limits of their own.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn quota_list(conn: &mut Conn) -> Result<Vec<(String, String, i64)>> {
    sql::query_as(
        "SELECT project_id, resource, quota_limit FROM quotas ORDER BY project_id, resource",
    )
    .fetch_all(conn)
    .await
}

/// Sets a project's limit for a resource; -1 for none.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn quota_set(tx: &mut WriteTx, project: &str, resource: &str, limit: i64) -> Result<()> {
    sql::query(
        "INSERT INTO quotas (project_id, resource, quota_limit) VALUES ($1, $2, $3) \
         ON CONFLICT (project_id, resource) DO UPDATE SET quota_limit = excluded.quota_limit",
    )
    .bind(project)
    .bind(resource)
    .bind(limit)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes a project's own limits away; whether it had any.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn quota_delete(tx: &mut WriteTx, project: &str) -> Result<bool> {
    let done = sql::query("DELETE FROM quotas WHERE project_id = $1")
        .bind(project)
        .execute(tx.conn())
        .await?;
    Ok(done > 0)
}

/// How many rows of a table a project has, counted up to `limit`: reads no further than it must.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn usage(conn: &mut Conn, table: &'static str, project: &str, limit: i64) -> Result<i64> {
    let text = format!(
        "SELECT COUNT(*) FROM (SELECT 1 FROM {table} WHERE project_id = $1 LIMIT $2) AS counted"
    );
    sql::query_scalar(AssertSqlSafe(text))
        .bind(project)
        .bind(limit)
        .fetch_one(conn)
        .await
}
