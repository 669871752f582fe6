//! Folders that sessions have mounted.

use backendai_types::{SessionId, UsageMode, VfolderId, VfolderPermission};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Result;
use crate::tx::Transaction;

/// A folder as a session sees it; kept with the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfolderMount {
    /// The folder's name when the session was made.
    pub name: String,
    /// The folder.
    pub vfolder: VfolderId,
    /// Its quota scope and id.
    pub vfid: String,
    /// The part of it that is mounted; `.` is all.
    pub vfsubpath: String,
    /// Where it is beneath the directory of hosts, on whichever machine.
    pub host_path: String,
    /// Where it is in the container.
    pub kernel_path: String,
    /// What the session may do with it.
    pub mount_perm: VfolderPermission,
    /// What the folder is for.
    pub usage_mode: UsageMode,
}

impl Transaction {
    /// Keeps folders from being deleted until the transaction ends, and notes their use.
    /// False if one is not there to be used any more.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolders_hold(&self, ids: &[VfolderId]) -> Result<bool> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let held = self
            .execute(
                "-- vfolders_hold
                UPDATE vfolders SET last_used = now() WHERE id = ANY($1) AND status = 'ready'",
                &[&ids],
            )
            .await?;
        Ok(held == ids.len() as u64)
    }

    /// How many live sessions have folders of a host mounted.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_host_mounted_by(&self, host: &str) -> Result<i64> {
        let row = self
            .query_one(
                "-- vfolder_host_mounted_by
                SELECT count(DISTINCT s.id) FROM vfolders v
                JOIN session_vfolders m ON m.vfolder = v.id
                JOIN sessions s ON s.id = m.session_id
                WHERE v.host = $1 AND s.status NOT IN ('TERMINATED', 'CANCELLED')",
                &[&host],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Notes which folders a session mounts.
    ///
    /// # Errors
    /// `Reference` when one has vanished.
    pub async fn session_vfolders_insert(
        &self,
        session: SessionId,
        mounts: &[VfolderMount],
    ) -> Result<()> {
        let ids: Vec<Uuid> = mounts.iter().map(|mount| mount.vfolder.0).collect();
        let mounts = serde_json::to_value(mounts).expect("mounts have string keys");
        self.execute(
            "-- session_vfolders_insert
            WITH session AS (UPDATE sessions SET vfolder_mounts = $3 WHERE id = $1)
            INSERT INTO session_vfolders (session_id, vfolder)
            SELECT $1, id FROM unnest($2::uuid[]) AS f(id) GROUP BY id",
            &[&session.0, &ids, &mounts],
        )
        .await?;
        Ok(())
    }
}
