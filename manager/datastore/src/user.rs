//! Users, as administrators make and change them.

use backendai_types::{AccessKey, GroupId, UserId};
use uuid::Uuid;

use crate::domain::Belongings;
use crate::error::Result;
use crate::tx::Transaction;

/// A user to be made.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Short name, unique.
    pub username: String,
    /// E-mail address, unique.
    pub email: String,
    /// See [`crate::password`]; `None` refuses every password.
    pub password_hash: Option<String>,
    /// Whether the password must be changed at the next login.
    pub need_password_change: bool,
    /// Name.
    pub full_name: Option<String>,
    /// In words.
    pub description: Option<String>,
    /// `active`…
    pub status: String,
    /// Why.
    pub status_info: String,
    /// Its domain.
    pub domain_name: String,
    /// `user`…
    pub role: String,
    /// Networks it may call from; `None` is anywhere.
    pub allowed_client_ip: Option<Vec<String>>,
    /// Name of its resource policy.
    pub resource_policy: String,
    /// Whether it may become root in sessions.
    pub sudo_session_enabled: bool,
}

/// What of a user is to be changed; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// Short name.
    pub username: Option<String>,
    /// See [`crate::password`].
    pub password_hash: Option<String>,
    /// Whether the password must be changed at the next login.
    pub need_password_change: Option<bool>,
    /// Name.
    pub full_name: Option<String>,
    /// In words.
    pub description: Option<String>,
    /// `active`…
    pub status: Option<String>,
    /// Why; goes with a change of status.
    pub status_info: Option<String>,
    /// Its domain.
    pub domain_name: Option<String>,
    /// `user`…
    pub role: Option<String>,
    /// Networks it may call from; empty is anywhere.
    pub allowed_client_ip: Option<Vec<String>>,
    /// False takes the second factor away.
    pub totp_activated: Option<bool>,
    /// Name of its resource policy.
    pub resource_policy: Option<String>,
    /// Whether it may become root in sessions.
    pub sudo_session_enabled: Option<bool>,
    /// The keypair that password login hands out.
    pub main_access_key: Option<String>,
}

/// What changes of a user are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserIdentity {
    /// Its id.
    pub id: UserId,
    /// E-mail address.
    pub email: String,
    /// Its domain.
    pub domain_name: Option<String>,
    /// `user`…
    pub role: String,
    /// `active`…
    pub status: String,
    /// The keypair that password login hands out.
    pub main_access_key: Option<String>,
    /// See [`crate::password`].
    pub password_hash: Option<String>,
}

