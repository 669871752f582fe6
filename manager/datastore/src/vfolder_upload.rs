//! Files on their way into folders.

use backendai_types::{UserId, VfolderId};
use uuid::Uuid;

use crate::error::Result;
use crate::tx::Transaction;

/// A file that is being uploaded, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfolderUpload {
    /// Its id.
    pub id: Uuid,
    /// The folder it goes to.
    pub vfolder: VfolderId,
    /// Who uploads it.
    pub user: UserId,
    /// Its path in the folder.
    pub path: String,
    /// Its bytes, when it is complete.
    pub size: i64,
    /// Whether it is.
    pub is_complete: bool,
}

impl Transaction {
    /// Promises room to a file for some seconds.
    ///
    /// # Errors
    /// `Reference` when the folder has vanished.
    pub async fn vfolder_upload_insert(&self, new: &VfolderUpload, lifetime_s: f64) -> Result<()> {
        self.execute(
            "-- vfolder_upload_insert
            INSERT INTO vfolder_uploads (id, vfolder, \"user\", path, size, expires_at)
            VALUES ($1, $2, $3, $4, $5, now() + $6 * interval '1 second')",
            &[&new.id, &new.vfolder.0, &new.user.0, &new.path, &new.size, &lifetime_s],
        )
        .await?;
        Ok(())
    }

    /// An upload that has not expired.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_upload(&self, id: Uuid) -> Result<Option<VfolderUpload>> {
        let row = self
            .query_opt(
                "-- vfolder_upload
                SELECT id, vfolder, \"user\", path, size, completed_at IS NOT NULL AS is_complete
                FROM vfolder_uploads WHERE id = $1 AND expires_at > now()",
                &[&id],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(VfolderUpload {
            id: row.try_get("id")?,
            vfolder: VfolderId(row.try_get("vfolder")?),
            user: UserId(row.try_get("user")?),
            path: row.try_get("path")?,
            size: row.try_get("size")?,
            is_complete: row.try_get("is_complete")?,
        }))
    }

    /// Notes that an upload is complete.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_upload_complete(&self, id: Uuid) -> Result<()> {
        let sql = "-- vfolder_upload_complete
            UPDATE vfolder_uploads SET completed_at = now()
            WHERE id = $1 AND completed_at IS NULL";
        self.execute(sql, &[&id]).await?;
        Ok(())
    }

    /// Bytes promised to files of these folders that are not complete.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_uploads_promised(&self, folders: &[VfolderId]) -> Result<i64> {
        let ids: Vec<Uuid> = folders.iter().map(|id| id.0).collect();
        let row = self
            .query_one(
                "-- vfolder_uploads_promised
                SELECT coalesce(sum(size), 0)::bigint FROM vfolder_uploads
                WHERE vfolder = ANY($1) AND completed_at IS NULL AND expires_at > now()",
                &[&ids],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Forgets uploads that have expired.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_uploads_expire(&self) -> Result<()> {
        let sql =
            "-- vfolder_uploads_expire\nDELETE FROM vfolder_uploads WHERE expires_at <= now()";
        self.execute(sql, &[]).await?;
        Ok(())
    }

    /// Which of these uploads are known.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_uploads_known(&self, ids: &[Uuid]) -> Result<Vec<Uuid>> {
        let sql = "-- vfolder_uploads_known\nSELECT id FROM vfolder_uploads WHERE id = ANY($1)";
        let rows = self.query(sql, &[&ids]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// What tokens of transfers are signed with.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn storage_secret(&self) -> Result<Option<String>> {
        let sql = "-- storage_secret\nSELECT secret FROM storage_keys ORDER BY id DESC LIMIT 1";
        let row = self.query_opt(sql, &[]).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}
