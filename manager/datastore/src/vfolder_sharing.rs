//! Invitations to folders, and what came of them.

use backendai_types::vfolder::InvitationState;
use backendai_types::{GroupId, UserId, VfolderId, VfolderPermission, VfolderStatus};
use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

/// An offer to share a folder.
#[derive(Clone, Debug)]
pub struct VfolderInvitation {
    /// Its id.
    pub id: Uuid,
    /// The folder.
    pub vfolder: VfolderId,
    /// The folder's name.
    pub vfolder_name: String,
    /// E-mail address of who offers.
    pub inviter: String,
    /// E-mail address of who is offered.
    pub invitee: String,
    /// What the invitee may do.
    pub permission: VfolderPermission,
    /// What became of it.
    pub state: InvitationState,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub modified_at: Option<DateTime<Utc>>,
}

/// Which invitations that are not answered.
#[derive(Clone, Copy, Debug)]
pub enum Invitations<'a> {
    /// Those that somebody got.
    To(&'a str),
    /// Those that somebody made.
    From(&'a str),
}

/// What somebody may do with a folder of another.
#[derive(Clone, Debug)]
pub struct VfolderShare {
    /// The folder.
    pub vfolder: VfolderId,
    /// Its name.
    pub vfolder_name: String,
    /// Its status.
    pub status: VfolderStatus,
    /// E-mail address of the owner, or the group's name.
    pub owner: String,
    /// True for a group's.
    pub is_group: bool,
    /// Who may.
    pub user: UserId,
    /// That user's e-mail address.
    pub email: String,
    /// What.
    pub permission: VfolderPermission,
}

/// A user by an e-mail address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressee {
    /// The user.
    pub user: UserId,
    /// The address.
    pub email: String,
}

