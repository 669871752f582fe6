//! Files in and out of folders, past the API's signatures: by tokens.
//!
//! A file that is uploaded lies beside the folders until it is complete, and gets its name
//! by one rename: nobody ever sees half of it, and whoever was cut off goes on where the
//! bytes end, on this manager or another.

use std::pin::pin;

use backendai_datastore::vfolder::Vfolder;
use backendai_datastore::vfolder_access::Wanted;
use backendai_datastore::vfolder_upload::VfolderUpload;
use backendai_storage::{Archive, Chunks, FolderPath, OpenFile, StorageError, Volume};
use backendai_types::{HostPermission, VfolderId, VfolderPermission};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use uuid::Uuid;

use super::access::{self, State};
use super::token::{self, Claims, Operation};
use super::{VfolderError, host};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// The largest file that can be uploaded, in bytes: 16 TiB, what common file systems take.
pub const MAX_SIZE: u64 = 16 << 40;

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadState {
    /// Bytes that are there.
    pub offset: u64,
    /// Bytes that there shall be.
    pub size: u64,
}

/// What a download gives.
pub enum Content {
    /// A file.
    File(OpenFile),
    /// A directory as an archive; the name is the directory's.
    Archive(Chunks, String),
}

/// Promises a file room and gives a token to upload it with. An empty file is made at once.
///
/// # Errors
/// There is no such folder for the caller, the path makes no sense, or there is no room.
pub async fn request_upload(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    path: &str,
    size: i64,
) -> Result<String> {
    let need = VfolderPermission::ReadWrite;
    let access = access::find(app, context, name, need, State::Updatable).await?;
    let folder = access.folder;
    access::check_host(app, context, &folder.host, HostPermission::Upload).await?;
    let path = FolderPath::new(path)?;
    if path.is_root() {
        return Err(Error::invalid("path: names no file"));
    }
    let bytes = u64::try_from(size).ok().filter(|bytes| *bytes <= MAX_SIZE);
    let bytes = bytes
        .ok_or_else(|| Error::invalid(format!("size: must be between 0 and {MAX_SIZE} bytes")))?;
    check_room(app, &folder, bytes).await?;
    let volume = host::volume(app, &folder.host).await?;
    let upload = VfolderUpload {
        id: Uuid::new_v4(),
        vfolder: folder.id,
        user: context.user_id,
        path: path.to_string(),
        size,
        is_complete: false,
    };
    // Bytes without a row are dropped in time; a row without bytes would be a file that was
    // complete.
    volume.begin_upload(upload.id).await?;
    let lifetime = app.config.tunables.transfer_token_s;
    let tx = app.datastore.autocommit().await?;
    tx.vfolder_upload_insert(&upload, lifetime).await?;
    drop(tx);
    if bytes == 0 {
        complete(app, &volume, &upload, &path).await?;
    }
    let claims = Claims {
        op: Operation::Upload,
        user: upload.user,
        vfolder: upload.vfolder,
        relpath: upload.path,
        session: Some(upload.id),
        archive: false,
        exp: expiry(app),
    };
    token::issue(app, &claims).await
}

/// Gives a token to download a file or directory with.
///
/// # Errors
/// There is no such folder for the caller, or the path makes no sense.
pub async fn request_download(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    path: &str,
    archive: bool,
) -> Result<String> {
    let need = VfolderPermission::ReadOnly;
    let access = access::find(app, context, name, need, State::Updatable).await?;
    let folder = access.folder;
    access::check_host(app, context, &folder.host, HostPermission::Download).await?;
    let claims = Claims {
        op: Operation::Download,
        user: context.user_id,
        vfolder: folder.id,
        relpath: FolderPath::new(path)?.to_string(),
        session: None,
        archive,
        exp: expiry(app),
    };
    token::issue(app, &claims).await
}

fn expiry(app: &SharedApp) -> i64 {
    chrono::Utc::now().timestamp() + app.config.tunables.transfer_token_s as i64
}

