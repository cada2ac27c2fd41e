//! PostgreSQL, over a socket: several servers may share one database.

use super::value::{Argument, Row};
use crate::store::{Result, StoreError};
use sqlx::error::ErrorKind;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Arguments as _, Postgres, SqlStr, Transaction};
use std::time::Duration;

/// Statements that a connection keeps prepared.
const STATEMENTS_CACHED: usize = 512;

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
}

impl Postgresql {
    /// Connects and brings the database to this version's schema.
    pub(in crate::store) async fn open(
        url: &str,
        connections: u32,
        turn: Duration,
    ) -> Result<Self> {
        let options: PgConnectOptions = url.parse()?;
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(turn)
            .connect_with(options.statement_cache_capacity(STATEMENTS_CACHED))
            .await?;
        super::migrate::postgresql(&pool).await?;
        Ok(Self { pool })
    }

    /// One view of the data.
    pub(in crate::store) async fn read(&self) -> Result<Connection> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        Ok(Connection(self.pool.begin_with(begin).await?))
    }

    /// A transaction that writes.
    pub(in crate::store) async fn write(&self) -> Result<Connection> {
        Ok(Connection(self.pool.begin().await?))
    }

    /// Closes what is open.
    pub(in crate::store) async fn close(&self) {
        self.pool.close().await;
    }
}

/// A connection within a transaction.
pub(in crate::store) struct Connection(Transaction<'static, Postgres>);

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
    pub(super) async fn commit(self) -> Result<()> {
        Ok(self.0.commit().await?)
    }

    pub(super) async fn execute(
        &mut self,
        sql: SqlStr,
        arguments: Vec<Argument<'_>>,
    ) -> Result<u64> {
        let done = sqlx::query_with(sql, bound(arguments)?)
            .execute(&mut *self.0)
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
            .fetch_all(&mut *self.0)
            .await?;
        rows.iter().map(|row| read(&Row::Postgresql(row))).collect()
    }
}
