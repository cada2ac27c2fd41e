//! PostgreSQL, over a socket: several servers may share one database.
//!
//! Guarantees: transactions that write come one after the other, over all servers, and each sees all that was
//! committed before it; a server that dies or is cut off within one holds up the others no longer than
//! [`IDLE_MAX`]; every server hears of a commit at once, or within [`POLL`] if the message is lost.

use super::value::{Argument, Row};
use crate::store::{Durability, Result, StoreError};
use sqlx::error::ErrorKind;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions,
};
use sqlx::{Arguments as _, Connection as _, Postgres, SqlStr, Transaction};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use weft_model::Revision;

/// Statements that a connection keeps prepared.
const STATEMENTS_CACHED: usize = 512;
/// Writers of this server that hold a connection: one at work, and one that waits for the lock, so that it can go on
/// at once. The others wait here.
const WRITERS: usize = 2;
/// How long a transaction may do nothing, and a statement may take, in the words of PostgreSQL.
const IDLE_MAX: &str = "30s";
/// How long a statement waits for a lock.
const LOCK_WAIT_MAX: &str = "10s";
/// A connection that was idle for longer is tried before it is used.
const TRUST: Duration = Duration::from_secs(1);
/// Between two looks at the revision, should a message have been lost.
const POLL: Duration = Duration::from_secs(5);
/// Between two tries while the server does not answer.
const RETRY: Duration = Duration::from_millis(500);
/// Where commits are told.
const CHANNEL: &str = "weft_revision";
/// Where servers speak to each other.
const WORDS: &str = "weft_words";
/// Words that a listener may be behind.
const WORDS_KEPT: usize = 1_024;
/// The number is "weft" in ASCII: of this database's advisory locks, the one that writers take.
const BEGIN_WRITE: &str = "BEGIN; SELECT pg_advisory_xact_lock(2003134068)";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(db) => match db.kind() {
                ErrorKind::UniqueViolation => Self::Conflict(db.message().to_owned()),
                ErrorKind::ForeignKeyViolation => Self::Reference(db.message().to_owned()),
                _ if db.code().is_some_and(|code| again(&code)) => Self::Busy,
                _ => Self::Database(error.into()),
            },
            sqlx::Error::PoolTimedOut => Self::Busy,
            _ => Self::Database(error.into()),
        }
    }
}

/// The SQLSTATEs after which asking again later may help.
fn again(code: &str) -> bool {
    const SERIALIZATION_FAILURE: &str = "40001";
    const DEADLOCK_DETECTED: &str = "40P01";
    const TOO_MANY_CONNECTIONS: &str = "53300";
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    const QUERY_CANCELED: &str = "57014";
    [
        SERIALIZATION_FAILURE,
        DEADLOCK_DETECTED,
        TOO_MANY_CONNECTIONS,
        LOCK_NOT_AVAILABLE,
        QUERY_CANCELED,
    ]
    .contains(&code)
}

/// A server's database, with the connections that are open to it.
#[derive(Clone)]
pub(in crate::store) struct Postgresql {
    pool: PgPool,
    writers: Arc<Semaphore>,
    turn: Duration,
    nudge: watch::Sender<Revision>,
    words: broadcast::Sender<Arc<str>>,
}

