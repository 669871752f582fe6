//! Virtual folders as rows.

use backendai_types::{
    GroupId, SessionId, UsageMode, UserId, VfolderId, VfolderPermission, VfolderStatus,
};
use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

/// The constraint that a user has one folder of a name.
pub const NAME_OF_USER: &str = "vfolders_name_of_user";
/// The constraint that a group has one folder of a name.
pub const NAME_OF_GROUP: &str = "vfolders_name_of_group";

/// Whose a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfolderOwner {
    /// A user's.
    User(UserId),
    /// A group's.
    Group(GroupId),
}

impl VfolderOwner {
    /// The user, if it is one's.
    pub fn user(self) -> Option<UserId> {
        match self {
            Self::User(user) => Some(user),
            Self::Group(_) => None,
        }
    }

    /// The group, if it is one's.
    pub fn group(self) -> Option<GroupId> {
        match self {
            Self::User(_) => None,
            Self::Group(group) => Some(group),
        }
    }

    /// The owner that a quota scope is of; `None` if it is none.
    pub fn of_quota_scope(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("user", id) => id.parse().ok().map(Self::User),
            ("project", id) => id.parse().ok().map(Self::Group),
            _ => None,
        }
    }

    /// `user:<id>` or `project:<id>`: what a quota is on.
    pub fn quota_scope(self) -> String {
        match self {
            Self::User(user) => format!("user:{user}"),
            Self::Group(group) => format!("project:{group}"),
        }
    }
}

/// A folder that has an owner.
#[derive(Clone, Debug)]
pub struct Vfolder {
    /// Its id.
    pub id: VfolderId,
    /// The volume it lies on.
    pub host: String,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub owner: VfolderOwner,
    /// The owner's e-mail address, of a user's.
    pub user_email: Option<String>,
    /// The group's name, of a group's.
    pub group_name: Option<String>,
    /// E-mail address of who made it.
    pub creator: String,
    /// What it is for.
    pub usage_mode: UsageMode,
    /// What may be done with it unless somebody is given another right.
    pub permission: VfolderPermission,
    /// Whether others may copy it.
    pub cloneable: bool,
    /// Bytes it may hold.
    pub max_size: Option<i64>,
    /// Files it may hold; 0 is unlimited. Told only.
    pub max_files: i32,
    /// Files in it, as last measured.
    pub used_files: i64,
    /// Bytes in it, as last measured.
    pub used_bytes: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last used in a session.
    pub last_used: Option<DateTime<Utc>>,
    /// Where it is in its life.
    pub status: VfolderStatus,
}

/// A folder to insert.
#[derive(Clone, Debug)]
pub struct NewVfolder {
    /// See [`Vfolder`].
    pub id: VfolderId,
    /// See [`Vfolder`].
    pub host: String,
    /// See [`Vfolder`].
    pub name: String,
    /// See [`Vfolder`].
    pub owner: VfolderOwner,
    /// See [`Vfolder`].
    pub creator: String,
    /// See [`Vfolder`].
    pub usage_mode: UsageMode,
    /// See [`Vfolder`].
    pub permission: VfolderPermission,
    /// See [`Vfolder`].
    pub cloneable: bool,
    /// See [`Vfolder`].
    pub max_size: Option<i64>,
    /// The folder that its content is copied from: it cannot be used before that is done.
    pub clone_source: Option<VfolderId>,
}

/// A session that has a folder mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountingSession {
    /// Its id.
    pub id: SessionId,
    /// Its name.
    pub name: String,
    /// Its user.
    pub user_id: UserId,
}

/// A folder that is being made from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyingVfolder {
    /// Its id.
    pub id: VfolderId,
    /// The volume it lies on.
    pub host: String,
    /// The other.
    pub source: VfolderId,
    /// The volume that the other lies on.
    pub source_host: String,
    /// Whose it is.
    pub user: UserId,
}

/// A folder that is to be removed, or that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwantedVfolder {
    /// Its id.
    pub id: VfolderId,
    /// The volume it lies on.
    pub host: String,
}

