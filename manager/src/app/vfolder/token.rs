//! Tokens that let whoever has one carry out one transfer: JSON web tokens, signed with the
//! secret that all managers share through the database.

use backendai_types::{UserId, VfolderId};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::VfolderError;
use crate::app::{Error, Result, SharedApp};

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// What may be done.
    pub op: Operation,
    /// On whose behalf: when that user loses the right, the token is good for nothing.
    pub user: UserId,
    /// In which folder.
    pub vfolder: VfolderId,
    /// With which path in it.
    pub relpath: String,
    /// The upload that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Uuid>,
    /// Whether a directory may be had as an archive.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub archive: bool,
    /// Until when, in seconds of Unix time.
    pub exp: i64,
}

/// What a token lets do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Write a file.
    Upload,
    /// Read a file, or a directory.
    Download,
}

/// A token for these claims.
///
/// # Errors
/// PostgreSQL failed.
pub async fn issue(app: &SharedApp, claims: &Claims) -> Result<String> {
    Ok(sign(&secret(app).await?, claims))
}

/// The claims of a token that is good now for an operation.
///
/// # Errors
/// It is not.
pub async fn check(app: &SharedApp, token: &str, operation: Operation) -> Result<Claims> {
    let wrong = |why: &str| Error::from(VfolderError::Transfer(format!("The token {why}.")));
    let claims = verify(&secret(app).await?, token).ok_or_else(|| wrong("is not valid"))?;
    if claims.op != operation {
        return Err(wrong("is for something else"));
    }
    if claims.exp <= chrono::Utc::now().timestamp() {
        return Err(wrong("has expired: ask for another"));
    }
    Ok(claims)
}

async fn secret(app: &SharedApp) -> Result<String> {
    let tx = app.datastore.autocommit().await?;
    let secret = tx.storage_secret().await?;
    secret.ok_or_else(|| Error::internal("sign a token", "the table storage_keys is empty"))
}

fn sign(secret: &str, claims: &Claims) -> String {
    let payload = serde_json::to_vec(claims).expect("claims have string keys");
    let signed = format!("{HEADER}.{}", BASE64.encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature))
}

fn verify(secret: &str, token: &str) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = BASE64.decode(signature).ok()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, signed.as_bytes(), &signature).ok()?;
    let payload = signed.strip_prefix(HEADER)?.strip_prefix('.')?;
    serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_as_it_was_issued_and_not_otherwise() {
        let claims = Claims {
            op: Operation::Upload,
            user: UserId::random(),
            vfolder: VfolderId::random(),
            relpath: "a/b".into(),
            session: Some(Uuid::new_v4()),
            archive: false,
            exp: 1,
        };
        let token = sign("secret", &claims);
        assert_eq!(verify("secret", &token), Some(claims.clone()));
        assert_eq!(verify("another", &token), None);
        let other = sign("secret", &Claims { relpath: "c".into(), ..claims });
        let (head, _) = other.rsplit_once('.').unwrap();
        let (_, signature) = token.rsplit_once('.').unwrap();
        assert_eq!(verify("secret", &format!("{head}.{signature}")), None);
        for bad in ["", ".", "..", "a.b.c", &token[1..], &token[..token.len() - 2]] {
            assert_eq!(verify("secret", bad), None, "{bad}");
        }
    }
}
