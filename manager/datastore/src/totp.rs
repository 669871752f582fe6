//! Second factors of users.

use backendai_types::UserId;

use crate::error::Result;
use crate::tx::Transaction;

/// The second factor of a user.
#[derive(Clone, Default)]
pub struct Totp {
    /// The key in base32, if there is one. Never logged.
    pub key: Option<String>,
    /// Whether logins ask for codes.
    pub is_active: bool,
}

impl Transaction {
    /// The second factor of a user; none if there is no such user.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn totp_of(&self, user: UserId) -> Result<Totp> {
        let sql = "-- totp_of
                   SELECT totp_key, totp_activated FROM users WHERE uuid = $1";
        let row = self.query_opt(sql, &[&user.0]).await?;
        Ok(match row {
            Some(row) => Totp { key: row.try_get(0)?, is_active: row.try_get(1)? },
            None => Totp::default(),
        })
    }

    /// Gives a user a key that does not count yet; false if one counts already.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn totp_begin(&self, user: UserId, key: &str) -> Result<bool> {
        let sql = "-- totp_begin
                   UPDATE users SET totp_key = $2 WHERE uuid = $1 AND NOT totp_activated";
        Ok(self.execute(sql, &[&user.0, &key]).await? == 1)
    }

    /// Makes a user's key count.
    ///
    /// # Errors
    /// There is no such user.
    pub async fn totp_activate(&self, user: UserId) -> Result<()> {
        let sql = "-- totp_activate
                   UPDATE users SET totp_activated = true, totp_activated_at = now(),
                       modified_at = now() WHERE uuid = $1";
        self.execute_one("user", sql, &[&user.0]).await
    }

    /// Takes a user's key away; false if there is no such user.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn totp_remove(&self, email: &str) -> Result<bool> {
        let sql = "-- totp_remove
                   UPDATE users SET totp_key = NULL, totp_activated = false,
                       totp_activated_at = NULL, modified_at = now() WHERE email = $1";
        Ok(self.execute(sql, &[&email]).await? == 1)
    }
}