/// Refuses what would exceed the folder's or its owner's limit, with what is promised to
/// other files.
async fn check_room(app: &SharedApp, folder: &Vfolder, bytes: u64) -> Result<()> {
    let tx = app.datastore.autocommit().await?;
    let total = tx.vfolder_max_total(folder.owner).await?;
    if folder.max_size.is_none() && total.is_none() {
        return Ok(());
    }
    let refuse = |what: &str, limit: i64| {
        Err(Error::QuotaExceeded(format!("{what} may hold {limit} bytes; make room first.")))
    };
    let exceeds = |used: u64, promised: i64, limit: i64| {
        let promised = u64::try_from(promised).unwrap_or_default();
        used.saturating_add(promised).saturating_add(bytes) > u64::try_from(limit).unwrap_or(0)
    };
    if let Some(limit) = folder.max_size {
        let promised = tx.vfolder_uploads_promised(&[folder.id]).await?;
        let usage = host::volume(app, &folder.host).await?.usage(folder.id.0).await?;
        if exceeds(usage.bytes, promised, limit) {
            return refuse(&format!("The folder {}", folder.name), limit);
        }
    }
    if let Some(limit) = total {
        let folders = tx.vfolders_of(folder.owner).await?;
        let ids: Vec<VfolderId> = folders.iter().map(|(id, _)| *id).collect();
        let promised = tx.vfolder_uploads_promised(&ids).await?;
        let mut used = 0u64;
        for (id, host) in folders {
            match host::volume(app, &host).await?.usage(id.0).await {
                Ok(usage) => used = used.saturating_add(usage.bytes),
                // A copy that is not there yet.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if exceeds(used, promised, limit) {
            return refuse("The folders of their owner together", limit);
        }
    }
    Ok(())
}

/// An upload that a token is about.
struct Upload {
    row: VfolderUpload,
    volume: Volume,
    path: FolderPath,
}

impl Upload {
    async fn find(app: &SharedApp, token: &str, directory: Option<&str>) -> Result<Self> {
        let claims = token::check(app, token, Operation::Upload).await?;
        let (folder, path) =
            authorize(app, &claims, VfolderPermission::ReadWrite, directory).await?;
        let tx = app.datastore.autocommit().await?;
        let row = match claims.session {
            Some(id) => tx.vfolder_upload(id).await?.filter(|row| row.vfolder == folder.id),
            None => None,
        };
        let row = row.ok_or(VfolderError::NoUpload)?;
        Ok(Self { row, volume: host::volume(app, &folder.host).await?, path })
    }

    fn size(&self) -> u64 {
        u64::try_from(self.row.size).unwrap_or_default()
    }

    /// Makes it a file if all its bytes are there, and says how far it is.
    async fn settle(&self, app: &SharedApp, offset: u64) -> Result<UploadState> {
        if offset >= self.size() && !self.row.is_complete {
            complete(app, &self.volume, &self.row, &self.path).await?;
        }
        Ok(UploadState { offset, size: self.size() })
    }

    /// How many bytes are there; all, once it has become a file.
    async fn offset(&self) -> Result<u64> {
        if self.row.is_complete {
            return Ok(self.size());
        }
        match self.volume.upload_size(self.row.id).await {
            Err(StorageError::NoUpload) => Ok(self.size()),
            size => size.map_err(failed),
        }
    }
}

/// How far an upload is.
///
/// # Errors
/// The token is not good, or there is no such upload any more.
pub async fn upload_state(
    app: &SharedApp,
    token: &str,
    directory: Option<&str>,
) -> Result<UploadState> {
    let upload = Upload::find(app, token, directory).await?;
    upload.settle(app, upload.offset().await?).await
}

/// Goes on with an upload. What came before a body broke off stays.
///
/// # Errors
/// The token is not good, the upload goes on elsewhere, or the disk fails.
pub async fn upload<E: std::fmt::Display>(
    app: &SharedApp,
    token: &str,
    directory: Option<&str>,
    offset: u64,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<UploadState> {
    let upload = Upload::find(app, token, directory).await?;
    let size = upload.size();
    let there = upload.offset().await?;
    if upload.row.is_complete || there != offset {
        return match there == offset {
            true => Ok(UploadState { offset, size }),
            false => Err(conflict(there)),
        };
    }
    let mut writer = match upload.volume.append(upload.row.id, offset, size).await {
        // It became a file by somebody else's doing a moment ago.
        Err(StorageError::NoUpload) => return upload.settle(app, size).await,
        writer => writer.map_err(failed)?,
    };
    let mut body = pin!(body);
    let mut broken = None;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(bytes) => {
                // The writer's end says why.
                if !writer.write(bytes).await {
                    break;
                }
            }
            Err(error) => {
                broken = Some(error.to_string());
                break;
            }
        }
    }
    let offset = writer.finish().await.map_err(failed)?;
    if let Some(why) = broken {
        return Err(VfolderError::Transfer(format!("The body broke off: {why}")).into());
    }
    upload.settle(app, offset).await
}

