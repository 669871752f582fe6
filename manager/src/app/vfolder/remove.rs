//! The end of folders that nobody wants any more.

use backendai_datastore::vfolder::UnwantedVfolder;
use backendai_service::telemetry::chain;

use super::host;
use crate::app::{Result, SharedApp};
use uuid::Uuid;

/// Bytes of uploads that are younger are left alone.
const YOUNG: chrono::TimeDelta = chrono::TimeDelta::hours(1);

/// What is logged of a host that is named and not there.
const UNUSABLE: &str = "a vfolder host cannot be used";

/// Removes the content of the folders that are purged, whose time in the trash is up or
/// whose owner is gone, and then their rows. One that cannot be removed is tried again.
///
/// # Errors
/// PostgreSQL failed.
pub async fn unwanted(app: &SharedApp) -> Result<()> {
    let retention = app.config.tunables.vfolder_trash_s;
    let tx = app.datastore.autocommit().await?;
    for folder in tx.vfolders_to_remove(retention).await? {
        match content(app, &folder).await {
            Ok(()) => {
                tx.vfolder_delete(folder.id).await?;
                tracing::info!(vfolder.id = %folder.id, "folder removed");
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(vfolder.id = %folder.id, error, "a folder is removed later");
            }
        }
    }
    Ok(())
}

/// Ends the removals of files and folders that a manager began and died over.
///
/// # Errors
/// etcd failed, or a volume.
pub async fn leftovers(app: &SharedApp) -> Result<()> {
    for host in host::all(app).await?.1 {
        match host::volume(app, &host).await {
            Ok(volume) => volume.sweep().await?,
            Err(error) => tracing::debug!(host, error = chain(&error), "{UNUSABLE}"),
        }
    }
    Ok(())
}

/// Forgets uploads that have expired, and drops the bytes of those that nobody knows.
///
/// # Errors
/// PostgreSQL failed.
pub async fn uploads(app: &SharedApp) -> Result<()> {
    let tx = app.datastore.autocommit().await?;
    tx.vfolder_uploads_expire().await?;
    for host in host::all(app).await?.1 {
        let volume = match host::volume(app, &host).await {
            Ok(volume) => volume,
            Err(error) => {
                tracing::debug!(host, error = chain(&error), "{UNUSABLE}");
                continue;
            }
        };
        // A row follows its bytes, so that young bytes may have none yet.
        let old = chrono::Utc::now() - YOUNG;
        let there = volume.uploads().await?.into_iter();
        let ids: Vec<Uuid> = there.filter(|(_, at)| *at < old).map(|(id, _)| id).collect();
        let known = tx.vfolder_uploads_known(&ids).await?;
        for id in ids.into_iter().filter(|id| !known.contains(id)) {
            volume.drop_upload(id).await?;
        }
    }
    Ok(())
}

async fn content(app: &SharedApp, folder: &UnwantedVfolder) -> Result<()> {
    let volume = host::volume(app, &folder.host).await?;
    Ok(volume.remove_folder(folder.id.0).await?)
}
