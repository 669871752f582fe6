//! Folders in sessions: which ones, what of them, where, and who may write.

use std::collections::BTreeMap;

use backendai_datastore::policy::Owner;
use backendai_datastore::vfolder_access::{Relation, VfolderAccess, VfolderUser, Wanted};
use backendai_datastore::vfolder_mount::VfolderMount;
use backendai_storage::{FolderPath, Kind, LocalVolume};
use backendai_types::{
    GroupId, HostPermission, VfolderId, VfolderPermission, VfolderStatus, vfolder,
};

use super::access::{self, Hosts};
use super::{VfolderError, host};
use crate::app::{Error, Result, SharedApp};

/// The home folder of sessions.
const HOME: &str = "/home/work";
/// Places of the system and of ours: nothing is mounted onto or beneath them.
const CLOSED: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var",
    "/opt/kernel",
    "/opt/backend.ai",
    "/home/config",
];

/// Who a session is made for.
#[derive(Clone, Copy, Debug)]
pub struct SessionOwner<'a> {
    /// Its owner.
    pub owner: &'a Owner,
    /// Its domain.
    pub domain: &'a str,
    /// Its group.
    pub group: GroupId,
}

/// The mounts of a session: those asked for, by name or id with maybe a path in the folder,
/// and the owner's dot-prefixed folders.
///
/// # Errors
/// There is no such folder for the owner, a policy forbids it, or two are in each other's way.
pub async fn resolve(
    app: &SharedApp,
    session: SessionOwner<'_>,
    asked: &[String],
    targets: &BTreeMap<String, String>,
) -> Result<Vec<VfolderMount>> {
    let tx = app.datastore.autocommit().await?;
    let user = tx.vfolder_user(session.owner.user_id).await?;
    let Some(user) = user else { return Ok(Vec::new()) };
    let folders = tx.vfolders_accessible(&user, Wanted::default()).await?;
    let has_private = folders.iter().any(is_private);
    if asked.is_empty() && !has_private {
        return Ok(Vec::new());
    }
    let owner = session.owner;
    let hosts = tx.vfolder_hosts(session.domain, owner.user_id, &owner.access_key, None).await?;
    drop(tx);
    let mut mounts: Vec<VfolderMount> = Vec::new();
    for reference in asked {
        let (access, path) = find(&folders, &user, reference)?;
        if access.folder.owner.group().is_some_and(|group| group != session.group) {
            continue;
        }
        access::check_allowed(&hosts, &access.folder.host, HostPermission::Mount)?;
        if access.folder.status == VfolderStatus::Performing {
            let name = &access.folder.name;
            let message = format!("The folder {name} is still being made.");
            return Err(VfolderError::Status(message).into());
        }
        check_directory(app, access, &path).await?;
        let alias = targets.get(reference).or_else(|| targets.get(&access.folder.name));
        mounts.push(mount(access, &path, target(access, alias)?));
    }
    for access in folders.iter().filter(|access| is_private(access)) {
        let is_asked = mounts.iter().any(|mount| mount.vfolder == access.folder.id);
        if !is_asked && is_usable(access, &hosts) {
            let path = FolderPath::new("")?;
            mounts.push(mount(access, &path, target(access, None)?));
        }
    }
    check_apart(&mounts)?;
    Ok(mounts)
}

fn is_private(access: &VfolderAccess) -> bool {
    access.relation == Relation::Own && access.folder.name.starts_with('.')
}

fn is_usable(access: &VfolderAccess, hosts: &Hosts) -> bool {
    access.folder.status != VfolderStatus::Performing
        && hosts.get(&access.folder.host).is_some_and(|host| host.contains(&HostPermission::Mount))
}

/// The folder of `name`, `name/path`, `id` or `id/path`.
fn find<'a>(
    folders: &'a [VfolderAccess],
    user: &VfolderUser,
    reference: &str,
) -> Result<(&'a VfolderAccess, FolderPath)> {
    let (name, path) = reference.split_once('/').unwrap_or((reference, ""));
    let id: Option<VfolderId> = name.parse().ok();
    let found = folders.iter().find(|access| {
        (access.folder.name == name || Some(access.folder.id) == id)
            && access.allows(user, VfolderPermission::ReadOnly)
    });
    let found = found.ok_or_else(|| VfolderError::NotFound(name.to_owned()))?;
    Ok((found, FolderPath::new(path)?))
}

