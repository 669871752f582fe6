//! Container registries: kept in etcd below `config/docker/registry`, one node for each.

use std::collections::BTreeMap;

use backendai_service::etcd::{Etcd, quote};

use super::{Error, Result, SharedApp};
use crate::shared_config::{Registry, RegistryKind};

/// Where the registries are.
const PREFIX: &str = "config/docker/registry";

/// What of a registry is to be set; `None` leaves it as it is.
#[derive(Clone, Default)]
pub struct RegistryChange {
    /// Base URL.
    pub url: Option<String>,
    /// Its protocol.
    pub kind: Option<String>,
    /// Projects to scan (Harbor).
    pub projects: Option<Vec<String>>,
    /// Account.
    pub username: Option<String>,
    /// The account's password. Never logged.
    pub password: Option<String>,
    /// False accepts any certificate.
    pub ssl_verify: Option<bool>,
}

/// The registries by name.
///
/// # Errors
/// etcd cannot be reached and was never read.
pub async fn list(app: &SharedApp) -> Result<BTreeMap<String, Registry>> {
    Ok(app.shared.registries().await?)
}

/// The registry of this name.
///
/// # Errors
/// There is none.
pub async fn show(app: &SharedApp, name: &str) -> Result<Registry> {
    list(app).await?.remove(name).ok_or_else(missing)
}

/// Makes a registry.
///
/// # Errors
/// There is one of this name, or a value makes no sense.
pub async fn create(app: &SharedApp, name: &str, new: RegistryChange) -> Result<Registry> {
    if name.trim().is_empty() {
        return Err(Error::invalid("hostname must not be empty"));
    }
    check(&new)?;
    if new.url.is_none() {
        return Err(Error::invalid("url must not be empty"));
    }
    if app.etcd.get(&node(name)).await?.is_some() {
        return Err(Error::BadRequest(format!("the container registry {name} exists already")));
    }
    write(&app.etcd, name, &new).await?;
    app.shared.invalidate();
    show(app, name).await
}

/// Changes a registry.
///
/// # Errors
/// There is none, or a value makes no sense.
pub async fn modify(app: &SharedApp, name: &str, change: RegistryChange) -> Result<Registry> {
    check(&change)?;
    if app.etcd.get(&node(name)).await?.is_none() {
        return Err(missing());
    }
    write(&app.etcd, name, &change).await?;
    app.shared.invalidate();
    show(app, name).await
}

/// Removes a registry and returns what it was. Its images stay known until they are cleared.
///
/// # Errors
/// There is none.
pub async fn delete(app: &SharedApp, name: &str) -> Result<Registry> {
    app.shared.invalidate();
    let registry = show(app, name).await?;
    app.etcd.delete_prefix(&format!("{}/", node(name))).await?;
    app.etcd.delete(&node(name)).await?;
    app.shared.invalidate();
    Ok(registry)
}

fn check(change: &RegistryChange) -> Result<()> {
    if let Some(kind) = &change.kind {
        kind.parse::<RegistryKind>().map_err(|why| Error::invalid(format!("type: {why}")))?;
    }
    if let Some(url) = &change.url
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        return Err(Error::invalid(format!(
            "url: {url:?} begins with neither http:// nor https://"
        )));
    }
    Ok(())
}

async fn write(etcd: &Etcd, name: &str, change: &RegistryChange) -> Result<()> {
    let node = node(name);
    let below = |key: &str| format!("{node}/{key}");
    let pairs: Vec<(String, String)> = [
        (node.clone(), change.url.clone()),
        (below("type"), change.kind.clone()),
        (below("project"), change.projects.as_ref().map(|list| list.join(","))),
        (below("username"), change.username.clone()),
        (below("password"), change.password.clone()),
        (below("ssl_verify"), change.ssl_verify.map(|flag| flag.to_string())),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect();
    Ok(etcd.put_all(&pairs).await?)
}

fn node(name: &str) -> String {
    format!("{PREFIX}/{}", quote(name))
}

fn missing() -> Error {
    Error::NotFound { object: "container registry", message: None }
}
