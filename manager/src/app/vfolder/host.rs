//! Hosts of folders: each is a directory beneath `volumes/_mount`, of the host's very name.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backendai_storage::{Capacity, LocalVolume, Performance, Volume};
use parking_lot::Mutex;

use super::access::{self, Hosts};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// How long a volume stays open without looking anew: somebody may mount another file system
/// over its directory.
const MAX_AGE: Duration = Duration::from_secs(5);

/// Volumes that are open.
#[derive(Default)]
pub struct Volumes {
    open: Mutex<HashMap<PathBuf, (Instant, Volume)>>,
}

/// What a caller may know of a host.
#[derive(Clone, Debug)]
pub struct HostView {
    /// What kind of volume.
    pub backend: &'static str,
    /// How full it is.
    pub capacity: Capacity,
}

/// The hosts a caller may use.
#[derive(Clone, Debug)]
pub struct HostsView {
    /// The host of folders that name none, if the caller may use it.
    pub default: Option<String>,
    /// The hosts, with what is known of them.
    pub hosts: BTreeMap<String, HostView>,
    /// What of their capacity users are told.
    pub exposed: Vec<String>,
}

/// A host as administrators see it.
#[derive(Clone, Debug)]
pub struct VolumeView {
    /// Its name.
    pub host: String,
    /// What kind of volume.
    pub backend: &'static str,
    /// Where it is on the manager.
    pub path: String,
    /// How full it is.
    pub capacity: Capacity,
}

/// The volume of a host.
///
/// # Errors
/// The name cannot be one, no directory for hosts is configured, or it cannot be used.
pub async fn volume(app: &SharedApp, host: &str) -> Result<Volume> {
    let path = path(app, host).await?;
    if let Some((since, volume)) = app.volumes.open.lock().get(&path)
        && since.elapsed() < MAX_AGE
    {
        return Ok(Arc::clone(volume));
    }
    let directory = path.clone();
    let opened = tokio::task::spawn_blocking(move || LocalVolume::open(&directory)).await;
    let opened = opened.map_err(|error| Error::internal("open a volume", error))?;
    let volume: Volume = match opened {
        Ok(volume) => Arc::new(volume),
        Err(error) => return Err(Error::internal(format!("open the volume {host}"), error)),
    };
    app.volumes.open.lock().insert(path, (Instant::now(), Arc::clone(&volume)));
    Ok(volume)
}

async fn path(app: &SharedApp, host: &str) -> Result<PathBuf> {
    let Some(mount) = app.shared.volumes().await?.mount else {
        return Err(Error::invalid(
            "No directory for virtual folders is configured; an operator sets it by \
             `backendai-manager etcd put volumes/_mount DIRECTORY`.",
        ));
    };
    check_name(host)?;
    Ok(mount.join(host))
}

/// Refuses what cannot be the name of a host.
///
/// # Errors
/// So it is.
pub fn check_name(host: &str) -> Result<()> {
    match is_host_name(host) {
        true => Ok(()),
        false => Err(Error::invalid(format!("{host:?} cannot be the name of a vfolder host."))),
    }
}

/// True for names that are one directory beneath another.
fn is_host_name(host: &str) -> bool {
    let is_odd = |c: char| c == '/' || c == '\\' || c.is_control();
    !host.is_empty() && host.len() <= 128 && !host.starts_with('.') && !host.contains(is_odd)
}

/// The host that a new folder shall lie on.
///
/// # Errors
/// None is named, and there is no default.
pub async fn choose(app: &SharedApp, asked: Option<String>) -> Result<String> {
    let default = app.shared.volumes().await?.default_host;
    asked.or(default).ok_or_else(|| {
        Error::invalid(
            "You must specify the vfolder host because the default host is not configured.",
        )
    })
}

