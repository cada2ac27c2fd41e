//! The database's epoch and revision, and the record of what was changed at which revision.

use super::observer::Touched;
use super::sql::{self, AssertSqlSafe, record};
use super::{Conn, Result, StoreError};
use std::fmt::Write as _;
use weft_model::{Epoch, Revision};

/// Rows of one INSERT: keeps below the databases' limits on parameters.
const INSERT_ROWS_MAX: usize = 500;

/// Reads the epoch and the revision; makes them on the first start.
pub(super) async fn ensure(conn: &mut Conn) -> Result<(Epoch, Revision)> {
    sql::query(
        "INSERT INTO control_state (id, epoch, revision) VALUES (1, $1, 0) ON CONFLICT (id) DO NOTHING",
    )
    .bind(Epoch::random().to_string())
    .execute(&mut *conn)
    .await?;
    let (epoch, revision): (String, i64) =
        sql::query_as("SELECT epoch, revision FROM control_state WHERE id = 1")
            .fetch_one(&mut *conn)
            .await?;
    let epoch = epoch.parse();
    let epoch = epoch.map_err(|error| StoreError::Database(Box::new(error)))?;
    Ok((epoch, Revision(revision.unsigned_abs())))
}

/// Takes the next revision, for the transaction on this connection.
pub(super) async fn revision_take(conn: &mut Conn) -> Result<i64> {
    sql::query_scalar(
        "UPDATE control_state SET revision = revision + 1 WHERE id = 1 RETURNING revision",
    )
    .fetch_one(conn)
    .await
}

/// The newest revision that this connection sees.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn revision(conn: &mut Conn) -> Result<Revision> {
    let revision: i64 = sql::query_scalar("SELECT revision FROM control_state WHERE id = 1")
        .fetch_one(conn)
        .await?;
    Ok(Revision(revision.unsigned_abs()))
}

/// How a row was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// It is new.
    Created,
    /// It was there, and is.
    Changed,
    /// It is gone.
    Deleted,
}

impl How {
    /// Its name in `changes`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }
}

record! {
    /// One changed (or deleted) row.
    pub struct Change {
        /// At which revision.
        pub revision: i64,
        /// [`Resource::name`] of its kind.
        pub resource: String,
        /// Its id.
        pub resource_id: String,
        /// [`How::name`].
        pub how: String,
        /// The project that owns it, where that was known; else empty.
        pub project_id: String,
    }
}

pub(super) async fn changes_insert(
    conn: &mut Conn,
    revision: i64,
    touched: &[Touched],
) -> Result<()> {
    for chunk in touched.chunks(INSERT_ROWS_MAX) {
        let mut sql =
            "INSERT INTO changes (revision, resource, resource_id, how, project_id) VALUES "
                .to_owned();
        for n in 0..chunk.len() {
            let comma = if n == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let at = 4 * n + 2;
            let _ = write!(
                sql,
                "{comma}($1, ${at}, ${}, ${}, ${})",
                at + 1,
                at + 2,
                at + 3
            );
        }
        let mut query = sql::query(AssertSqlSafe(sql)).bind(revision);
        for row in chunk {
            query = query
                .bind(row.resource.name())
                .bind(&row.id)
                .bind(row.how.name())
                .bind(row.project_id.as_deref().unwrap_or_default());
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

/// What changed after a revision, oldest first; `None` if the record does not reach back that far (or is longer
/// than `limit`): read everything then.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn changes_since(
    conn: &mut Conn,
    after: Revision,
    limit: u32,
) -> Result<Option<Vec<Change>>> {
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    let oldest: Option<i64> = sql::query_scalar("SELECT MIN(revision) FROM changes")
        .fetch_one(&mut *conn)
        .await?;
    let newest = i64::try_from(revision(&mut *conn).await?.0).unwrap_or(i64::MAX);
    if after < newest && oldest.is_none_or(|oldest| oldest > after.saturating_add(1)) {
        return Ok(None);
    }
    let changes: Vec<Change> = sql::query_as(
        "SELECT revision, resource, resource_id, how, project_id FROM changes WHERE revision > $1 ORDER BY revision LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(limit) + 1)
    .fetch_all(conn)
    .await?;
    Ok((changes.len() <= limit as usize).then_some(changes))
}

/// Forgets what changed up to and at a revision.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn changes_prune(conn: &mut Conn, up_to: Revision) -> Result<()> {
    sql::query("DELETE FROM changes WHERE revision <= $1")
        .bind(i64::try_from(up_to.0).unwrap_or(i64::MAX))
        .execute(conn)
        .await?;
    Ok(())
}
