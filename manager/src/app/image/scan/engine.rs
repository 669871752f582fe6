//! Images that the container engine of this host has and no registry: `image rescan --local`.
//! The engine is only read, over its own interface; running containers is the agents' work.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::manifest::{ImageConfig, ImageManifest, Manifest};
use super::registry::{RegistryError, Result, read_body};
use crate::shared_config::{Registry, RegistryKind};

/// Where the engine listens unless `DOCKER_HOST` says otherwise.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// Label without which agents ignore an image they were not told of.
const KERNELSPEC: &str = "ai.backend.kernelspec";
const TIMEOUT: Duration = Duration::from_secs(30);

/// This host's engine as a registry.
pub(super) fn registry() -> Registry {
    Registry {
        name: "local".to_owned(),
        url: std::env::var("DOCKER_HOST").unwrap_or_else(|_| SOCKET.to_owned()),
        kind: RegistryKind::Local,
        username: None,
        password: None,
        projects: Vec::new(),
        ssl_verify: true,
    }
}

/// A connection to an engine.
pub(super) struct EngineClient {
    http: reqwest::Client,
    base: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    architecture: String,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    config: Option<InspectedConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl EngineClient {
    /// A client of the engine at an address such as `unix:///var/run/docker.sock`.
    ///
    /// # Errors
    /// The address is of an unknown kind.
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        crate::tls::install_provider();
        let invalid =
            |message: String| RegistryError::InvalidUrl { url: registry.url.clone(), message };
        let builder = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
        let (builder, base) = match registry.url.split_once("://") {
            Some(("unix", path)) => (builder.unix_socket(path), "http://engine".to_owned()),
            Some(("tcp" | "http", host)) => (builder, format!("http://{host}")),
            _ => return Err(invalid("it must begin with unix:// or tcp://".into())),
        };
        let http = builder.build().map_err(|error| invalid(error.to_string()))?;
        Ok(Self { http, base })
    }

    /// Names of the images that are made for us.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(super) async fn tags(&self) -> Result<Vec<String>> {
        let listed: Vec<Listed> = self.get("list the engine's images", "/images/json").await?;
        let ours = listed.into_iter().filter(|image| {
            image.labels.as_ref().is_some_and(|labels| labels.contains_key(KERNELSPEC))
        });
        let mut tags: Vec<String> = ours.filter_map(|image| image.repo_tags).flatten().collect();
        tags.retain(|tag| !tag.starts_with("<none>"));
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// The image of a name.
    ///
    /// # Errors
    /// The engine does not answer, or has no such image.
    pub(super) async fn image(&self, name: &str) -> Result<ImageManifest> {
        let doing = format!("inspect the engine's image {name}");
        let found: Inspected = self.get(&doing, &format!("/images/{name}/json")).await?;
        let labels = found.config.and_then(|config| config.labels);
        Ok(ImageManifest {
            manifest: Manifest::of_engine(found.id, found.size),
            config: ImageConfig::of_engine(found.architecture, labels),
        })
    }

    async fn get<T: DeserializeOwned>(&self, doing: &str, path: &str) -> Result<T> {
        let response = self.http.get(format!("{}{path}", self.base)).send().await;
        let response = response
            .map_err(|source| RegistryError::Unavailable { doing: doing.to_owned(), source })?;
        let status = response.status();
        if status == reqwest::StatusCode::NOT_FOUND {
            return Err(RegistryError::NotFound { what: doing.to_owned() });
        }
        let body = read_body(doing, response).await?;
        let protocol =
            |message: String| RegistryError::Protocol { doing: doing.to_owned(), message };
        if !status.is_success() {
            return Err(protocol(format!("{status}: {}", String::from_utf8_lossy(&body))));
        }
        serde_json::from_slice(&body).map_err(|error| protocol(error.to_string()))
    }
}

/// An engine's name in canonical form: what has no registry is of Docker Hub, and what has no
/// project of its `library`. Gives registry, repository and tag.
pub(super) fn canonical(name: &str) -> (String, String, String) {
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (name, "latest"),
    };
    let first = path
        .split_once('/')
        .filter(|(first, _)| first.contains('.') || first.contains(':') || *first == "localhost");
    let (registry, repository) = match first {
        Some(("docker.io", rest)) => ("index.docker.io", rest.to_owned()),
        Some((registry, rest)) => (registry, rest.to_owned()),
        None if path.contains('/') => ("index.docker.io", path.to_owned()),
        None => ("index.docker.io", format!("library/{path}")),
    };
    (registry.to_owned(), repository, tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn names_of_an_engine_become_canonical() {
        for (name, expected) in [
            ("python:3", ("index.docker.io", "library/python", "3")),
            ("me/python", ("index.docker.io", "me/python", "latest")),
            ("docker.io/me/python:1", ("index.docker.io", "me/python", "1")),
            ("127.0.0.1:5000/a/b:c", ("127.0.0.1:5000", "a/b", "c")),
            ("localhost/b:c", ("localhost", "b", "c")),
        ] {
            let (registry, repository, tag) = canonical(name);
            assert_eq!((&*registry, &*repository, &*tag), expected, "{name}");
        }
    }
}
