//! Dotfiles and the bootstrap script: what users want in all of their sessions.
//!
//! A session gets the files of its domain, its group and its keypair; of two with the same
//! path the later one counts. Each lies beneath `/home/work` and nowhere else.

use backendai_datastore::dotfile::{Dotfile, DotfileOwner};
use backendai_types::AccessKey;
use uuid::Uuid;

use super::session::lookup;
use crate::app::{Error, Result, SharedApp};
use crate::context::{RequestContext, Role};

/// Bytes of all paths and contents of one owner together.
const MAX_BYTES: usize = 64 << 10;
/// Dotfiles of one owner.
const MAX_COUNT: usize = 100;
/// The longest name a file system takes, in bytes.
const MAX_NAME: usize = 255;
/// Characters of a bootstrap script.
const MAX_SCRIPT: usize = 64 << 10;
/// The folder that all of them lie in.
const HOME: &str = "/home/work/";
/// Paths that the platform itself fills.
const RESERVED: &[&str] =
    &[".terminfo", ".jupyter", ".ssh", ".ssh/authorized_keys", ".local", ".config"];
/// Files that the platform makes: nothing can lie below them.
const OUR_FILES: &[&str] =
    &[".bashrc", ".bash_profile", "id_container", ".ssh/id_rsa", ".ssh/authorized_keys"];

/// Whose dotfiles a request is about, as it names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A keypair's; the caller's own if it names none.
    Keypair(Option<String>),
    /// A group's, by id or by name within a domain.
    Group {
        /// Name or id.
        group: String,
        /// The domain; needed with a name.
        domain: Option<String>,
    },
    /// A domain's.
    Domain(String),
}

/// All dotfiles, in the order they were made.
///
/// # Errors
/// There is no such owner, or the caller may not see them.
pub async fn list(
    app: &SharedApp,
    context: &RequestContext,
    scope: &Scope,
) -> Result<Vec<Dotfile>> {
    let owner = owner(app, context, scope).await?;
    let tx = app.datastore.autocommit().await?;
    tx.dotfiles(&owner).await?.ok_or_else(|| no_owner(&owner))
}

/// The dotfile with this path.
///
/// # Errors
/// As [`list`], or there is none.
pub async fn get(
    app: &SharedApp,
    context: &RequestContext,
    scope: &Scope,
    path: &str,
) -> Result<Dotfile> {
    let dotfiles = list(app, context, scope).await?;
    dotfiles.into_iter().find(|known| is_same(&known.path, path)).ok_or_else(no_dotfile)
}

/// Adds a dotfile.
///
/// # Errors
/// As [`list`]; the path is taken or not allowed, or a limit is reached.
pub async fn create(
    app: &SharedApp,
    context: &RequestContext,
    scope: &Scope,
    new: Dotfile,
) -> Result<()> {
    check_path(&new.path)?;
    change(app, context, scope, |dotfiles| {
        if dotfiles.iter().any(|known| is_same(&known.path, &new.path)) {
            return Err(Error::DotfileExists);
        }
        if let Some(known) = dotfiles.iter().find(|known| overlap(&known.path, &new.path)) {
            return Err(Error::invalid(format!(
                "{} and {} cannot both be files.",
                known.path, new.path
            )));
        }
        dotfiles.push(new.clone());
        Ok(())
    })
    .await
}

/// Gives a dotfile other content and permissions.
///
/// # Errors
/// As [`get`], or a limit is reached.
pub async fn update(
    app: &SharedApp,
    context: &RequestContext,
    scope: &Scope,
    new: Dotfile,
) -> Result<()> {
    change(app, context, scope, |dotfiles| {
        let known = dotfiles.iter_mut().find(|known| is_same(&known.path, &new.path));
        *known.ok_or_else(no_dotfile)? = new.clone();
        Ok(())
    })
    .await
}

/// Removes a dotfile.
///
/// # Errors
/// As [`get`].
pub async fn delete(
    app: &SharedApp,
    context: &RequestContext,
    scope: &Scope,
    path: &str,
) -> Result<()> {
    change(app, context, scope, |dotfiles| {
        let before = dotfiles.len();
        dotfiles.retain(|known| !is_same(&known.path, path));
        if dotfiles.len() == before { Err(no_dotfile()) } else { Ok(()) }
    })
    .await
}

/// The caller's bootstrap script; may be empty.
///
/// # Errors
/// PostgreSQL failed.
pub async fn bootstrap_script(app: &SharedApp, context: &RequestContext) -> Result<String> {
    let tx = app.datastore.autocommit().await?;
    Ok(tx.bootstrap_script(&context.access_key).await?)
}

/// Replaces the caller's bootstrap script.
///
/// # Errors
/// It is too long.
pub async fn set_bootstrap_script(
    app: &SharedApp,
    context: &RequestContext,
    script: &str,
) -> Result<()> {
    if script.chars().count() > MAX_SCRIPT {
        return Err(Error::DotfileRefused("Maximum bootstrap script length reached".into()));
    }
    let tx = app.datastore.autocommit().await?;
    Ok(tx.bootstrap_script_store(&context.access_key, script).await?)
}

/// Of files with the same path the last one, as their path is beneath `/home/work`. An
/// earlier one that would stand in the way of a later one's folder is left out, and so is
/// one whose path is not allowed: rows need not have come through [`create`].
pub fn merge(dotfiles: Vec<Dotfile>) -> Vec<Dotfile> {
    let mut merged: Vec<Dotfile> = Vec::new();
    for mut dotfile in dotfiles {
        if let Err(error) = check_path(&dotfile.path) {
            tracing::warn!(path = dotfile.path, %error, "a dotfile is left out");
            continue;
        }
        dotfile.path = beneath_home(&dotfile.path).to_owned();
        merged.retain(|known| known.path != dotfile.path && !overlap(&known.path, &dotfile.path));
        merged.push(dotfile);
    }
    merged
}