impl Transaction {
    /// The user with this address, locked against other changes until the end of the
    /// transaction.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_locked(&self, email: &str) -> Result<Option<UserIdentity>> {
        let row = self
            .query_opt(
                "-- user_locked
                SELECT uuid, email, domain_name, role, status, main_access_key, password
                FROM users WHERE email = $1 FOR UPDATE",
                &[&email],
            )
            .await?;
        row.map(|row| {
            Ok(UserIdentity {
                id: UserId(row.try_get(0)?),
                email: row.try_get(1)?,
                domain_name: row.try_get(2)?,
                role: row.try_get(3)?,
                status: row.try_get(4)?,
                main_access_key: row.try_get(5)?,
                password_hash: row.try_get(6)?,
            })
        })
        .transpose()
    }

    /// Makes a user and returns its id.
    ///
    /// # Errors
    /// The name or address is taken, or the domain or policy does not exist.
    pub async fn user_insert(&self, new: &NewUser) -> Result<UserId> {
        let row = self
            .query_one(
                "-- user_insert
                INSERT INTO users (username, email, password, need_password_change, full_name,
                    description, status, status_info, domain_name, role, allowed_client_ip,
                    resource_policy, sudo_session_enabled)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING uuid",
                &[
                    &new.username,
                    &new.email,
                    &new.password_hash,
                    &new.need_password_change,
                    &new.full_name,
                    &new.description,
                    &new.status,
                    &new.status_info,
                    &new.domain_name,
                    &new.role,
                    &new.allowed_client_ip,
                    &new.resource_policy,
                    &new.sudo_session_enabled,
                ],
            )
            .await?;
        Ok(UserId(row.try_get(0)?))
    }

    /// Changes a user.
    ///
    /// # Errors
    /// Its new name is taken, or the domain, policy or keypair does not exist.
    pub async fn user_update(&self, id: UserId, change: &UserChange) -> Result<()> {
        self.execute_one(
            "user",
            "-- user_update
            UPDATE users SET
                username = coalesce($2, username), password = coalesce($3, password),
                password_changed_at = CASE WHEN $3::text IS NULL THEN password_changed_at ELSE now() END,
                need_password_change = coalesce($4, need_password_change),
                full_name = coalesce($5, full_name), description = coalesce($6, description),
                status = coalesce($7, status), status_info = coalesce($8, status_info),
                domain_name = coalesce($9, domain_name), role = coalesce($10, role),
                allowed_client_ip = CASE WHEN $11::text[] IS NULL THEN allowed_client_ip
                                         ELSE nullif($11, '{}') END,
                totp_activated = coalesce($12, totp_activated),
                totp_activated_at = CASE WHEN NOT $12 THEN NULL ELSE totp_activated_at END,
                totp_key = CASE WHEN NOT $12 THEN NULL ELSE totp_key END,
                resource_policy = coalesce($13, resource_policy),
                sudo_session_enabled = coalesce($14, sudo_session_enabled),
                main_access_key = coalesce($15, main_access_key), modified_at = now()
            WHERE uuid = $1",
            &[
                &id.0,
                &change.username,
                &change.password_hash,
                &change.need_password_change,
                &change.full_name,
                &change.description,
                &change.status,
                &change.status_info,
                &change.domain_name,
                &change.role,
                &change.allowed_client_ip,
                &change.totp_activated,
                &change.resource_policy,
                &change.sudo_session_enabled,
                &change.main_access_key,
            ],
        )
        .await
    }

    /// Makes these groups the user's only ones; those of other domains are left out.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_set_groups(&self, id: UserId, groups: &[GroupId]) -> Result<()> {
        let groups: Vec<Uuid> = groups.iter().map(|group| group.0).collect();
        self.execute(
            "-- user_leave_groups
            DELETE FROM association_groups_users WHERE user_id = $1 AND group_id <> ALL($2)",
            &[&id.0, &groups],
        )
        .await?;
        self.execute(
            "-- user_join_groups
            INSERT INTO association_groups_users (user_id, group_id)
            SELECT u.uuid, g.id FROM users u JOIN groups g ON g.domain_name = u.domain_name
            WHERE u.uuid = $1 AND g.id = ANY($2)
            ON CONFLICT DO NOTHING",
            &[&id.0, &groups],
        )
        .await?;
        Ok(())
    }

    /// Sets whether all keypairs of a user are active or an administrator's; `None` leaves it.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_keypairs_set(
        &self,
        id: UserId,
        is_active: Option<bool>,
        is_admin: Option<bool>,
    ) -> Result<u64> {
        self.execute(
            "-- user_keypairs_set
            UPDATE keypairs SET is_active = coalesce($2, is_active),
                is_admin = coalesce($3, is_admin), modified_at = now()
            WHERE \"user\" = $1",
            &[&id.0, &is_active, &is_admin],
        )
        .await
    }

    /// Whether a keypair is the user's.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_owns_keypair(&self, id: UserId, access_key: &AccessKey) -> Result<bool> {
        let sql = "-- user_owns_keypair
                   SELECT 1 FROM keypairs WHERE access_key = $2 AND \"user\" = $1";
        Ok(self.query_opt(sql, &[&id.0, &access_key.0]).await?.is_some())
    }

    /// What a user still has.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_belongings(&self, id: UserId) -> Result<Belongings> {
        let row = self
            .query_one(
                "-- user_belongings
                SELECT count(*) FROM sessions
                WHERE user_uuid = $1 AND status NOT IN ('TERMINATED', 'CANCELLED')",
                &[&id.0],
            )
            .await?;
        Ok(Belongings { live_sessions: row.try_get(0)?, ..Belongings::default() })
    }

    /// How many live sessions, whosever, have folders of a user mounted.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_folders_mounted_by(&self, id: UserId) -> Result<i64> {
        let row = self
            .query_one(
                "-- user_folders_mounted_by
                SELECT count(DISTINCT s.id) FROM vfolders f
                JOIN session_vfolders m ON m.vfolder = f.id
                JOIN sessions s ON s.id = m.session_id
                WHERE f.\"user\" = $1 AND s.status NOT IN ('TERMINATED', 'CANCELLED')",
                &[&id.0],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Gives the folders that a user shares with others to another user. One whose name the
    /// other has already gets a part of its id into its name.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_hand_over_shared_folders(&self, from: UserId, to: UserId) -> Result<u64> {
        let handed_over = self
            .execute(
                "-- user_hand_over_shared_folders
                UPDATE vfolders f SET \"user\" = $2, name = CASE
                    WHEN EXISTS (SELECT FROM vfolders o WHERE o.\"user\" = $2 AND o.name = f.name
                                 AND o.status IN ('ready', 'performing'))
                    THEN left(f.name, 55) || '-' || left(f.id::text, 8) ELSE f.name END
                WHERE f.\"user\" = $1 AND f.status IN ('ready', 'performing')
                  AND EXISTS (SELECT FROM vfolder_permissions p WHERE p.vfolder = f.id)",
                &[&from.0, &to.0],
            )
            .await?;
        // An owner needs no share.
        let sql = "-- user_hand_over_shares
            DELETE FROM vfolder_permissions p USING vfolders f
            WHERE f.id = p.vfolder AND f.\"user\" = $1 AND p.\"user\" = $1";
        self.execute(sql, &[&to.0]).await?;
        Ok(handed_over)
    }

    /// Removes a user with its keypairs and what is left of its ended sessions. Its reported
    /// errors, templates and background tasks go with it.
    ///
    /// # Errors
    /// Something still refers to it.
    pub async fn user_delete(&self, id: UserId) -> Result<()> {
        for sql in [
            "-- user_delete_sessions
            DELETE FROM sessions WHERE user_uuid = $1
                OR access_key IN (SELECT access_key FROM keypairs WHERE \"user\" = $1)",
            "-- user_delete_keypairs
            DELETE FROM keypairs WHERE \"user\" = $1",
            "-- user_delete
            DELETE FROM users WHERE uuid = $1",
        ] {
            self.execute(sql, &[&id.0]).await?;
        }
        Ok(())
    }
}