impl Postgresql {
    /// Connects and brings the database to this version's schema.
    pub(in crate::store) async fn open(
        url: &str,
        durability: Durability,
        connections: u32,
        turn: Duration,
        nudge: watch::Sender<Revision>,
    ) -> Result<Self> {
        let synchronous = match durability {
            Durability::Full => "on",
            Durability::Process => "off",
        };
        let options = url
            .parse::<PgConnectOptions>()?
            .application_name("weft")
            .statement_cache_capacity(STATEMENTS_CACHED)
            .options([
                ("synchronous_commit", synchronous),
                ("lock_timeout", LOCK_WAIT_MAX),
                ("statement_timeout", IDLE_MAX),
                ("idle_in_transaction_session_timeout", IDLE_MAX),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(turn)
            .test_before_acquire(false)
            .before_acquire(|conn, idle| {
                Box::pin(async move {
                    if idle.idle_for > TRUST {
                        PgConnection::ping(conn).await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options.clone())
            .await;
        let pool = match pool {
            // It went on trying until the time was over: once more, to hear why.
            Err(sqlx::Error::PoolTimedOut) => {
                let why = PgConnection::connect_with(&options).await.err();
                return Err(why.map_or(StoreError::Busy, StoreError::from));
            }
            pool => pool?,
        };
        super::migrate::postgresql(&pool).await?;
        Ok(Self {
            pool,
            writers: Arc::new(Semaphore::new(WRITERS)),
            turn,
            nudge,
            words: broadcast::Sender::new(WORDS_KEPT),
        })
    }

    /// One view of the data.
    pub(in crate::store) async fn read(&self) -> Result<Connection> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        Ok(Connection {
            tx: self.pool.begin_with(begin).await?,
            nudge: self.nudge.clone(),
            _writer: None,
        })
    }

    /// A transaction that writes.
    pub(in crate::store) async fn write(&self) -> Result<Connection> {
        let writer = tokio::time::timeout(self.turn, self.writers.clone().acquire_owned())
            .await
            .map_err(|_elapsed| StoreError::Busy)?
            .map_err(|closed| StoreError::Database(closed.into()))?;
        Ok(Connection {
            tx: self.pool.begin_with(BEGIN_WRITE).await?,
            nudge: self.nudge.clone(),
            _writer: Some(writer),
        })
    }

    /// Tells of the commits of all servers, until the pool is closed.
    pub(in crate::store) async fn listen(self) {
        while let Err(error) = self.listen_until_error().await {
            if self.pool.is_closed() {
                return;
            }
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the other servers' changes are not heard of; trying again"
            );
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn listen_until_error(&self) -> Result<()> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen_all([CHANNEL, WORDS]).await?;
        loop {
            // First what was committed before it listened, or while the connection was lost.
            let now: i64 = sqlx::query_scalar("SELECT revision FROM control_state WHERE id = 1")
                .fetch_one(&self.pool)
                .await?;
            heard(&self.nudge, now);
            while let Ok(told) = tokio::time::timeout(POLL, listener.try_recv()).await {
                let Some(told) = told? else {
                    break;
                };
                if told.channel() == WORDS {
                    // Nobody may listen.
                    drop(self.words.send(told.payload().into()));
                } else if let Ok(revision) = told.payload().parse() {
                    heard(&self.nudge, revision);
                }
            }
        }
    }

    /// What the servers say to each other from now on.
    pub(in crate::store) fn words(&self) -> broadcast::Receiver<Arc<str>> {
        self.words.subscribe()
    }

    /// Says something to all servers.
    pub(in crate::store) async fn say(&self, word: &str) -> Result<()> {
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(WORDS)
            .bind(word)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Closes what is open.
    pub(in crate::store) async fn close(&self) {
        self.pool.close().await;
    }
}

fn heard(nudge: &watch::Sender<Revision>, revision: i64) {
    crate::store::nudge(nudge, Revision(revision.unsigned_abs()));
}

/// A connection within a transaction.
pub(in crate::store) struct Connection {
    tx: Transaction<'static, Postgres>,
    nudge: watch::Sender<Revision>,
    _writer: Option<OwnedSemaphorePermit>,
}

fn bound(arguments: Vec<Argument<'_>>) -> Result<PgArguments> {
    let mut bound = PgArguments::default();
    for argument in arguments {
        match argument {
            Argument::Text(text) => bound.add(text.map(std::borrow::Cow::into_owned)),
            Argument::Int(number) => bound.add(number),
            Argument::Bool(truth) => bound.add(truth),
        }
        .map_err(StoreError::Database)?;
    }
    Ok(bound)
}

impl Connection {
    /// Commits, and tells all servers that this revision is there.
    pub(super) async fn commit(mut self, revision: Option<i64>) -> Result<()> {
        if let Some(revision) = revision {
            sqlx::query("SELECT pg_notify($1, $2)")
                .bind(CHANNEL)
                .bind(revision.to_string())
                .execute(&mut *self.tx)
                .await?;
        }
        self.tx.commit().await?;
        if let Some(revision) = revision {
            // The message comes too, if the listener's connection lives.
            heard(&self.nudge, revision);
        }
        Ok(())
    }

    pub(super) async fn execute(
        &mut self,
        sql: SqlStr,
        arguments: Vec<Argument<'_>>,
    ) -> Result<u64> {
        let done = sqlx::query_with(sql, bound(arguments)?)
            .execute(&mut *self.tx)
            .await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn fetch<T>(
        &mut self,
        sql: SqlStr,
        arguments: Vec<Argument<'_>>,
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let rows = sqlx::query_with(sql, bound(arguments)?)
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(|row| read(&Row::Postgresql(row))).collect()
    }
}
