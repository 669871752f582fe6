//! What a signed request is checked against.

use backendai_types::{AccessKey, GroupId, UserId};

use crate::error::Result;
use crate::tx::Transaction;

/// A keypair with its user.
#[derive(Clone)]
pub struct CredentialView {
    /// The public half.
    pub access_key: AccessKey,
    /// The secret half. Never logged.
    pub secret_key: String,
    /// True for administrators' keypairs.
    pub is_admin: bool,
    /// Calls in a rolling window of 900 s.
    pub rate_limit: i32,
    /// The keypair's user.
    pub user_id: UserId,
    /// The user's e-mail address.
    pub email: String,
    /// The user's role, as SQL spells it.
    pub role: String,
    /// False when the account is inactive, deleted or not verified yet.
    pub user_is_active: bool,
    /// The user's domain; `None` for accounts outside of all domains.
    pub domain_name: Option<String>,
    /// Networks the user may call from; empty is anywhere.
    pub allowed_client_ip: Vec<String>,
}

impl std::fmt::Debug for CredentialView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialView")
            .field("access_key", &self.access_key)
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

/// An account as password login needs it.
#[derive(Clone, Debug)]
pub struct LoginView {
    /// The user.
    pub user_id: UserId,
    /// The stored hash; `None` refuses every password.
    pub password_hash: Option<String>,
    /// `active`, `inactive`, `deleted` or `before-verification`.
    pub status: String,
    /// The user's role, as SQL spells it.
    pub role: String,
    /// When the password was set.
    pub password_changed_at: chrono::DateTime<chrono::Utc>,
    /// The keypair to hand out, main one first, then administrators': access and secret key.
    pub keypair: Option<(AccessKey, String)>,
}

impl Transaction {
    /// An active keypair with its user.
    pub async fn credential(&self, access_key: &str) -> Result<Option<CredentialView>> {
        let row = self
            .query_opt(
                "-- credential
                 SELECT k.access_key, k.secret_key, k.is_admin, k.rate_limit, u.uuid, u.email, u.role,
                        u.status = 'active', u.domain_name, coalesce(u.allowed_client_ip, '{}')
                 FROM keypairs k JOIN users u ON u.uuid = k.\"user\"
                 WHERE k.access_key = $1 AND k.is_active",
                &[&access_key],
            )
            .await?;
        Ok(row.map(|row| CredentialView {
            access_key: AccessKey(row.get(0)),
            secret_key: row.get(1),
            is_admin: row.get(2),
            rate_limit: row.get(3),
            user_id: UserId(row.get(4)),
            email: row.get(5),
            role: row.get(6),
            user_is_active: row.get(7),
            domain_name: row.get(8),
            allowed_client_ip: row.get(9),
        }))
    }

    /// The account with this address in this domain.
    pub async fn login(&self, domain: &str, email: &str) -> Result<Option<LoginView>> {
        let row = self
            .query_opt(
                "-- login
                 SELECT u.uuid, u.password, u.status, u.role, k.access_key, k.secret_key,
                        u.password_changed_at
                 FROM users u
                 LEFT JOIN LATERAL (
                     SELECT access_key, secret_key FROM keypairs
                     WHERE \"user\" = u.uuid AND is_active
                     ORDER BY access_key = u.main_access_key DESC NULLS LAST, is_admin DESC, created_at
                     LIMIT 1
                 ) k ON true
                 WHERE u.domain_name = $1 AND u.email = $2",
                &[&domain, &email],
            )
            .await?;
        Ok(row.map(|row| LoginView {
            user_id: UserId(row.get(0)),
            password_hash: row.get(1),
            status: row.get(2),
            role: row.get(3),
            password_changed_at: row.get(6),
            keypair: row
                .get::<_, Option<String>>(4)
                .zip(row.get::<_, Option<String>>(5))
                .map(|(access, secret)| (AccessKey(access), secret)),
        }))
    }

    /// Whether a user is in a group; false if there is no such group.
    pub async fn is_group_member(&self, user: UserId, group: GroupId) -> Result<bool> {
        let row = self
            .query_opt(
                "-- is_group_member
                 SELECT 1 FROM association_groups_users WHERE user_id = $1 AND group_id = $2",
                &[&user.0, &group.0],
            )
            .await?;
        Ok(row.is_some())
    }
}