/// Refuses a path in a folder that is no directory there.
async fn check_directory(app: &SharedApp, access: &VfolderAccess, path: &FolderPath) -> Result<()> {
    let folder = &access.folder;
    let volume = host::volume(app, &folder.host).await?;
    let is_directory = match volume.stat(folder.id.0, path).await {
        Ok(entry) => entry.kind == Kind::Directory,
        Err(error) if error.is_not_found() => false,
        Err(error) => return Err(error.into()),
    };
    if is_directory {
        return Ok(());
    }
    Err(Error::invalid(format!("The folder {} has no directory {path}.", folder.name)))
}

/// Where a folder appears in the container.
fn target(access: &VfolderAccess, alias: Option<&String>) -> Result<String> {
    let Some(alias) = alias else {
        return Ok(match access.folder.name.as_str() {
            ".linuxbrew" => "/home/linuxbrew/.linuxbrew".to_owned(),
            name => format!("{HOME}/{name}"),
        });
    };
    let wrong = |why: &str| Err(Error::invalid(format!("mount_map: {alias} {why}")));
    let path = match alias.strip_prefix('/') {
        Some(_) => alias.clone(),
        None => format!("{HOME}/{alias}"),
    };
    let path = path.trim_end_matches('/').to_owned();
    let names: Vec<&str> = path.split('/').skip(1).collect();
    if names.iter().any(|name| matches!(*name, "" | "." | "..") || name.len() > 255) {
        return wrong("is not a path");
    }
    if path.chars().any(|c| c.is_control() || matches!(c, ':' | ',' | '\\')) {
        return wrong("has a character in it that no path here may have");
    }
    let is_below = |place: &str| {
        path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let at_home = path.strip_prefix(HOME).and_then(|rest| rest.strip_prefix('/'));
    let is_open = match at_home {
        Some(inner) => !vfolder::is_reserved(inner.split('/').next().unwrap_or(inner)),
        None => !path.starts_with("/home/") || path.starts_with("/home/linuxbrew/"),
    };
    if !is_open || vfolder::is_reserved(&path) || CLOSED.iter().any(|place| is_below(place)) {
        return wrong("is reserved for internal path.");
    }
    Ok(path)
}

fn mount(access: &VfolderAccess, path: &FolderPath, kernel_path: String) -> VfolderMount {
    let folder = &access.folder;
    let mut host_path = format!("{}/{}", folder.host, LocalVolume::relative_path(folder.id.0));
    if !path.is_root() {
        host_path = format!("{host_path}/{path}");
    }
    VfolderMount {
        name: folder.name.clone(),
        vfolder: folder.id,
        vfid: format!("{}/{}", folder.owner.quota_scope(), folder.id.0.simple()),
        vfsubpath: path.to_string(),
        host_path,
        kernel_path,
        mount_perm: access.permission,
        usage_mode: folder.usage_mode,
    }
}

/// Refuses mounts that are in each other's way: of the same files, or in the same place.
fn check_apart(mounts: &[VfolderMount]) -> Result<()> {
    let overlap = |one: &str, other: &str| {
        let is_below = |a: &str, b: &str| {
            a.strip_prefix(b).is_some_and(|r| r.is_empty() || r.starts_with('/'))
        };
        is_below(one, other) || is_below(other, one)
    };
    for (index, one) in mounts.iter().enumerate() {
        for other in &mounts[index + 1..] {
            if overlap(&one.host_path, &other.host_path) {
                return Err(Error::invalid(format!(
                    "Parts of the folder {} are mounted more than once.",
                    one.name
                )));
            }
            if overlap(&one.kernel_path, &other.kernel_path) {
                return Err(Error::invalid(format!(
                    "The folders {} and {} would be mounted onto each other: {} and {}.",
                    one.name, other.name, one.kernel_path, other.kernel_path
                )));
            }
        }
    }
    Ok(())
}