impl Vfolder {
    /// Selected of `vfolders v`, with its owners.
    pub(crate) const COLUMNS: &'static str = "v.id, v.host, v.name, v.\"user\", v.\"group\", \
        v.creator, v.usage_mode, v.permission, v.cloneable, v.max_size, v.max_files, \
        v.used_files, v.used_bytes, v.created_at, v.last_used, \
        u.email AS user_email, g.name AS group_name, \
        CASE WHEN EXISTS (SELECT FROM vfolders c WHERE c.clone_source = v.id \
            AND c.status = 'performing') AND v.status = 'ready' \
            THEN 'cloning' ELSE v.status END AS status";
    /// Where the columns come from.
    pub(crate) const FROM: &'static str = "vfolders v LEFT JOIN users u ON u.uuid = v.\"user\" \
        LEFT JOIN groups g ON g.id = v.\"group\"";

    /// `None` for a folder whose owner is gone.
    pub(crate) fn from_row(row: &Row) -> Result<Option<Self>> {
        let user: Option<Uuid> = row.try_get("user")?;
        let group: Option<Uuid> = row.try_get("group")?;
        let owner = match (user, group) {
            (Some(user), _) => VfolderOwner::User(UserId(user)),
            (None, Some(group)) => VfolderOwner::Group(GroupId(group)),
            (None, None) => return Ok(None),
        };
        Ok(Some(Self {
            id: VfolderId(row.try_get("id")?),
            host: row.try_get("host")?,
            name: row.try_get("name")?,
            owner,
            user_email: row.try_get("user_email")?,
            group_name: row.try_get("group_name")?,
            creator: row.try_get("creator")?,
            usage_mode: row::parsed(row, "usage_mode")?,
            permission: row::parsed(row, "permission")?,
            cloneable: row.try_get("cloneable")?,
            max_size: row.try_get("max_size")?,
            max_files: row.try_get("max_files")?,
            used_files: row.try_get("used_files")?,
            used_bytes: row.try_get("used_bytes")?,
            created_at: row.try_get("created_at")?,
            last_used: row.try_get("last_used")?,
            status: row::parsed(row, "status")?,
        }))
    }
}

impl Transaction {
    /// Inserts a folder.
    ///
    /// # Errors
    /// `Conflict` on [`NAME_OF_USER`] or [`NAME_OF_GROUP`] when the owner has one of this
    /// name; `Reference` when the owner or the source of a copy has vanished.
    pub async fn vfolder_insert(&self, new: &NewVfolder) -> Result<()> {
        let status = if new.clone_source.is_some() { "performing" } else { "ready" };
        self.execute(
            "-- vfolder_insert
            INSERT INTO vfolders (id, host, name, \"user\", \"group\", creator, usage_mode,
                permission, cloneable, max_size, clone_source, status)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            &[
                &new.id.0,
                &new.host,
                &new.name,
                &new.owner.user().map(|user| user.0),
                &new.owner.group().map(|group| group.0),
                &new.creator,
                &new.usage_mode.as_str(),
                &new.permission.as_str(),
                &new.cloneable,
                &new.max_size,
                &new.clone_source.map(|source| source.0),
                &status,
            ],
        )
        .await?;
        Ok(())
    }

