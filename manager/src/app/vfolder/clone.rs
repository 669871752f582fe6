//! Copies of folders: work that outlives its request, and its manager.

use std::sync::Arc;

use backendai_datastore::background_task::BackgroundTaskRow;
use backendai_datastore::vfolder::{CopyingVfolder, NewVfolder, Vfolder, VfolderOwner};
use backendai_service::telemetry::chain;
use backendai_types::{BackgroundTaskId, UsageMode, VfolderId, VfolderPermission, VfolderStatus};
use serde_json::json;

use super::access::{self, State};
use super::{VfolderError, create, host, limit};
use crate::app::background_task::{self, Begin, End, Reporter};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;
use crate::wake::Task;

/// The task's name.
pub const TASK: &str = "clone_vfolder";

/// A copy that is wanted.
#[derive(Clone, Debug)]
pub struct CloneVfolder {
    /// Its name.
    pub name: String,
    /// Where it shall lie; where the source lies if `None`.
    pub host: Option<String>,
    /// Whether others may copy it.
    pub cloneable: bool,
    /// What it is for.
    pub usage_mode: UsageMode,
    /// What may be done with it.
    pub permission: VfolderPermission,
}

/// Begins to copy a folder; the copy is the caller's own.
///
/// # Errors
/// There is no such folder for the caller, it may not be copied, or the copy may not be made.
pub async fn clone(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    wanted: CloneVfolder,
) -> Result<(Vfolder, BackgroundTaskId)> {
    let need = VfolderPermission::ReadOnly;
    let source = access::find(app, context, name, need, State::Updatable).await?.folder;
    if !source.cloneable {
        return Err(Error::Forbidden("The source vfolder is not permitted to be cloned.".into()));
    }
    let target_host = wanted.host.unwrap_or_else(|| source.host.clone());
    create::check_name(&wanted.name)?;
    host::check_create(app, context, &target_host).await?;
    create::check_free(app, context, &wanted.name).await?;
    let new = NewVfolder {
        id: VfolderId::random(),
        host: target_host,
        name: wanted.name,
        owner: VfolderOwner::User(context.user_id),
        creator: context.email.clone(),
        usage_mode: wanted.usage_mode,
        permission: wanted.permission,
        cloneable: wanted.cloneable,
        max_size: limit::bounded(app, context, None).await?,
        clone_source: Some(source.id),
    };
    create::insert(app, context, &new).await?;
    let copying = CopyingVfolder {
        id: new.id,
        host: new.host,
        source: source.id,
        source_host: source.host,
        user: context.user_id,
    };
    let task = begin(app, copying).await?;
    let tx = app.datastore.autocommit().await?;
    let made = tx.vfolder(new.id).await?.ok_or(VfolderError::NotFound(new.name))?;
    Ok((made, task))
}

async fn begin(app: &SharedApp, copying: CopyingVfolder) -> Result<BackgroundTaskId> {
    let begin =
        Begin::new(TASK).only_one_for(copying.id).with_arguments(json!({ "vfolder": copying.id }));
    let user = copying.user;
    let (worker, wanted) = (app.clone(), copying.clone());
    let work = |_, reporter| copy(worker, wanted, reporter);
    Ok(background_task::start(app, user, begin, work).await?.id())
}

/// Goes on with a copy that another process of the manager had begun.
///
/// # Errors
/// PostgreSQL failed, or its arguments cannot be read.
pub async fn carry_on(app: &SharedApp, task: &BackgroundTaskRow) -> Result<()> {
    let id: VfolderId = serde_json::from_value(task.arguments["vfolder"].clone())
        .map_err(|error| Error::internal("read the arguments of a copy", error))?;
    let tx = app.datastore.autocommit().await?;
    let copying = tx.vfolders_copying().await?.into_iter().find(|copying| copying.id == id);
    let app_of_work = app.clone();
    background_task::run(app, TASK, task.id, |_, reporter| async move {
        match copying {
            Some(copying) => copy(app_of_work, copying, reporter).await,
            None => End::Done("The folder is complete.".into()),
        }
    });
    Ok(())
}

/// Begins the copies that nobody makes: a manager may die between the row and the task.
///
/// # Errors
/// PostgreSQL failed.
pub async fn resume(app: &SharedApp) -> Result<()> {
    let tx = app.datastore.autocommit().await?;
    let copying = tx.vfolders_copying().await?;
    drop(tx);
    for copying in copying {
        begin(app, copying).await?;
    }
    Ok(())
}

async fn copy(app: SharedApp, wanted: CopyingVfolder, reporter: Reporter) -> End {
    match copy_content(&app, &wanted, reporter).await {
        Ok(files) => End::Done(format!("Copied {files} files")),
        Err(error) => {
            let given_up = async {
                let tx = app.datastore.autocommit().await?;
                tx.vfolder_purge(wanted.id).await
            };
            if let Err(error) = given_up.await {
                // It stays `performing` and is tried again by `resume`.
                tracing::warn!(error = chain(&error), "a copy that failed is kept for now");
            }
            app.wake.task(Task::RemoveVfolders);
            End::failed(&error)
        }
    }
}

async fn copy_content(app: &SharedApp, wanted: &CopyingVfolder, reporter: Reporter) -> Result<u64> {
    let volume = host::volume(app, &wanted.host).await?;
    let source = host::volume(app, &wanted.source_host).await?;
    let total = source.usage(wanted.source.0).await?.bytes;
    let progress = Arc::new(move |bytes: u64| {
        reporter.report(bytes.min(total), total, format!("Copied {} MiB", bytes >> 20));
    });
    let (from, to) = (wanted.source.0, wanted.id.0);
    let usage = match wanted.host == wanted.source_host {
        true => volume.copy_folder(from, to, progress).await?,
        false => volume.copy_folder_from(&source, from, to, progress).await?,
    };
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let tx = app.datastore.autocommit().await?;
    if !tx.vfolder_copied(wanted.id, count(usage.files), count(usage.bytes)).await?
        && tx.vfolder(wanted.id).await?.is_none_or(|row| row.status != VfolderStatus::Ready)
    {
        // Its owner or its source went away meanwhile; nobody else knows of the directory.
        volume.remove_folder(wanted.id.0).await?;
        return Err(VfolderError::NotFound(wanted.id.to_string()).into());
    }
    Ok(usage.files)
}
