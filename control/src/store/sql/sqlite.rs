//! SQLite, in this process: a file, its readers and its one writer.
//!
//! Statements run where they are called, without a thread of their own: most take microseconds, which is less than
//! waking another thread would. A connection that is dropped within a transaction undoes it. A commit is safe when its
//! log is flushed, which many share (`flush`); SQLite itself moves a long log into the file, within a writer's turn. Readers may
//! see what is committed and not safe yet; nobody who wrote it was told so.

use super::flush::{Flusher, Writer};
use super::value::{Argument, Row};
use crate::store::{Durability, Result, StoreError};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, ToSql, ffi};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use weft_model::Revision;

/// Statements that a connection keeps compiled.
const STATEMENTS_CACHED: usize = 512;
/// Pages of the log above which it is written into the file.
const CHECKPOINT_PAGES: u32 = 16_000;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let rusqlite::Error::SqliteFailure(code, message) = &error else {
            return Self::Database(error.into());
        };
        let text = || message.clone().unwrap_or_else(|| error.to_string());
        match (code.code, code.extended_code) {
            (_, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => {
                Self::Conflict(text())
            }
            (_, ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => Self::Reference(text()),
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Self::Busy,
            _ => Self::Database(error.into()),
        }
    }
}

impl ToSql for Argument<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
            Self::Int(Some(number)) => ValueRef::Integer(*number),
            Self::Bool(Some(truth)) => ValueRef::Integer(i64::from(*truth)),
            Self::Text(None) | Self::Int(None) | Self::Bool(None) => ValueRef::Null,
        }))
    }
}

/// The file, with the connections that are open to it.
#[derive(Clone)]
pub(in crate::store) struct Sqlite {
    readers: Arc<Pool>,
    writer: Arc<Pool>,
}

impl Sqlite {
    /// Opens the file (made if it is missing, in its folder) and brings it to this version's schema.
    pub(in crate::store) fn open(
        file: &Path,
        durability: Durability,
        readers: usize,
        turn: Duration,
        nudge: watch::Sender<Revision>,
    ) -> Result<Self> {
        let failed = |error: std::io::Error| StoreError::Database(error.into());
        make(file).map_err(failed)?;
        let mut first = connect(file, turn)?;
        if let Some(mode) = open_to_others(file).map_err(failed)? {
            tracing::warn!(
                file = %file.display(), mode = format_args!("{mode:04o}"),
                "others than its owner can read or write the database, which holds hashes of passwords and the feed's private key: \
                 chmod 600 it, and what is beside it with -wal and -shm"
            );
        }
        super::migrate::sqlite(&mut first)?;
        let log = log_file(file).and_then(std::fs::File::open);
        let log = log.map_err(failed)?;
        let flush = move || match durability {
            Durability::Full => log.sync_data(),
            Durability::Process => Ok(()),
        };
        let flusher = Flusher::start(flush, nudge);
        let flusher = flusher.map_err(failed)?;
        let pool = |size, flusher| {
            Arc::new(Pool {
                file: file.to_owned(),
                turn,
                turns: Arc::new(Semaphore::new(size)),
                idle: Mutex::default(),
                flusher,
            })
        };
        let writer = pool(1, Some(flusher));
        writer.put(first);
        Ok(Self {
            readers: pool(readers, None),
            writer,
        })
    }

    /// One view of the data.
    pub(in crate::store) async fn read(&self) -> Result<Connection> {
        self.readers.begin("BEGIN", None).await
    }

    /// The writer's turn.
    pub(in crate::store) async fn write(&self) -> Result<Connection> {
        if let Some(flusher) = &self.writer.flusher {
            flusher.check()?;
        }
        let writer = self.writer.flusher.as_ref().map(Flusher::writer);
        self.writer.begin("BEGIN IMMEDIATE", writer).await
    }

    /// Closes what is open.
    pub(in crate::store) fn close(&self) {
        for pool in [&self.readers, &self.writer] {
            pool.turns.close();
            pool.lock().clear();
        }
    }
}

