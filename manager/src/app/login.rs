//! Keys for a password.

use backendai_types::AccessKey;
use chrono::Utc;

use super::{Result, SharedApp, account, password, totp};

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
    /// The password is older than the site allows.
    #[error("The password has expired: change it with `update-password-no-auth`.")]
    Expired,
    /// The account has a second factor, and no code came.
    #[error("OTP not provided")]
    NoCode,
    /// The code is not one of the account's.
    #[error("Invalid TOTP code provided.")]
    WrongCode,
}

/// Checks the password of a user, and the code of those who have a second factor.
///
/// # Errors
/// PostgreSQL is not available, or the stored hash cannot be read.
pub async fn with_password(
    app: &SharedApp,
    domain: &str,
    email: &str,
    password: String,
    code: Option<&str>,
) -> Result<Result<Login, Refusal>> {
    let found = app.datastore.autocommit().await?.login(domain, email).await?;
    let hash = found.as_ref().and_then(|user| user.password_hash.clone());
    let matches = password::check(password, hash).await?;
    let Some(user) = found.filter(|_| matches) else {
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
    let age = Utc::now() - user.password_changed_at;
    if account::max_password_age(app).await?.is_some_and(|most| age > most) {
        return Ok(Err(Refusal::Expired));
    }
    let factor = app.datastore.autocommit().await?.totp_of(user.user_id).await?;
    if let Some(key) = factor.key.filter(|_| factor.is_active) {
        match code.map(str::trim).filter(|code| !code.is_empty()) {
            None => return Ok(Err(Refusal::NoCode)),
            Some(code) if !totp::verify(&key, code, Utc::now()) => {
                return Ok(Err(Refusal::WrongCode));
            }
            Some(_) => {}
        }
    }
    Ok(Ok(Login { access_key, secret_key, role: user.role, status: user.status }))
}
