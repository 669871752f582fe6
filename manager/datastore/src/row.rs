//! Reading columns that have a type of ours.

use std::str::FromStr;

use backendai_types::ResourceSlots;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_postgres::Row;

use crate::error::{DatastoreError, Result};

/// A text column that names a variant or holds an id.
pub(crate) fn parsed<T: FromStr<Err: std::fmt::Display>>(
    row: &Row,
    column: &'static str,
) -> Result<T> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|error: T::Err| malformed(column, error))
}

/// A jsonb column of a known shape.
pub(crate) fn json<T: DeserializeOwned>(row: &Row, column: &'static str) -> Result<T> {
    let value: Value = row.try_get(column)?;
    serde_json::from_value(value).map_err(|error| malformed(column, error))
}

/// A jsonb column of resource slots.
pub(crate) fn slots(row: &Row, column: &'static str) -> Result<ResourceSlots> {
    json(row, column)
}

/// A jsonb object with a value for each slot, as stored.
pub(crate) fn slots_json(slots: &ResourceSlots) -> Value {
    serde_json::to_value(slots).expect("a map of texts is always JSON")
}

pub(crate) fn malformed(column: &'static str, error: impl std::fmt::Display) -> DatastoreError {
    DatastoreError::Malformed { column, message: error.to_string() }
}