async fn change(
    app: &SharedApp,
    context: &RequestContext,
    scope: &Scope,
    edit: impl Fn(&mut Vec<Dotfile>) -> Result<()>,
) -> Result<()> {
    let owner = owner(app, context, scope).await?;
    let (owner, edit) = (&owner, &edit);
    app.datastore
        .run_tx("dotfiles", |tx| async move {
            let mut dotfiles = tx.dotfiles_lock(owner).await?.ok_or_else(|| no_owner(owner))?;
            let before = bytes(&dotfiles);
            edit(&mut dotfiles)?;
            if dotfiles.len() > MAX_COUNT {
                return Err(Error::DotfileRefused("Maximum number of dotfiles reached".into()));
            }
            let after = bytes(&dotfiles);
            if after > MAX_BYTES && after > before {
                return Err(Error::DotfileRefused("Not enough space for dotfiles".into()));
            }
            Ok(tx.dotfiles_store(owner, &dotfiles).await?)
        })
        .await
}

fn bytes(dotfiles: &[Dotfile]) -> usize {
    dotfiles.iter().map(|dotfile| dotfile.path.len() + dotfile.data.len()).sum()
}

/// The owner a request means, if the caller may act for it. That only administrators'
/// keypairs change what groups and domains have is the routes' rule.
async fn owner(app: &SharedApp, context: &RequestContext, scope: &Scope) -> Result<DotfileOwner> {
    let forbidden = || Error::Forbidden("You may not use the dotfiles of others.".into());
    match scope {
        Scope::Keypair(key) => {
            let key: AccessKey = lookup::resolve_owner(app, context, key.as_deref()).await?;
            Ok(DotfileOwner::Keypair(key))
        }
        Scope::Domain(domain) => {
            if *domain != context.domain_name && !context.is_superadmin() {
                return Err(forbidden());
            }
            Ok(DotfileOwner::Domain(domain.clone()))
        }
        Scope::Group { group, domain } => {
            if domain.is_none() && Uuid::parse_str(group).is_err() {
                return Err(Error::invalid("Missing parameter 'domain'"));
            }
            let tx = app.datastore.autocommit().await?;
            let found = tx.group_membership(group, domain.as_deref(), context.user_id).await?;
            let Some(found) = found else {
                return Err(Error::NotFound { object: "user group (or project)", message: None });
            };
            let administers = match context.role {
                Role::Superadmin => true,
                Role::Admin => found.domain_name == context.domain_name,
                Role::User | Role::Monitor => false,
            };
            if !administers && !found.is_member {
                return Err(forbidden());
            }
            Ok(DotfileOwner::Group(found.id))
        }
    }
}

fn no_owner(owner: &DotfileOwner) -> Error {
    let object = match owner {
        DotfileOwner::Keypair(_) => "keypair",
        DotfileOwner::Group(_) => "user group (or project)",
        DotfileOwner::Domain(_) => "domain",
    };
    Error::NotFound { object, message: None }
}

fn no_dotfile() -> Error {
    Error::NotFound { object: "dotfile", message: None }
}

/// A path as it is beneath `/home/work`.
fn beneath_home(path: &str) -> &str {
    path.strip_prefix(HOME).unwrap_or(path)
}

fn is_same(one: &str, other: &str) -> bool {
    beneath_home(one) == beneath_home(other)
}

/// True if one would have to be a folder for the other to exist.
fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (beneath_home(one), beneath_home(other));
    is_below(one, other) || is_below(other, one)
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn check_path(path: &str) -> Result<()> {
    let relative = beneath_home(path);
    if relative.starts_with('/') {
        return Err(Error::invalid(format!("{path} is not beneath /home/work.")));
    }
    for name in relative.split('/') {
        let why = match name {
            "" => "has an empty name in it",
            "." | ".." => "must not contain . or ..",
            name if name.len() > MAX_NAME => "has a name in it that is too long",
            name if name.chars().any(char::is_control) => "has a control character in it",
            _ => continue,
        };
        return Err(Error::invalid(format!("The path {path:?} {why}.")));
    }
    if RESERVED.contains(&relative) || OUR_FILES.iter().any(|file| is_below(relative, file)) {
        return Err(Error::invalid(format!("{path} is reserved for internal operations.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, data: &str) -> Dotfile {
        Dotfile { path: path.into(), perm: "644".into(), data: data.into() }
    }

    #[test]
    fn paths_stay_beneath_the_home_folder() {
        for good in [".vimrc", "/home/work/.vimrc", ".a/b/c", "..a", ".bashrc", ".ssh/config"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in [
            "/etc/passwd",
            "/home/workshop",
            "/home/work",
            "/home/work/",
            "/home/work/../x",
            "../x",
            "a/../../x",
            "./x",
            "a//b",
            "a/",
            "a\nb",
            "",
            ".ssh",
            ".ssh/authorized_keys",
            "/home/work/.config",
            ".bashrc/x",
            ".ssh/id_rsa/x",
        ] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        assert!(check_path(&"x".repeat(256)).is_err());
    }

    #[test]
    fn the_later_file_counts_and_nothing_stands_in_its_way() {
        let merged = merge(vec![
            file(".a", "domain"),
            file(".b", "domain"),
            file("/etc/passwd", "no"),
            file("/home/work/.b", "group"),
            file(".a/x", "user"),
        ]);
        assert_eq!(merged, [file(".b", "group"), file(".a/x", "user")]);
    }
}