/// The hosts the caller may use; with a group those that it may use for that group.
///
/// # Errors
/// PostgreSQL or etcd failed.
pub async fn list(
    app: &SharedApp,
    context: &RequestContext,
    group: Option<uuid::Uuid>,
) -> Result<HostsView> {
    let tx = app.datastore.autocommit().await?;
    let (domain, key) = (&context.domain_name, &context.access_key);
    let allowed: Hosts = tx.vfolder_hosts(domain, context.user_id, key, group).await?;
    drop(tx);
    let config = app.shared.volumes().await?;
    let mut hosts = BTreeMap::new();
    for host in allowed.into_iter().filter(|(_, allowed)| !allowed.is_empty()).map(|(h, _)| h) {
        match view(app, &host).await {
            Ok(view) => drop(hosts.insert(host, view)),
            // A policy may name hosts that are not there; the others can be used.
            Err(error) => {
                let error = backendai_service::telemetry::chain(&error);
                tracing::debug!(host, error, "a vfolder host cannot be used");
            }
        }
    }
    let default = config.default_host.filter(|host| hosts.contains_key(host));
    Ok(HostsView { default, hosts, exposed: config.exposed })
}

async fn view(app: &SharedApp, host: &str) -> Result<HostView> {
    let volume = volume(app, host).await?;
    Ok(HostView { backend: volume.backend(), capacity: volume.capacity().await? })
}

/// All hosts there are, and the default one.
///
/// # Errors
/// etcd failed, or the directory of hosts cannot be read.
pub async fn all(app: &SharedApp) -> Result<(Option<String>, Vec<String>)> {
    let config = app.shared.volumes().await?;
    let Some(mount) = config.mount else { return Ok((config.default_host, Vec::new())) };
    let listed = tokio::task::spawn_blocking(move || names(&mount)).await;
    let listed = listed.map_err(|error| Error::internal("list vfolder hosts", error))?;
    let mut hosts = listed.map_err(|error| Error::internal("list vfolder hosts", error))?;
    hosts.extend(config.default_host.clone());
    hosts.sort_unstable();
    hosts.dedup();
    Ok((config.default_host, hosts))
}

/// All hosts there are, with what they hold.
///
/// # Errors
/// As [`all`], or one of them fails.
pub async fn volumes(app: &SharedApp) -> Result<Vec<VolumeView>> {
    let mut volumes = Vec::new();
    for host in all(app).await?.1 {
        let volume = volume(app, &host).await?;
        let (backend, path) = (volume.backend(), volume.location());
        volumes.push(VolumeView { host, backend, path, capacity: volume.capacity().await? });
    }
    Ok(volumes)
}

/// The hosts that are there, and where.
///
/// # Errors
/// As [`all`].
pub async fn locations(app: &SharedApp) -> Result<Vec<(String, String)>> {
    let mut locations = Vec::new();
    for host in all(app).await?.1 {
        let path = path(app, &host).await?.display().to_string();
        locations.push((host, path));
    }
    Ok(locations)
}

/// What a host counts of its use, where its kind of volume does.
///
/// # Errors
/// There is no such host, or it does not.
pub async fn performance(app: &SharedApp, host: &str) -> Result<Performance> {
    if !all(app).await?.1.iter().any(|known| known == host) {
        return Err(Error::NotFound { object: "vfolder host", message: Some(host.to_owned()) });
    }
    Ok(volume(app, host).await?.performance().await?)
}

fn names(mount: &Path) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(mount) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let (true, Ok(name)) = (entry.path().is_dir(), entry.file_name().into_string())
            && is_host_name(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Kinds of folders there may be: `user`, `group`.
///
/// # Errors
/// etcd failed.
pub async fn allowed_types(app: &SharedApp) -> Result<Vec<&'static str>> {
    let config = app.shared.volumes().await?;
    let mut types = Vec::new();
    if config.user_folders {
        types.push("user");
    }
    if config.group_folders {
        types.push("group");
    }
    Ok(types)
}

/// Refuses a host that the caller may not make folders on.
///
/// # Errors
/// So it is.
pub async fn check_create(app: &SharedApp, context: &RequestContext, host: &str) -> Result<()> {
    access::check_host(app, context, host, backendai_types::HostPermission::Create).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_directory() {
        for good in ["local", "local:volume1", "nfs-1"] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "../x", "a\0b", "a\\b"] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }
}
