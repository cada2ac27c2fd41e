//! A value that is stored as JSON in a TEXT column, the same in every database.

use super::Db;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Encode, Type};

/// A list or object that is only ever read and written whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonText<T>(pub T);

impl<T> Type<Db> for JsonText<T> {
    fn type_info() -> <Db as Database>::TypeInfo {
        <String as Type<Db>>::type_info()
    }
}

impl<'q, T: Serialize> Encode<'q, Db> for JsonText<T> {
    fn encode_by_ref(
        &self,
        buf: &mut <Db as Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        let text = serde_json::to_string(&self.0)?;
        <String as Encode<'q, Db>>::encode(text, buf)
    }
}

impl<'r, T: DeserializeOwned> Decode<'r, Db> for JsonText<T> {
    fn decode(value: <Db as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        let text = <&str as Decode<'r, Db>>::decode(value)?;
        Ok(Self(serde_json::from_str(text)?))
    }
}