    /// A folder, whatever its status.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder(&self, id: VfolderId) -> Result<Option<Vfolder>> {
        let sql = format!(
            "-- vfolder\nSELECT {} FROM {} WHERE v.id = $1",
            Vfolder::COLUMNS,
            Vfolder::FROM
        );
        let row = self.query_opt(&sql, &[&id.0]).await?;
        Ok(row.as_ref().map(Vfolder::from_row).transpose()?.flatten())
    }

    /// How many folders count against the limit of a user.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_count(&self, user: UserId) -> Result<i64> {
        let row = self
            .query_one(
                "-- vfolder_count
                SELECT count(*) FROM vfolders WHERE \"user\" = $1
                AND status IN ('ready', 'performing')",
                &[&user.0],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Holds back other makers of folders for this user until the transaction ends, so that
    /// a limit on their number holds.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_owner_lock(&self, user: UserId) -> Result<()> {
        let sql = "-- vfolder_owner_lock\nSELECT FROM users WHERE uuid = $1 FOR NO KEY UPDATE";
        self.query_opt(sql, &[&user.0]).await?;
        Ok(())
    }

    /// Gives a folder another name.
    ///
    /// # Errors
    /// As [`Transaction::vfolder_insert`]; there is no such folder.
    pub async fn vfolder_rename(&self, id: VfolderId, name: &str) -> Result<()> {
        let sql = "-- vfolder_rename
            UPDATE vfolders SET name = $2 WHERE id = $1 AND status = 'ready'";
        self.execute_one("a folder to rename", sql, &[&id.0, &name]).await
    }

    /// Changes a folder's options, those that are given.
    ///
    /// # Errors
    /// PostgreSQL failed, or there is no such folder.
    pub async fn vfolder_set_options(
        &self,
        id: VfolderId,
        cloneable: Option<bool>,
        permission: Option<VfolderPermission>,
    ) -> Result<()> {
        let sql = "-- vfolder_set_options
            UPDATE vfolders SET cloneable = coalesce($2, cloneable),
                                permission = coalesce($3, permission) WHERE id = $1";
        let permission = permission.map(VfolderPermission::as_str);
        self.execute_one("a folder to change", sql, &[&id.0, &cloneable, &permission]).await
    }

    /// Limits a folder's size, in bytes.
    ///
    /// # Errors
    /// PostgreSQL failed, or there is no such folder.
    pub async fn vfolder_set_max_size(&self, id: VfolderId, bytes: Option<i64>) -> Result<()> {
        let sql = "-- vfolder_set_max_size\nUPDATE vfolders SET max_size = $2 WHERE id = $1";
        self.execute_one("a folder to limit", sql, &[&id.0, &bytes]).await
    }

    /// Notes what a folder holds.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_set_usage(&self, id: VfolderId, files: i64, bytes: i64) -> Result<()> {
        let sql = "-- vfolder_set_usage
            UPDATE vfolders SET used_files = $2, used_bytes = $3
            WHERE id = $1 AND (used_files, used_bytes) IS DISTINCT FROM ($2, $3)";
        self.execute(sql, &[&id.0, &files, &bytes]).await?;
        Ok(())
    }

    /// Gives a folder to another user, who needs no invitation any more.
    ///
    /// # Errors
    /// As [`Transaction::vfolder_insert`]; there is no such folder.
    pub async fn vfolder_set_user(&self, id: VfolderId, user: UserId) -> Result<()> {
        let sql = "-- vfolder_set_user
            UPDATE vfolders SET \"user\" = $2, \"group\" = NULL WHERE id = $1";
        self.execute_one("a folder to hand over", sql, &[&id.0, &user.0]).await?;
        let sql = "-- vfolder_set_user_share
            DELETE FROM vfolder_permissions WHERE vfolder = $1 AND \"user\" = $2";
        self.execute(sql, &[&id.0, &user.0]).await?;
        Ok(())
    }

    /// The live sessions that have a folder mounted. Locks the folder until the transaction
    /// ends, so that no session can mount it meanwhile.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_mounted_by_lock(&self, id: VfolderId) -> Result<Vec<MountingSession>> {
        let sql = "-- vfolder_lock\nSELECT FROM vfolders WHERE id = $1 FOR UPDATE";
        self.query_opt(sql, &[&id.0]).await?;
        let rows = self
            .query(
                "-- vfolder_mounted_by
                SELECT s.id, s.name, s.user_uuid FROM session_vfolders m
                JOIN sessions s ON s.id = m.session_id
                WHERE m.vfolder = $1 AND s.status NOT IN ('TERMINATED', 'CANCELLED')
                ORDER BY s.created_at, s.id",
                &[&id.0],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(MountingSession {
                    id: SessionId(row.try_get("id")?),
                    name: row.try_get("name")?,
                    user_id: UserId(row.try_get("user_uuid")?),
                })
            })
            .collect()
    }

    /// Moves a folder to the trash; false if it is not one that can be used.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_trash(&self, id: VfolderId) -> Result<bool> {
        let sql = "-- vfolder_trash
            UPDATE vfolders SET status = 'trashed', status_changed = now()
            WHERE id = $1 AND status = 'ready'
              AND NOT EXISTS (SELECT FROM vfolders c
                              WHERE c.clone_source = $1 AND c.status = 'performing')";
        Ok(self.execute(sql, &[&id.0]).await? > 0)
    }

    /// The folders in the trash, those deleted last first.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolders_trashed(&self) -> Result<Vec<Vfolder>> {
        let sql = format!(
            "-- vfolders_trashed
            SELECT {} FROM {} WHERE v.status = 'trashed' ORDER BY v.status_changed DESC, v.id",
            Vfolder::COLUMNS,
            Vfolder::FROM
        );
        let rows = self.query(&sql, &[]).await?;
        rows.iter().filter_map(|row| Vfolder::from_row(row).transpose()).collect()
    }

    /// Takes a folder out of the trash; false if it is not there.
    ///
    /// # Errors
    /// `Conflict` when the owner has another of its name by now.
    pub async fn vfolder_restore(&self, id: VfolderId) -> Result<bool> {
        let sql = "-- vfolder_restore
            UPDATE vfolders SET status = 'ready', status_changed = now()
            WHERE id = $1 AND status = 'trashed'";
        Ok(self.execute(sql, &[&id.0]).await? > 0)
    }

    /// Has a folder in the trash, or a copy that cannot be made, removed for good.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_purge(&self, id: VfolderId) -> Result<bool> {
        let sql = "-- vfolder_purge
            UPDATE vfolders SET status = 'deleting', status_changed = now()
            WHERE id = $1 AND status IN ('trashed', 'performing')";
        Ok(self.execute(sql, &[&id.0]).await? > 0)
    }

    /// Notes that a copy is complete. False when nobody wants it any more.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_copied(&self, id: VfolderId, files: i64, bytes: i64) -> Result<bool> {
        let sql = "-- vfolder_copied
            UPDATE vfolders SET status = 'ready', status_changed = now(), clone_source = NULL,
                                used_files = $2, used_bytes = $3
            WHERE id = $1 AND status = 'performing'";
        Ok(self.execute(sql, &[&id.0, &files, &bytes]).await? > 0)
    }

    /// Copies that are not complete.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolders_copying(&self) -> Result<Vec<CopyingVfolder>> {
        let rows = self
            .query(
                "-- vfolders_copying
                SELECT v.id, v.host, v.clone_source, s.host AS source_host, v.\"user\"
                FROM vfolders v JOIN vfolders s ON s.id = v.clone_source
                WHERE v.status = 'performing' AND v.\"user\" IS NOT NULL",
                &[],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(CopyingVfolder {
                    id: VfolderId(row.try_get("id")?),
                    host: row.try_get("host")?,
                    source: VfolderId(row.try_get("clone_source")?),
                    source_host: row.try_get("source_host")?,
                    user: UserId(row.try_get("user")?),
                })
            })
            .collect()
    }

    /// Folders whose content is to be removed: purged ones, those that were in the trash for
    /// `retention_s` seconds, and those whose owner is gone. They become `deleting`, so that
    /// none is restored while it is removed.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolders_to_remove(&self, retention_s: f64) -> Result<Vec<UnwantedVfolder>> {
        let rows = self
            .query(
                "-- vfolders_to_remove
                UPDATE vfolders SET status = 'deleting'
                WHERE (status = 'deleting'
                       OR status = 'trashed'
                          AND status_changed <= now() - $1 * interval '1 second'
                       OR num_nonnulls(\"user\", \"group\") = 0)
                  AND (status IN ('trashed', 'deleting') OR num_nonnulls(\"user\", \"group\") = 0)
                RETURNING id, host",
                &[&retention_s],
            )
            .await?;
        rows.iter().map(unwanted).collect()
    }

    /// Forgets a folder whose content is gone. Copies of it that are not complete will never
    /// be: they are to be removed.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_delete(&self, id: VfolderId) -> Result<()> {
        let sql = "-- vfolder_delete
            WITH copies AS (
                UPDATE vfolders SET status = 'deleting', status_changed = now()
                WHERE clone_source = $1 AND status = 'performing'
                  AND EXISTS (SELECT FROM vfolders WHERE id = $1 AND status = 'deleting'))
            DELETE FROM vfolders WHERE id = $1 AND status = 'deleting'";
        self.execute(sql, &[&id.0]).await?;
        Ok(())
    }

    /// Every folder there is, of every status: what should lie on the volumes. Copies that
    /// are not complete lie elsewhere.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolders_on_hosts(&self) -> Result<Vec<(UnwantedVfolder, VfolderStatus)>> {
        let sql = "-- vfolders_on_hosts\nSELECT id, host, status FROM vfolders ORDER BY host, id";
        let rows = self.query(sql, &[]).await?;
        rows.iter().map(|row| Ok((unwanted(row)?, row::parsed(row, "status")?))).collect()
    }
}

fn unwanted(row: &Row) -> Result<UnwantedVfolder> {
    Ok(UnwantedVfolder { id: VfolderId(row.try_get("id")?), host: row.try_get("host")? })
}
