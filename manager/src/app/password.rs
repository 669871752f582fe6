//! Hashing and checking passwords without starving everything else.

use std::sync::LazyLock;

use backendai_datastore::password::{self, PasswordError};
use tokio::sync::Semaphore;

use super::{Error, Result};

/// Hashes computed at once. Each takes a core for a good part of a second, by design.
static TURNS: Semaphore = Semaphore::const_new(2);
/// What passwords of unknown users are checked against, so that the answer takes as long.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| password::hash("nobody").ok());

/// Whether a password belongs to a stored hash; never to none.
///
/// # Errors
/// The stored hash cannot be read.
pub async fn check(password: String, hash: Option<String>) -> Result<bool> {
    let has_hash = hash.is_some();
    let matches = in_turn(move || match hash.or_else(|| NOBODY.clone()) {
        Some(hash) => password::verify(&password, &hash),
        None => Ok(false),
    });
    let matches = matches.await?.map_err(|error| Error::internal("check a password", error))?;
    Ok(matches && has_hash)
}

/// The hash to store for a new password.
///
/// # Errors
/// It is empty or longer than anybody's.
pub async fn hash(password: String) -> Result<String> {
    if password.is_empty() {
        return Err(Error::invalid("The password must not be empty."));
    }
    in_turn(move || password::hash(&password)).await?.map_err(|error| match error {
        PasswordError::TooLong => Error::invalid(format!("{error}.")),
        other => Error::internal("hash a password", other),
    })
}

async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let _turn = TURNS.acquire().await.map_err(|error| Error::internal("wait for a turn", error))?;
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("compute a password's hash", error))
}
