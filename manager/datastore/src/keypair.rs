//! Keypairs, as administrators make and change them.

use backendai_types::{AccessKey, UserId};

use crate::error::Result;
use crate::tx::Transaction;

/// A keypair to be made.
#[derive(Clone)]
pub struct NewKeypair {
    /// The public half.
    pub access_key: AccessKey,
    /// The secret half. Never logged.
    pub secret_key: String,
    /// Its user.
    pub user_id: UserId,
    /// The user's e-mail address.
    pub email: String,
    /// Whether it may be used.
    pub is_active: bool,
    /// True for administrators' keypairs.
    pub is_admin: bool,
    /// Name of its resource policy.
    pub resource_policy: String,
    /// Calls in a rolling window of 900 s.
    pub rate_limit: i32,
    /// OpenSSH form.
    pub ssh_public_key: String,
    /// PEM. Never logged.
    pub ssh_private_key: String,
}

/// What of a keypair is to be changed; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct KeypairChange {
    /// Whether it may be used.
    pub is_active: Option<bool>,
    /// True for administrators' keypairs.
    pub is_admin: Option<bool>,
    /// Name of its resource policy.
    pub resource_policy: Option<String>,
    /// Calls in a rolling window of 900 s.
    pub rate_limit: Option<i32>,
}

/// What became of a keypair that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeypairRemoval {
    /// It is gone.
    Removed,
    /// There was none.
    Missing,
    /// It is the one that password login hands out.
    IsMain,
}

impl Transaction {
    /// Makes a keypair.
    ///
    /// # Errors
    /// Its policy does not exist.
    pub async fn keypair_insert(&self, new: &NewKeypair) -> Result<()> {
        self.execute_one(
            "keypair",
            "-- keypair_insert
            INSERT INTO keypairs (access_key, secret_key, \"user\", user_id, is_active, is_admin,
                resource_policy, rate_limit, ssh_public_key, ssh_private_key)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            &[
                &new.access_key.0,
                &new.secret_key,
                &new.user_id.0,
                &new.email,
                &new.is_active,
                &new.is_admin,
                &new.resource_policy,
                &new.rate_limit,
                &new.ssh_public_key,
                &new.ssh_private_key,
            ],
        )
        .await
    }

    /// Makes a keypair the one that password login hands out.
    ///
    /// # Errors
    /// There is no such user or keypair.
    pub async fn user_set_main_keypair(&self, user: UserId, key: &AccessKey) -> Result<()> {
        self.execute_one(
            "user",
            "-- user_set_main_keypair
            UPDATE users SET main_access_key = $2 WHERE uuid = $1",
            &[&user.0, &key.0],
        )
        .await
    }

    /// Changes a keypair; false if there is none.
    ///
    /// # Errors
    /// Its new policy does not exist.
    pub async fn keypair_update(&self, key: &AccessKey, change: &KeypairChange) -> Result<bool> {
        let rows = self
            .execute(
                "-- keypair_update
                UPDATE keypairs SET
                    is_active = coalesce($2, is_active), is_admin = coalesce($3, is_admin),
                    resource_policy = coalesce($4, resource_policy),
                    rate_limit = coalesce($5, rate_limit), modified_at = now()
                WHERE access_key = $1",
                &[
                    &key.0,
                    &change.is_active,
                    &change.is_admin,
                    &change.resource_policy,
                    &change.rate_limit,
                ],
            )
            .await?;
        Ok(rows == 1)
    }

    /// Removes a keypair, unless it is its user's main one.
    ///
    /// # Errors
    /// Sessions refer to it.
    pub async fn keypair_delete(&self, key: &AccessKey) -> Result<KeypairRemoval> {
        let is_main = "-- keypair_is_main
                       SELECT 1 FROM users WHERE main_access_key = $1";
        if self.query_opt(is_main, &[&key.0]).await?.is_some() {
            return Ok(KeypairRemoval::IsMain);
        }
        let delete = "-- keypair_delete
                      DELETE FROM keypairs WHERE access_key = $1";
        match self.execute(delete, &[&key.0]).await? {
            0 => Ok(KeypairRemoval::Missing),
            _ => Ok(KeypairRemoval::Removed),
        }
    }
}
