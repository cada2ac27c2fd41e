//! What is bound to statements and what is read from rows.

use crate::store::{Result, StoreError};
use std::borrow::Cow;

/// A value for `$1`, `$2`, …; each with its kind even if it is NULL, for PostgreSQL wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument<'q> {
    /// A text.
    Text(Option<Cow<'q, str>>),
    /// A whole number.
    Int(Option<i64>),
    /// A truth value.
    Bool(Option<bool>),
}

/// What can be bound.
pub trait Bind<'q> {
    /// As it is bound.
    fn argument(self) -> Argument<'q>;
}

macro_rules! bind {
    ($($type:ty, $kind:ident, $value:ident => $to:expr;)*) => {
        $(
            impl<'q> Bind<'q> for $type {
                fn argument(self) -> Argument<'q> {
                    let $value = self;
                    Argument::$kind($to)
                }
            }
        )*
    };
}

bind! {
    &'q str, Text, v => Some(Cow::Borrowed(v));
    &'q String, Text, v => Some(Cow::Borrowed(v));
    String, Text, v => Some(Cow::Owned(v));
    Option<&'q str>, Text, v => v.map(Cow::Borrowed);
    &'q Option<String>, Text, v => v.as_deref().map(Cow::Borrowed);
    Option<String>, Text, v => v.map(Cow::Owned);
    i64, Int, v => Some(v);
    &'q i64, Int, v => Some(*v);
    Option<i64>, Int, v => v;
    &'q Option<i64>, Int, v => *v;
    bool, Bool, v => Some(v);
    &'q bool, Bool, v => Some(*v);
    Option<bool>, Bool, v => v;
    &'q Option<bool>, Bool, v => *v;
}

impl<'q> Bind<'q> for Argument<'q> {
    fn argument(self) -> Argument<'q> {
        self
    }
}

/// A row, while it is read.
pub enum Row<'r> {
    /// Of SQLite.
    Sqlite(&'r rusqlite::Row<'r>),
    /// Of PostgreSQL.
    Postgresql(&'r sqlx::postgres::PgRow),
}

impl Row<'_> {
    /// A column that is a text or NULL.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it is none.
    pub fn text(&self, column: usize) -> Result<Option<&str>> {
        match self {
            Self::Sqlite(row) => {
                let value = row.get_ref(column)?;
                value
                    .as_str_or_null()
                    .map_err(|error| StoreError::Database(error.into()))
            }
            Self::Postgresql(row) => Ok(sqlx::Row::try_get(*row, column)?),
        }
    }

    /// A column that is a whole number or NULL.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it is none.
    pub fn int(&self, column: usize) -> Result<Option<i64>> {
        match self {
            Self::Sqlite(row) => {
                let value = row.get_ref(column)?;
                value
                    .as_i64_or_null()
                    .map_err(|error| StoreError::Database(error.into()))
            }
            Self::Postgresql(row) => postgresql_int(row, column),
        }
    }

    /// A column that is a truth value or NULL.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it is none.
    pub fn bool(&self, column: usize) -> Result<Option<bool>> {
        match self {
            Self::Sqlite(_) => Ok(self.int(column)?.map(|number| number != 0)),
            Self::Postgresql(row) => Ok(sqlx::Row::try_get(*row, column)?),
        }
    }
}

/// PostgreSQL's literals and older columns are INTEGER, the rest is BIGINT.
fn postgresql_int(row: &sqlx::postgres::PgRow, column: usize) -> Result<Option<i64>> {
    use sqlx::{Column as _, Row as _, TypeInfo as _};
    Ok(match row.try_column(column)?.type_info().name() {
        "INT4" => row.try_get::<Option<i32>, _>(column)?.map(i64::from),
        "INT2" => row.try_get::<Option<i16>, _>(column)?.map(i64::from),
        _ => row.try_get(column)?,
    })
}

fn not_null<T>(value: Option<T>, column: usize) -> Result<T> {
    value.ok_or_else(|| StoreError::Database(format!("column {column} is NULL").into()))
}

/// What a column can be read as.
pub trait FromColumn: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the column is of another kind.
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self>;
}

impl FromColumn for String {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        Ok(not_null(row.text(column)?, column)?.to_owned())
    }
}

impl FromColumn for Option<String> {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        Ok(row.text(column)?.map(str::to_owned))
    }
}

impl FromColumn for i64 {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        not_null(row.int(column)?, column)
    }
}

impl FromColumn for Option<i64> {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        row.int(column)
    }
}

impl FromColumn for bool {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        not_null(row.bool(column)?, column)
    }
}

impl FromColumn for Option<bool> {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        row.bool(column)
    }
}

/// What a row can be read as.
pub trait FromRow: Sized {
    /// Reads it, column by column.
    ///
    /// # Errors
    /// [`StoreError::Database`] if a column is of another kind.
    fn from_row(row: &Row<'_>) -> Result<Self>;
}

impl<T: FromRow> FromRow for Box<T> {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        T::from_row(row).map(Self::new)
    }
}

macro_rules! tuple_from_row {
    ($($type:ident $column:literal),*) => {
        impl<$($type: FromColumn),*> FromRow for ($($type,)*) {
            fn from_row(row: &Row<'_>) -> Result<Self> {
                Ok(($($type::from_column(row, $column)?,)*))
            }
        }
    };
}

tuple_from_row!(A 0);
tuple_from_row!(A 0, B 1);
tuple_from_row!(A 0, B 1, C 2);
tuple_from_row!(A 0, B 1, C 2, D 3);
tuple_from_row!(A 0, B 1, C 2, D 3, E 4);
tuple_from_row!(A 0, B 1, C 2, D 3, E 4, F 5);
