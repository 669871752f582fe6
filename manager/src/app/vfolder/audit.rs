//! Whether what lies on the volumes is what the database says, and how much there is.

use std::collections::{BTreeMap, BTreeSet};

use backendai_types::{VfolderId, VfolderStatus};

use super::host;
use crate::app::{Result, SharedApp};

/// What an audit found on one host.
#[derive(Clone, Debug, Default)]
pub struct HostAudit {
    /// Folders that the database knows there.
    pub folders: usize,
    /// Those of them that are deleted and can be had back.
    pub trashed: usize,
    /// Directories of no folder.
    pub without_row: Vec<VfolderId>,
    /// Folders without a directory.
    pub without_directory: Vec<VfolderId>,
    /// Bytes of the host's volume, and how many of them are taken.
    pub capacity: Option<backendai_storage::Capacity>,
    /// Why the host cannot be looked at, if so.
    pub failure: Option<String>,
}

/// Compares all hosts with the database.
///
/// # Errors
/// PostgreSQL or etcd failed. A host that cannot be used says so itself.
pub async fn audit(app: &SharedApp) -> Result<BTreeMap<String, HostAudit>> {
    let mut audits = BTreeMap::new();
    // The directories first: whatever is made meanwhile has its row when we ask.
    for host in host::all(app).await?.1 {
        audits.insert(host, (HostAudit::default(), BTreeSet::new()));
    }
    for (host, (audit, there)) in &mut audits {
        let looked = async {
            let volume = host::volume(app, host).await?;
            let ids = volume.folders().await?;
            Ok::<_, crate::app::Error>((ids, volume.capacity().await?))
        };
        match looked.await {
            Ok((ids, capacity)) => {
                there.extend(ids.into_iter().map(VfolderId));
                audit.capacity = Some(capacity);
            }
            Err(error) => audit.failure = Some(backendai_service::telemetry::chain(&error)),
        }
    }
    let tx = app.datastore.autocommit().await?;
    for (folder, status) in tx.vfolders_on_hosts().await? {
        let (audit, there) = audits.entry(folder.host).or_default();
        audit.folders += 1;
        audit.trashed += usize::from(status == VfolderStatus::Trashed);
        let is_there = there.remove(&folder.id);
        // Others have none yet, or not any more.
        let needs_one = matches!(status, VfolderStatus::Ready | VfolderStatus::Trashed);
        if !is_there && needs_one && audit.failure.is_none() {
            audit.without_directory.push(folder.id);
        }
    }
    for (audit, there) in audits.values_mut() {
        audit.without_row.extend(std::mem::take(there));
    }
    Ok(audits.into_iter().map(|(host, (audit, _))| (host, audit)).collect())
}
