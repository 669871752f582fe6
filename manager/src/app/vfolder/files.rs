//! What is in a folder.

use backendai_datastore::vfolder::Vfolder;
use backendai_storage::{Entry, FolderPath, Volume};
use backendai_types::{HostPermission, VfolderPermission, VfolderStatus};

use super::access::{self, State};
use super::{VfolderError, host};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// What lies in a directory.
///
/// # Errors
/// There is no such folder for the caller, or no such directory.
pub async fn list(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    path: &str,
) -> Result<Vec<Entry>> {
    let need = VfolderPermission::ReadOnly;
    let access = access::find(app, context, name, need, State::Readable).await?;
    if access.folder.status == VfolderStatus::Performing {
        let message = format!("The folder {name} is still being made.");
        return Err(VfolderError::Status(message).into());
    }
    let volume = host::volume(app, &access.folder.host).await?;
    Ok(volume.list(access.folder.id.0, &FolderPath::new(path)?).await?)
}

/// Makes a directory.
///
/// # Errors
/// There is no such folder for the caller, or it cannot be made.
pub async fn make_directory(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    path: &str,
    parents: bool,
    exist_ok: bool,
) -> Result<()> {
    let (folder, volume) = writable(app, context, name, None).await?;
    let path = FolderPath::new(path)?;
    Ok(volume.make_directory(folder.id.0, &path, parents, exist_ok).await?)
}

/// Gives a file or directory another name, where it is.
///
/// # Errors
/// There is no such folder for the caller, or it cannot be renamed.
pub async fn rename(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    target: &str,
    new_name: &str,
) -> Result<()> {
    let (folder, volume) = writable(app, context, name, Some(HostPermission::Modify)).await?;
    let from = FolderPath::new(target)?;
    let to = from.with_name(new_name)?;
    Ok(volume.rename(folder.id.0, &from, &to).await?)
}

/// Moves a file or directory within a folder.
///
/// # Errors
/// There is no such folder for the caller, or it cannot be moved.
pub async fn move_file(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    from: &str,
    to: &str,
) -> Result<()> {
    let (folder, volume) = writable(app, context, name, None).await?;
    let (from, to) = (FolderPath::new(from)?, FolderPath::new(to)?);
    Ok(volume.rename(folder.id.0, &from, &to).await?)
}

/// Removes files, and with `recursive` directories.
///
/// # Errors
/// There is no such folder for the caller, or one of them cannot be removed; those before it
/// are.
pub async fn remove(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    files: &[String],
    recursive: bool,
) -> Result<()> {
    let (folder, volume) = writable(app, context, name, None).await?;
    let paths: Vec<FolderPath> =
        files.iter().map(|path| FolderPath::new(path)).collect::<Result<_, _>>()?;
    if let Some(root) = paths.iter().find(|path| path.is_root()) {
        return Err(Error::invalid(format!("{root} is the folder itself.")));
    }
    Ok(volume.remove(folder.id.0, &paths, recursive).await?)
}

async fn writable(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    permission: Option<HostPermission>,
) -> Result<(Vfolder, Volume)> {
    let need = VfolderPermission::ReadWrite;
    let access = access::find(app, context, name, need, State::Updatable).await?;
    if let Some(permission) = permission {
        access::check_host(app, context, &access.folder.host, permission).await?;
    }
    let volume = host::volume(app, &access.folder.host).await?;
    Ok((access.folder, volume))
}
