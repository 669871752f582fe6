//! Writing a kernel's container into an archive that an engine can load again.
//!
//! ```text
//! container ──snapshot──► image of ours ──export, gzip──► .<name>.<agent>.part ──rename──► <name>
//! ```
//!
//! A commit is known by its id: asked for again it is the same one. What an earlier process
//! left half done (temporary images and files) is removed before the first new one, and the
//! manager, who still wants it, has it begun again.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backendai_rpc::agent_api::{CommitKernel, CommitState};
use backendai_rpc::call::{ErrorKind, RemoteError};
use backendai_types::{BackgroundTaskId, KernelId};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, mpsc, watch};

use crate::backend::BackendError;
use crate::core::{Core, chain};
use crate::kernel::record::KernelState;
use crate::kernel::registry::{blocking, not_found};

/// Repository of the temporary images; the tag is the commit's id.
const REPOSITORY: &str = "backendai-commit";
/// Ends the names of files that are not whole yet.
const PART: &str = ".part";
/// Pieces of the export that wait for the disk, each up to some hundred kilobytes.
const QUEUE: usize = 4;

/// The commits of one agent.
pub struct Commits {
    dir: PathBuf,
    /// The newest of each kernel.
    jobs: Mutex<HashMap<KernelId, Arc<Job>>>,
    /// Set once what an earlier process left is gone.
    swept: OnceCell<()>,
}

struct Job {
    id: BackgroundTaskId,
    state: watch::Sender<CommitState>,
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
enum CommitError {
    #[error(transparent)]
    Engine(#[from] BackendError),
    #[error("write {}", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

impl Commits {
    /// Writes archives below this folder, which is made when it is needed.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, jobs: Mutex::default(), swept: OnceCell::new() }
    }
}

/// Begins a commit, or takes up the one with this id, and tells how far it is.
///
/// # Errors
/// The kernel does not run, another commit of it is under way, or the engine does not answer.
pub async fn commit(core: &Arc<Core>, request: CommitKernel) -> Result<CommitState, RemoteError> {
    let target = target(&core.commits.dir, &request)?;
    let swept = core.commits.swept.get_or_try_init(|| sweep(core)).await;
    swept.map_err(|error| RemoteError::new(ErrorKind::EngineUnavailable, chain(&error)))?;
    let mut state = match job(core, &request, &target)? {
        Begun::Job(job) => job.state.subscribe(),
        Begun::Whole(bytes) => return Ok(CommitState::Done { bytes }),
    };
    let wait = Duration::from_millis(request.wait_ms);
    let ended = state.wait_for(|state| !matches!(state, CommitState::Ongoing { .. }));
    // Not ended in time is an answer too.
    let _ = tokio::time::timeout(wait, ended).await;
    let now = state.borrow().clone();
    Ok(now)
}

enum Begun {
    Job(Arc<Job>),
    /// An earlier process had finished it; so many bytes.
    Whole(u64),
}

fn job(core: &Arc<Core>, request: &CommitKernel, target: &Path) -> Result<Begun, RemoteError> {
    let id = request.kernel_id;
    let mut jobs = core.commits.jobs.lock();
    if let Some(job) = jobs.get(&id) {
        if job.id == request.commit_id {
            return Ok(Begun::Job(Arc::clone(job)));
        }
        if matches!(*job.state.borrow(), CommitState::Ongoing { .. }) {
            let message = format!("kernel {id} is being committed already");
            return Err(RemoteError::new(ErrorKind::KernelNotReady, message));
        }
    }
    if let Ok(found) = target.metadata() {
        return Ok(Begun::Whole(found.len()));
    }
    let kernel = core.registry.get(id).ok_or_else(|| not_found(id))?;
    kernel.check_running()?;
    let KernelState::Running(running) = kernel.record().state else { return Err(not_found(id)) };
    // Kernels that are gone need not be remembered.
    jobs.retain(|known, _| core.registry.get(*known).is_some());
    let state = watch::Sender::new(CommitState::Ongoing { bytes: 0 });
    let job = Arc::new(Job { id: request.commit_id, state });
    jobs.insert(id, Arc::clone(&job));
    drop(jobs);
    let (job_here, core_here, target) = (Arc::clone(&job), Arc::clone(core), target.to_owned());
    core.lifecycle.spawn("commit", async move {
        let written = write(&core_here, &running.container.id, &job_here, &target).await;
        job_here.state.send_replace(match written {
            Ok(bytes) => {
                tracing::info!(kernel.id = %id, bytes, path = %target.display(), "committed");
                CommitState::Done { bytes }
            }
            Err(error) => {
                let message = chain(&error);
                tracing::warn!(kernel.id = %id, "the kernel could not be committed: {message}");
                CommitState::Failed { message }
            }
        });
    });
    Ok(Begun::Job(job))
}

/// Makes the archive and gives its size in bytes.
async fn write(core: &Core, container: &str, job: &Job, target: &Path) -> Result<u64, CommitError> {
    let image = format!("{REPOSITORY}:{}", job.id);
    core.backend.snapshot(container, &image).await?;
    let written = export(core, &image, job, target).await;
    if let Err(error) = core.backend.remove_image(&image).await {
        let error = chain(&error);
        tracing::warn!(image, error, "a temporary image stays until the agent starts again");
    }
    written
}

async fn export(core: &Core, image: &str, job: &Job, target: &Path) -> Result<u64, CommitError> {
    let part = part_of(target, &part_suffix(core));
    let (sender, receiver) = mpsc::channel(QUEUE);
    let pump = async {
        let mut pieces = core.backend.export_image(image);
        let mut bytes = 0;
        while let Some(piece) = pieces.try_next().await? {
            bytes += piece.len() as u64;
            job.state.send_replace(CommitState::Ongoing { bytes });
            if sender.send(piece).await.is_err() {
                // The disk has the error.
                break;
            }
        }
        drop(sender);
        Ok::<_, BackendError>(())
    };
    let path = part.clone();
    let (pumped, packed) = tokio::join!(pump, blocking(move || pack(receiver, &path)));
    let whole = pumped.map_err(CommitError::from).and_then(|()| {
        packed
            .and_then(|bytes| {
                std::fs::rename(&part, target)?;
                Ok(bytes)
            })
            .map_err(|source| CommitError::Disk { path: target.to_owned(), source })
    });
    if whole.is_err()
        && let Err(error) = std::fs::remove_file(&part)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %part.display(), %error, "half an archive stays behind");
    }
    whole
}

