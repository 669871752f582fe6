//! Keypairs: made, changed and removed by superadmins.

use backendai_datastore::keypair::{KeypairChange, KeypairRemoval, NewKeypair};
use backendai_datastore::keypair_view::KeypairView;
use backendai_datastore::user::UserIdentity;
use backendai_types::{AccessKey, UserId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Error, Result, SharedApp};
use crate::ssh_key;

/// The alphabet of access keys.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Policy of keypairs that come with a user.
const DEFAULT_POLICY: &str = "default";

/// A random access key (`AKIA` and 16 base32 characters) and secret key (40 characters).
pub fn new_api_keypair() -> (String, String) {
    let letters = rand::random::<[u8; 16]>();
    let letters = letters.map(|byte| char::from(BASE32[usize::from(byte % 32)]));
    let access_key = format!("AKIA{}", String::from_iter(letters));
    let secret_key = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 30]>());
    (access_key, secret_key)
}

/// A new keypair of a user, with ssh keys of its own; not stored yet.
pub fn draft(user_id: UserId, email: &str, is_admin: bool, rate_limit: i32) -> NewKeypair {
    let (access_key, secret_key) = new_api_keypair();
    let (ssh_public_key, ssh_private_key) = ssh_key::generate(&format!("{access_key}@backend.ai"));
    NewKeypair {
        access_key: AccessKey(access_key),
        secret_key,
        user_id,
        email: email.to_owned(),
        is_active: true,
        is_admin,
        resource_policy: DEFAULT_POLICY.to_owned(),
        rate_limit,
        ssh_public_key: format!("{}\n", ssh_public_key.trim_end()),
        ssh_private_key,
    }
}

/// What a new keypair is asked to be.
#[derive(Clone, Debug)]
pub struct KeypairWish {
    /// Whether it may be used.
    pub is_active: bool,
    /// True for administrators' keypairs.
    pub is_admin: bool,
    /// Name of its resource policy.
    pub resource_policy: String,
    /// Calls in a rolling window of 900 s.
    pub rate_limit: i32,
}

/// Makes a keypair for the user with this address.
///
/// # Errors
/// There is no such user or policy.
pub async fn create(app: &SharedApp, email: &str, wish: KeypairWish) -> Result<KeypairView> {
    let KeypairWish { is_active, is_admin, resource_policy, rate_limit } = wish;
    check_rate_limit(Some(rate_limit))?;
    let user: Option<UserIdentity> = app.datastore.autocommit().await?.user_locked(email).await?;
    let user = user.ok_or_else(|| Error::NotFound { object: "user", message: None })?;
    let new = NewKeypair {
        is_active,
        resource_policy,
        ..draft(user.id, &user.email, is_admin, rate_limit)
    };
    let db = app.datastore.autocommit().await?;
    db.keypair_insert(&new).await?;
    db.keypair_view(new.access_key.as_str(), None).await?.ok_or_else(missing)
}

/// Changes a keypair.
///
/// # Errors
/// There is none, or no such policy.
pub async fn modify(app: &SharedApp, key: &AccessKey, change: KeypairChange) -> Result<()> {
    check_rate_limit(change.rate_limit)?;
    match app.datastore.autocommit().await?.keypair_update(key, &change).await? {
        true => Ok(()),
        false => Err(missing()),
    }
}

/// Removes a keypair that never had a session.
///
/// # Errors
/// There is none, it is its user's main one, or sessions were made with it.
pub async fn delete(app: &SharedApp, key: &AccessKey) -> Result<()> {
    let removal = app
        .datastore
        .run_tx("keypair_delete", |tx| {
            let key = key.clone();
            async move { Ok::<_, Error>(tx.keypair_delete(&key).await?) }
        })
        .await?;
    match removal {
        KeypairRemoval::Removed => Ok(()),
        KeypairRemoval::Missing => Err(missing()),
        KeypairRemoval::IsMain => {
            Err(Error::BadRequest("the keypair is used as main access key by any user".into()))
        }
    }
}

fn check_rate_limit(limit: Option<i32>) -> Result<()> {
    match limit {
        Some(limit) if limit < 0 => {
            Err(Error::BadRequest("rate_limit must not be negative".into()))
        }
        _ => Ok(()),
    }
}

fn missing() -> Error {
    Error::NotFound { object: "keypair", message: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_keys_have_the_documented_form() {
        let (access_key, secret_key) = new_api_keypair();
        assert_eq!((access_key.len(), secret_key.len()), (20, 40));
        assert!(access_key.starts_with("AKIA"));
        assert!(access_key.bytes().skip(4).all(|c| BASE32.contains(&c)), "{access_key}");
        assert_ne!(new_api_keypair().0, access_key);
    }
}
