//! Keys for a password.

use std::sync::LazyLock;

use backendai_datastore::password;
use backendai_types::AccessKey;
use tokio::sync::Semaphore;

use super::{Error, Result, SharedApp};

/// Checks of passwords at once. Each takes a core for a good part of a second, by design;
/// more would starve everything else.
static CHECKS: Semaphore = Semaphore::const_new(2);
/// What passwords of unknown users are checked against, so that the answer takes as long.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| password::hash("nobody").ok());

/// Somebody who knew the password.
#[derive(Clone)]
pub struct Login {
    /// The keypair to use from now on.
    pub access_key: AccessKey,
    /// Its secret half. Never logged.
    pub secret_key: String,
    /// The user's role.
    pub role: String,
    /// The account's status.
    pub status: String,
}

/// Why somebody may not log in; the text is the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such active user, or another password.
    #[error("User credential mismatch.")]
    Mismatch,
    /// The account waits for the user's confirmation.
    #[error("This account needs email verification.")]
    Unverified,
    /// The user has no active keypair.
    #[error("No API keypairs found.")]
    NoKeypair,
}

/// Checks the password of a user.
///
/// # Errors
/// PostgreSQL is not available, or the stored hash cannot be read.
pub async fn with_password(
    app: &SharedApp,
    domain: &str,
    email: &str,
    password: String,
) -> Result<Result<Login, Refusal>> {
    let found = app.datastore.autocommit().await?.login(domain, email).await?;
    let hash = found.as_ref().and_then(|user| user.password_hash.clone());
    let has_password = hash.is_some();
    let matches = check(password, hash).await?;
    let Some(user) = found.filter(|_| has_password && matches) else {
        return Ok(Err(Refusal::Mismatch));
    };
    match user.status.as_str() {
        "active" => {}
        "before-verification" => return Ok(Err(Refusal::Unverified)),
        _ => return Ok(Err(Refusal::Mismatch)),
    }
    let Some((access_key, secret_key)) = user.keypair else {
        return Ok(Err(Refusal::NoKeypair));
    };
    Ok(Ok(Login { access_key, secret_key, role: user.role, status: user.status }))
}

async fn check(password: String, hash: Option<String>) -> Result<bool> {
    let _turn =
        CHECKS.acquire().await.map_err(|error| Error::internal("wait for a turn", error))?;
    let work = move || match hash.or_else(|| NOBODY.clone()) {
        Some(hash) => password::verify(&password, &hash),
        None => Ok(false),
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("check a password", error))?
        .map_err(|error| Error::internal("check a password", error))
}
