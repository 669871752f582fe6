//! Global ids: base64 of a type's name and the id within it.

use async_graphql::ID;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The global id of a thing.
pub fn global_id(kind: &str, id: &str) -> ID {
    STANDARD.encode(format!("{kind}:{id}")).into()
}
