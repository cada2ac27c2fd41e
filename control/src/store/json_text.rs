//! A value that is stored as JSON in a TEXT column, the same in every database.

use super::sql::{Argument, Bind, FromColumn, Row};
use super::{Result, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A list or object that is only ever read and written whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonText<T>(pub T);

impl<'q, T: Serialize> Bind<'q> for &JsonText<T> {
    fn argument(self) -> Argument<'q> {
        // The types kept here are lists and maps with texts as keys: those always have a JSON. A NULL would be
        // refused by the column.
        Argument::Text(serde_json::to_string(&self.0).ok().map(Into::into))
    }
}

impl<T: DeserializeOwned> FromColumn for JsonText<T> {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        let text = row.text(column)?.unwrap_or_default();
        let value = serde_json::from_str(text);
        Ok(Self(
            value.map_err(|error| StoreError::Database(error.into()))?,
        ))
    }
}