impl Transaction {
    /// The active users with these addresses, each with an active keypair; only members of a
    /// group, if given.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn users_addressed(
        &self,
        emails: &[String],
        group: Option<GroupId>,
    ) -> Result<Vec<Addressee>> {
        let rows = self
            .query(
                "-- users_addressed
                SELECT u.uuid, u.email FROM users u
                WHERE u.email = ANY($1) AND u.status = 'active'
                  AND EXISTS (SELECT FROM keypairs k WHERE k.\"user\" = u.uuid AND k.is_active)
                  AND ($2::uuid IS NULL OR EXISTS (
                      SELECT FROM association_groups_users m
                      WHERE m.user_id = u.uuid AND m.group_id = $2))
                ORDER BY u.email",
                &[&emails, &group.map(|group| group.0)],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Addressee { user: UserId(row.try_get("uuid")?), email: row.try_get("email")? })
            })
            .collect()
    }

    /// True if one of these users has a folder of this name, an own or a shared one.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_name_is_taken(&self, users: &[UserId], name: &str) -> Result<bool> {
        let ids: Vec<Uuid> = users.iter().map(|id| id.0).collect();
        let row = self
            .query_one(
                "-- vfolder_name_is_taken
                SELECT EXISTS (
                    SELECT FROM vfolders WHERE \"user\" = ANY($1) AND name = $2
                      AND status IN ('ready', 'performing')
                    UNION ALL
                    SELECT FROM vfolder_permissions p JOIN vfolders v ON v.id = p.vfolder
                    WHERE p.\"user\" = ANY($1) AND v.name = $2
                      AND v.status IN ('ready', 'performing'))",
                &[&ids, &name],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Invites somebody; false if an invitation waits for an answer already.
    ///
    /// # Errors
    /// `Reference` when the folder has vanished.
    pub async fn vfolder_invite(
        &self,
        vfolder: VfolderId,
        inviter: &str,
        invitee: &str,
        permission: VfolderPermission,
    ) -> Result<bool> {
        let rows = self
            .execute(
                "-- vfolder_invite
                INSERT INTO vfolder_invitations (id, vfolder, inviter, invitee, permission)
                VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (vfolder, invitee) WHERE state = 'pending' DO NOTHING",
                &[&Uuid::new_v4(), &vfolder.0, &inviter, &invitee, &permission.as_str()],
            )
            .await?;
        Ok(rows > 0)
    }

    /// Invitations that wait for an answer, the newest first.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_invitations(
        &self,
        which: Invitations<'_>,
    ) -> Result<Vec<VfolderInvitation>> {
        let (column, email) = match which {
            Invitations::To(email) => ("invitee", email),
            Invitations::From(email) => ("inviter", email),
        };
        let sql = format!(
            "-- vfolder_invitations_by_{column}
            {INVITATION} WHERE i.{column} = $1 AND i.state = 'pending'
              AND v.status IN ('ready', 'performing')
            ORDER BY i.created_at DESC, i.id"
        );
        let rows = self.query(&sql, &[&email]).await?;
        rows.iter().map(VfolderInvitation::from_row).collect()
    }

    /// An invitation that waits for an answer; locked until the transaction ends.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_invitation_lock(&self, id: Uuid) -> Result<Option<VfolderInvitation>> {
        let sql = format!(
            "-- vfolder_invitation_lock
            {INVITATION} WHERE i.id = $1 AND i.state = 'pending'
              AND v.status IN ('ready', 'performing') FOR NO KEY UPDATE OF i"
        );
        let row = self.query_opt(&sql, &[&id]).await?;
        row.as_ref().map(VfolderInvitation::from_row).transpose()
    }

    /// Notes what became of an invitation.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_invitation_end(&self, id: Uuid, state: InvitationState) -> Result<()> {
        let sql = "-- vfolder_invitation_end
            UPDATE vfolder_invitations SET state = $2, modified_at = now() WHERE id = $1";
        self.execute(sql, &[&id, &state.as_str()]).await?;
        Ok(())
    }

    /// Changes what an invitation of `inviter` that waits for an answer offers.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_invitation_change(
        &self,
        id: Uuid,
        inviter: &str,
        permission: VfolderPermission,
    ) -> Result<()> {
        let sql = "-- vfolder_invitation_change
            UPDATE vfolder_invitations SET permission = $3, modified_at = now()
            WHERE id = $1 AND inviter = $2 AND state = 'pending'";
        self.execute(sql, &[&id, &inviter, &permission.as_str()]).await?;
        Ok(())
    }

    /// Lets somebody use a folder.
    ///
    /// # Errors
    /// `Reference` when the folder or the user has vanished.
    pub async fn vfolder_permission_set(
        &self,
        vfolder: VfolderId,
        user: UserId,
        permission: VfolderPermission,
    ) -> Result<()> {
        self.execute(
            "-- vfolder_permission_set
            INSERT INTO vfolder_permissions (vfolder, \"user\", permission) VALUES ($1, $2, $3)
            ON CONFLICT (vfolder, \"user\") DO UPDATE SET permission = $3",
            &[&vfolder.0, &user.0, &permission.as_str()],
        )
        .await?;
        Ok(())
    }

    /// Changes what somebody may do who may do something already. False if not so.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_permission_change(
        &self,
        vfolder: VfolderId,
        user: UserId,
        permission: VfolderPermission,
    ) -> Result<bool> {
        let sql = "-- vfolder_permission_change
            UPDATE vfolder_permissions SET permission = $3 WHERE vfolder = $1 AND \"user\" = $2";
        Ok(self.execute(sql, &[&vfolder.0, &user.0, &permission.as_str()]).await? > 0)
    }

    /// Takes a folder from somebody it was shared with. False if it was not.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_permission_remove(
        &self,
        vfolder: VfolderId,
        user: UserId,
    ) -> Result<bool> {
        let sql = "-- vfolder_permission_remove
            DELETE FROM vfolder_permissions WHERE vfolder = $1 AND \"user\" = $2";
        Ok(self.execute(sql, &[&vfolder.0, &user.0]).await? > 0)
    }

    /// Who may use the folders of others: of `owner`'s folders only, of one folder only.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_shares(
        &self,
        owner: Option<UserId>,
        vfolder: Option<VfolderId>,
    ) -> Result<Vec<VfolderShare>> {
        let rows = self
            .query(
                "-- vfolder_shares
                SELECT v.id, v.name, v.status, p.permission, s.uuid, s.email,
                       v.\"group\" IS NOT NULL AS is_group,
                       coalesce(o.email, g.name, '') AS owner
                FROM vfolder_permissions p
                JOIN vfolders v ON v.id = p.vfolder
                JOIN users s ON s.uuid = p.\"user\"
                LEFT JOIN users o ON o.uuid = v.\"user\"
                LEFT JOIN groups g ON g.id = v.\"group\"
                WHERE v.status IN ('ready', 'performing')
                  AND ($1::uuid IS NULL OR v.\"user\" = $1)
                  AND ($2::uuid IS NULL OR v.id = $2)
                ORDER BY v.created_at, v.id, s.email",
                &[&owner.map(|owner| owner.0), &vfolder.map(|vfolder| vfolder.0)],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(VfolderShare {
                    vfolder: VfolderId(row.try_get("id")?),
                    vfolder_name: row.try_get("name")?,
                    status: row::parsed(row, "status")?,
                    owner: row.try_get("owner")?,
                    is_group: row.try_get("is_group")?,
                    user: UserId(row.try_get("uuid")?),
                    email: row.try_get("email")?,
                    permission: row::parsed(row, "permission")?,
                })
            })
            .collect()
    }
}

const INVITATION: &str = "SELECT i.id, i.vfolder, v.name, i.inviter, i.invitee, i.permission, \
    i.state, i.created_at, i.modified_at \
    FROM vfolder_invitations i JOIN vfolders v ON v.id = i.vfolder";

impl VfolderInvitation {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            vfolder: VfolderId(row.try_get("vfolder")?),
            vfolder_name: row.try_get("name")?,
            inviter: row.try_get("inviter")?,
            invitee: row.try_get("invitee")?,
            permission: row::parsed(row, "permission")?,
            state: row::parsed(row, "state")?,
            created_at: row.try_get("created_at")?,
            modified_at: row.try_get("modified_at")?,
        })
    }
}