/// Makes the file if it is missing, for its owner alone: SQLite would let everybody read it. It gives its log and index the
/// file's mode.
fn make(file: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    // One that exists must not even be opened: closing it would give up SQLite's locks of this process.
    match options.write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The file's mode, if others than its owner can read or write it.
fn open_to_others(file: &Path) -> std::io::Result<Option<u32>> {
    let mode = std::fs::metadata(file)?.permissions().mode() & 0o7777;
    Ok((mode & 0o066 != 0).then_some(mode))
}

/// A new connection to the file.
fn connect(file: &Path, turn: Duration) -> Result<rusqlite::Connection> {
    let conn = rusqlite::Connection::open(file)?;
    conn.busy_timeout(turn)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    // The log is flushed before it goes into the file, and when it begins anew. That no commit is lost is the flusher's.
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(conn)
}

/// SQLite's log, beside its file.
fn log_file(file: &Path) -> std::io::Result<PathBuf> {
    let name = file
        .file_name()
        .ok_or(std::io::ErrorKind::InvalidFilename)?;
    let mut log = name.to_owned();
    log.push("-wal");
    Ok(file.with_file_name(log))
}

struct Pool {
    file: PathBuf,
    turn: Duration,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<rusqlite::Connection>>,
    /// The writer's.
    flusher: Option<Flusher>,
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<rusqlite::Connection>> {
        // Pushing and popping leave no half-made state.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, conn: rusqlite::Connection) {
        if !self.turns.is_closed() {
            self.lock().push(conn);
        }
    }

    async fn begin(self: &Arc<Self>, begin: &str, writer: Option<Writer>) -> Result<Connection> {
        let turn = tokio::time::timeout(self.turn, self.turns.clone().acquire_owned())
            .await
            .map_err(|_elapsed| StoreError::Busy)?
            .map_err(|closed| StoreError::Database(closed.into()))?;
        let idle = self.lock().pop();
        let conn = match idle {
            Some(conn) => conn,
            None => connect(&self.file, self.turn)?,
        };
        let conn = Connection {
            conn: Some(conn),
            pool: self.clone(),
            writer,
            _turn: turn,
        };
        conn.raw()?.prepare_cached(begin)?.raw_execute()?;
        Ok(conn)
    }
}

/// A connection within a transaction.
pub(in crate::store) struct Connection {
    conn: Option<rusqlite::Connection>,
    pool: Arc<Pool>,
    /// The writer's.
    writer: Option<Writer>,
    _turn: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else {
            return;
        };
        // A connection that cannot even undo is closed, which undoes too.
        if conn.is_autocommit() || conn.execute_batch("ROLLBACK").is_ok() {
            self.pool.put(conn);
        }
    }
}

impl Connection {
    fn raw(&self) -> Result<&rusqlite::Connection> {
        let gone = || StoreError::Database("the connection was given back".into());
        self.conn.as_ref().ok_or_else(gone)
    }

    /// Commits, and waits until that is safe.
    pub(super) async fn commit(mut self, revision: Option<i64>) -> Result<()> {
        let pool = self.pool.clone();
        self.raw()?.prepare_cached("COMMIT")?.raw_execute()?;
        let (Some(flusher), Some(writer)) = (&pool.flusher, self.writer.take()) else {
            return Ok(());
        };
        let number = writer.committed(revision);
        // The next writer's turn.
        drop(self);
        flusher.safe(number).await
    }

    fn statement(
        &self,
        sql: &str,
        arguments: &[Argument<'_>],
    ) -> Result<rusqlite::CachedStatement<'_>> {
        // SQLite numbers `$2` by where it first stands and not by its name, which it finds by looking through all of
        // them; `?2` is the second. No statement has a `$` that is not a place.
        let mut statement = self.raw()?.prepare_cached(&sql.replace('$', "?"))?;
        for place in 1..=statement.parameter_count() {
            let argument = arguments
                .get(place - 1)
                .ok_or_else(|| StoreError::Database(format!("nothing bound in {sql}").into()))?;
            statement.raw_bind_parameter(place, argument)?;
        }
        Ok(statement)
    }

    pub(super) fn execute(&self, sql: &str, arguments: &[Argument<'_>]) -> Result<u64> {
        let written = self.statement(sql, arguments)?.raw_execute()?;
        Ok(written as u64)
    }

    pub(super) fn fetch<T>(
        &self,
        sql: &str,
        arguments: &[Argument<'_>],
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.statement(sql, arguments)?;
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(&Row::Sqlite(row))?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(file: &Path) -> Result<Sqlite> {
        let nudge = watch::Sender::new(Revision(0));
        Sqlite::open(file, Durability::Process, 1, Duration::from_secs(20), nudge)
    }

    #[test]
    fn only_its_owner_reads_what_is_made_and_another_mode_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), everybody).unwrap();
        let file = folder.path().join("weft.sqlite");
        let sqlite = open(&file).unwrap();
        for name in ["weft.sqlite", "weft.sqlite-wal", "weft.sqlite-shm"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap();
            assert_eq!(mode.permissions().mode() & 0o7777, 0o600, "{name}");
        }
        assert_eq!(open_to_others(&file).unwrap(), None);
        sqlite.close();
        // As versions before made it: it is opened as it is.
        for mode in [0o644, 0o640, 0o620] {
            let readable = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&file, readable).unwrap();
            open(&file).unwrap();
            assert_eq!(open_to_others(&file).unwrap(), Some(mode));
        }
    }
}
