//! One way to say SQL to two databases: SQLite in this process, PostgreSQL over a socket.
//!
//! Guarantees: the same text (with `$1`, `$2`, … for what is bound) runs on both; only texts, whole numbers and
//! truth values are bound and read, which both keep alike; an error is a [`StoreError`](super::StoreError) of the
//! same kind on both. Rows are read by place, in the order of the SELECT.
//!
//! It keeps no SQL of its own and hides no difference of dialect: whoever writes a statement writes it so that both
//! understand it (docs/adr/0004).

mod flush;
mod migrate;
mod postgresql;
mod sqlite;
mod value;

pub(super) use postgresql::Postgresql;
pub(super) use sqlite::Sqlite;
pub use sqlx::AssertSqlSafe;
pub use value::{Argument, Bind, FromColumn, FromRow, Row};

use super::{Result, StoreError};
use sqlx::{SqlSafeStr, SqlStr};
use std::marker::PhantomData;

/// A connection within a transaction: what every read function takes, so that several reads can share one view of
/// the data. Dropped, it undoes the transaction.
pub struct Conn(pub(super) Kind);

pub(super) enum Kind {
    Sqlite(sqlite::Connection),
    Postgresql(postgresql::Connection),
}

impl Conn {
    /// Commits; `revision` is the one that the transaction took, which whoever waits for changes is told of.
    pub(super) async fn commit(self, revision: Option<i64>) -> Result<()> {
        match self.0 {
            Kind::Sqlite(conn) => conn.commit(revision).await,
            Kind::Postgresql(conn) => conn.commit(revision).await,
        }
    }
}

/// A statement with what is bound to it.
pub struct Query<'q> {
    sql: SqlStr,
    arguments: Vec<Argument<'q>>,
    nul: bool,
}

/// A statement.
pub fn query<'q>(sql: impl SqlSafeStr) -> Query<'q> {
    Query {
        sql: sql.into_sql_str(),
        arguments: Vec::new(),
        nul: false,
    }
}

/// A statement whose rows are a type's.
pub fn query_as<'q, T: FromRow>(sql: impl SqlSafeStr) -> QueryAs<'q, T> {
    QueryAs(query(sql), PhantomData)
}

/// A statement whose rows have one column.
pub fn query_scalar<'q, T: FromColumn>(sql: impl SqlSafeStr) -> QueryScalar<'q, T> {
    QueryScalar(query_as(sql))
}

impl<'q> Query<'q> {
    /// Binds the next of `$1`, `$2`, …
    #[must_use]
    pub fn bind(mut self, value: impl Bind<'q>) -> Self {
        let value = value.argument();
        self.nul |= matches!(&value, Argument::Text(Some(text)) if text.contains('\0'));
        self.arguments.push(value);
        self
    }

    /// The statement and what is bound to it.
    fn parts(self) -> Result<(SqlStr, Vec<Argument<'q>>)> {
        if self.nul {
            // PostgreSQL has no such text, so SQLite is not asked for one either.
            return Err(StoreError::Nul);
        }
        Ok((self.sql, self.arguments))
    }

    /// Runs it, and answers how many rows it wrote.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn execute(self, conn: &mut Conn) -> Result<u64> {
        let (sql, arguments) = self.parts()?;
        match &mut conn.0 {
            Kind::Sqlite(conn) => conn.execute(sql.as_str(), &arguments),
            Kind::Postgresql(conn) => conn.execute(sql, arguments).await,
        }
    }
}

/// A [`Query`] that is read as `T`s.
pub struct QueryAs<'q, T>(Query<'q>, PhantomData<fn() -> T>);

impl<'q, T: FromRow> QueryAs<'q, T> {
    /// Binds the next of `$1`, `$2`, …
    #[must_use]
    pub fn bind(self, value: impl Bind<'q>) -> Self {
        Self(self.0.bind(value), PhantomData)
    }

    /// All rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fetch_all(self, conn: &mut Conn) -> Result<Vec<T>> {
        let (sql, arguments) = self.0.parts()?;
        match &mut conn.0 {
            Kind::Sqlite(conn) => conn.fetch(sql.as_str(), &arguments, T::from_row),
            Kind::Postgresql(conn) => conn.fetch(sql, arguments, T::from_row).await,
        }
    }

    /// The first row, if there is one. The statement should not have many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fetch_optional(self, conn: &mut Conn) -> Result<Option<T>> {
        Ok(self.fetch_all(conn).await?.into_iter().next())
    }

    /// The first row.
    ///
    /// # Errors
    /// [`StoreError::Database`] also if there is none.
    pub async fn fetch_one(self, conn: &mut Conn) -> Result<T> {
        let row = self.fetch_optional(conn).await?;
        row.ok_or_else(|| StoreError::Database("no row where one must be".into()))
    }
}

/// A [`Query`] whose only column is read as `T`s.
pub struct QueryScalar<'q, T>(QueryAs<'q, (T,)>);

impl<'q, T: FromColumn> QueryScalar<'q, T> {
    /// Binds the next of `$1`, `$2`, …
    #[must_use]
    pub fn bind(self, value: impl Bind<'q>) -> Self {
        Self(self.0.bind(value))
    }

    /// The column of all rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fetch_all(self, conn: &mut Conn) -> Result<Vec<T>> {
        let rows = self.0.fetch_all(conn).await?;
        Ok(rows.into_iter().map(|(value,)| value).collect())
    }

    /// The first row's column, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fetch_optional(self, conn: &mut Conn) -> Result<Option<T>> {
        Ok(self.0.fetch_optional(conn).await?.map(|(value,)| value))
    }

    /// The first row's column.
    ///
    /// # Errors
    /// [`StoreError::Database`] also if there is none.
    pub async fn fetch_one(self, conn: &mut Conn) -> Result<T> {
        Ok(self.0.fetch_one(conn).await?.0)
    }
}

/// Declares a struct whose fields are, in order, the columns of a SELECT: a [`FromRow`].
macro_rules! record {
    (
        $(#[$doc:meta])*
        pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $type:ty,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        crate::store::sql::from_row!($name { $($field),* });
    };
}

/// The [`FromRow`] of a struct, its fields being the columns in order.
macro_rules! from_row {
    ($name:ident { $($field:ident),* }) => {
        impl crate::store::sql::FromRow for $name {
            fn from_row(row: &crate::store::sql::Row<'_>) -> crate::store::Result<Self> {
                // Fields are evaluated as they are written.
                let mut columns = 0..;
                let mut column = || columns.next().unwrap_or(usize::MAX);
                Ok(Self {
                    $($field: crate::store::sql::FromColumn::from_column(row, column())?,)*
                })
            }
        }
    };
}
pub(super) use {from_row, record};
