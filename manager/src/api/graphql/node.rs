//! Global ids: base64 of a type's name and the id within it.

use async_graphql::{Error, ID, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The global id of a thing.
pub fn global_id(kind: &str, id: &str) -> ID {
    STANDARD.encode(format!("{kind}:{id}")).into()
}

/// Type and id of a global id.
///
/// # Errors
/// It is none.
pub fn parse(id: &str) -> Result<(String, String)> {
    let decoded = STANDARD.decode(id).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let parts = decoded.as_deref().and_then(|text| text.split_once(':'));
    parts
        .map(|(kind, id)| (kind.to_owned(), id.to_owned()))
        .ok_or_else(|| Error::new("id: not a global id"))
}

/// The id within a type.
///
/// # Errors
/// It is no global id, or one of another type.
pub fn of_kind(id: &str, kind: &str) -> Result<String> {
    match parse(id)? {
        (found, id) if found == kind => Ok(id),
        _ => Err(Error::new(format!("id: not that of a {kind}"))),
    }
}