/// Writes what comes, compressed, and gives the size of the file.
fn pack(mut pieces: mpsc::Receiver<Bytes>, path: &Path) -> io::Result<u64> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    // An image holds its user's data.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // The best compression would take ten times as long for a tenth of the size.
    let mut encoder = GzEncoder::new(io::BufWriter::new(file), Compression::fast());
    while let Some(piece) = pieces.blocking_recv() {
        encoder.write_all(&piece)?;
    }
    let file: File = encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

/// Where the archive is to lie. Names from the wire never leave the folder.
fn target(dir: &Path, request: &CommitKernel) -> Result<PathBuf, RemoteError> {
    for name in [&request.subdir, &request.filename] {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            let message = format!("{name:?} cannot be the name of a file");
            return Err(RemoteError::new(ErrorKind::InvalidInput, message));
        }
    }
    Ok(dir.join(&request.subdir).join(&request.filename))
}

fn part_of(target: &Path, suffix: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}{suffix}"))
}

/// Agents may share a folder; each clears away its own parts only.
fn part_suffix(core: &Core) -> String {
    format!(".{}{PART}", core.agent_id.as_str().replace('/', "_"))
}

/// Removes what an earlier process left half done.
async fn sweep(core: &Arc<Core>) -> Result<(), BackendError> {
    for image in core.backend.snapshots(REPOSITORY, core.agent_id.as_str()).await? {
        core.backend.remove_image(&image).await?;
    }
    let (dir, suffix) = (core.commits.dir.clone(), part_suffix(core));
    if let Err(error) = blocking(move || remove_parts(&dir, &suffix)).await {
        tracing::warn!(%error, "halves of archives stay behind");
    }
    Ok(())
}

fn remove_parts(dir: &Path, suffix: &str) -> io::Result<()> {
    let subdirs = match dir.read_dir() {
        Ok(subdirs) => subdirs,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for subdir in subdirs {
        let subdir = subdir?;
        if !subdir.file_type()?.is_dir() {
            continue;
        }
        for file in subdir.path().read_dir()? {
            let file = file?;
            let name = file.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(suffix) {
                std::fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        let request = |subdir: &str, filename: &str| CommitKernel {
            commit_id: BackgroundTaskId::random(),
            kernel_id: KernelId::random(),
            subdir: subdir.into(),
            filename: filename.into(),
            wait_ms: 0,
        };
        let dir = Path::new("/commits");
        let at = target(dir, &request("a_b", "x.tar.gz")).unwrap();
        assert_eq!(at, Path::new("/commits/a_b/x.tar.gz"));
        assert_eq!(part_of(&at, ".i-1.part"), Path::new("/commits/a_b/.x.tar.gz.i-1.part"));
        for (subdir, filename) in [("..", "x"), ("a", "../x"), ("", "x"), ("a", ""), ("/a", "x")] {
            let error = target(dir, &request(subdir, filename)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidInput);
        }
    }
}