/// Makes an upload a file. Safe to repeat: a manager may die in between.
async fn complete(
    app: &SharedApp,
    volume: &Volume,
    upload: &VfolderUpload,
    path: &FolderPath,
) -> Result<()> {
    match volume.finish_upload(upload.id, upload.vfolder.0, path).await {
        Ok(()) | Err(StorageError::NoUpload) => {}
        Err(error) => return Err(failed(error)),
    }
    let tx = app.datastore.autocommit().await?;
    Ok(tx.vfolder_upload_complete(upload.id).await?)
}

/// What a download token is for; `directory` is put before its path.
///
/// # Errors
/// The token is not good, there is no such file, or it is a directory and no archive of it
/// was asked for.
pub async fn download(
    app: &SharedApp,
    token: &str,
    directory: Option<&str>,
    archive: Option<Archive>,
) -> Result<Content> {
    let claims = token::check(app, token, Operation::Download).await?;
    let (folder, path) = authorize(app, &claims, VfolderPermission::ReadOnly, directory).await?;
    let volume = host::volume(app, &folder.host).await?;
    let archive = archive.or(claims.archive.then_some(Archive::Zip));
    let Some(format) = archive else {
        return Ok(Content::File(volume.read(folder.id.0, &path).await.map_err(failed)?));
    };
    let chunks = volume.archive(folder.id.0, &path, format).await.map_err(failed)?;
    let name = path.name().unwrap_or(&folder.name).to_owned();
    Ok(Content::Archive(chunks, name))
}

/// The folder of a token, if its user may still use it so, and the path in it.
async fn authorize(
    app: &SharedApp,
    claims: &Claims,
    need: VfolderPermission,
    directory: Option<&str>,
) -> Result<(Vfolder, FolderPath)> {
    let gone = || VfolderError::Transfer("The token is not valid any more.".into());
    let tx = app.datastore.autocommit().await?;
    let user = tx.vfolder_user(claims.user).await?.ok_or_else(gone)?;
    let wanted = Wanted { name: None, id: Some(claims.vfolder) };
    let access = tx.vfolders_accessible(&user, wanted).await?.into_iter().next();
    let access = access.filter(|access| access.allows(&user, need)).ok_or_else(gone)?;
    access::check_state(&access, State::Updatable)?;
    let path = FolderPath::new(&claims.relpath).map_err(failed)?;
    let path = match directory {
        Some(directory) => path.within(&FolderPath::new(directory).map_err(failed)?),
        None => path,
    };
    Ok((access.folder, path))
}

fn conflict(actual: u64) -> Error {
    VfolderError::UploadConflict(format!("The upload has {actual} bytes; go on from there.")).into()
}

/// What the client of a transfer is told of a volume's failure.
fn failed(error: StorageError) -> Error {
    match error {
        StorageError::NoUpload => VfolderError::NoUpload.into(),
        StorageError::Offset { actual } => conflict(actual),
        StorageError::Busy => VfolderError::UploadConflict(error.to_string()).into(),
        error if error.is_not_found() => VfolderError::NoFile.into(),
        error @ StorageError::Broken(_) => error.into(),
        error => VfolderError::Transfer(error.to_string()).into(),
    }
}
