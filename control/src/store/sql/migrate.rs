//! Bringing a database to this version's schema: `migrations/`, forward only, each once and in its own transaction.

use crate::store::Result;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgPool;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The record of what was applied, in the form that sqlx keeps on PostgreSQL too.
const RECORD: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
)";

pub(super) async fn postgresql(pool: &PgPool) -> Result<()> {
    // It takes an advisory lock: of several servers that start at once, one migrates.
    Ok(MIGRATIONS.run(pool).await?)
}

pub(super) fn sqlite(conn: &mut rusqlite::Connection) -> Result<()> {
    conn.execute_batch(RECORD)?;
    let applied: Vec<(i64, Vec<u8>)> = conn
        .prepare("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, rusqlite::Error>>()?;
    for (version, checksum) in &applied {
        match MIGRATIONS.iter().find(|known| known.version == *version) {
            None => return Err(MigrateError::VersionMissing(*version).into()),
            Some(known) if known.checksum.as_ref() != checksum.as_slice() => {
                return Err(MigrateError::VersionMismatch(*version).into());
            }
            Some(_) => {}
        }
    }
    for migration in MIGRATIONS.iter() {
        if applied
            .iter()
            .any(|(version, _)| *version == migration.version)
        {
            continue;
        }
        let tx = conn.transaction()?;
        tx.execute_batch(migration.sql.as_str())?;
        tx.execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (?1, ?2, TRUE, ?3, 0)",
            (migration.version, migration.description.as_ref(), migration.checksum.as_ref()),
        )?;
        tx.commit()?;
    }
    Ok(())
}
