//! Reads container registries and records the images they have.
//!
//! A scan never removes rows: an image that was deleted from its registry may still run
//! from the agents' copies, and forgetting it is an operator's decision. A tag that cannot
//! be used is skipped with a reason; a registry that does not answer ends its scan.

mod catalogue;
mod engine;
mod headers;
mod manifest;
mod registry;

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};

use backendai_datastore::image::{NewImage, Upserted};
use backendai_datastore::{Datastore, DatastoreError};
use backendai_types::{ImageRef, image::InvalidImageRef};

use crate::shared_config::{Registry, RegistryKind};

pub use manifest::ImageManifest;
pub use registry::{RegistryClient, RegistryError};

/// Tags that are looked at at the same time. Each asks one thing after the other, so this is
/// also the number of requests a registry sees from us at once.
const TAGS_AT_ONCE: usize = 4;

/// What to scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every registry.
    All,
    /// One registry.
    Registry(String),
    /// One repository of a registry with all its tags.
    Repository {
        /// The registry.
        registry: String,
        /// Path within it.
        repository: String,
    },
    /// One tag.
    Tag(ImageRef),
}

/// What a scan has just done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Steps done.
    pub done: usize,
    /// Steps known of; grows as tags are found.
    pub total: usize,
    /// What happened, for people: `Updated stable/python:3.11/x86_64 (sha256:…)`.
    pub message: String,
}

/// What came of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Images that were not known.
    pub added: usize,
    /// Images whose row was brought up to date.
    pub changed: usize,
    /// Images whose row was right.
    pub same: usize,
    /// Images that cannot be used, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Registries that could not be scanned to the end, with the reason.
    pub failed: Vec<(String, String)>,
}

impl ScanReport {
    /// Images that were found and can be used.
    pub fn found(&self) -> usize {
        self.added + self.changed + self.same
    }
}

/// Why nothing was scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The target names no registry that is configured.
    #[error(
        "there is no registry {name:?}; {}: add it with \
         `backendai-manager etcd put config/docker/registry/{} URL`",
        listed(.known), backendai_service::etcd::quote(.name)
    )]
    UnknownRegistry {
        /// What was asked for.
        name: String,
        /// The registries there are.
        known: Vec<String>,
    },
    /// No registry is configured.
    #[error(
        "no container registry is configured: add one with \
         `backendai-manager etcd put config/docker/registry/NAME URL`"
    )]
    NoRegistries,
    /// The target is neither a registry nor an image name.
    #[error(transparent)]
    InvalidName(#[from] InvalidImageRef),
    /// The database failed.
    #[error("record images")]
    Datastore(#[from] DatastoreError),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none is configured".into()
    } else {
        format!("there are {}", names.join(", "))
    }
}

impl Target {
    /// What a user means by a text: nothing, a registry's name, or an image's with or
    /// without a tag.
    ///
    /// # Errors
    /// It names no registry that is configured.
    pub fn parse(
        text: Option<&str>,
        registries: &BTreeMap<String, Registry>,
    ) -> Result<Self, ScanError> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::All) };
        if registries.contains_key(text) {
            return Ok(Self::Registry(text.to_owned()));
        }
        let known: Vec<_> = registries.keys().cloned().collect();
        if !text.contains('/') {
            return Err(ScanError::UnknownRegistry { name: text.to_owned(), known });
        }
        let image = ImageRef::parse(text, &known)?;
        if !registries.contains_key(&image.registry) {
            return Err(ScanError::UnknownRegistry { name: image.registry, known });
        }
        let has_tag = text.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
        if has_tag {
            return Ok(Self::Tag(image));
        }
        Ok(Self::Repository { registry: image.registry, repository: image.name })
    }

    fn registry(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Registry(registry) | Self::Repository { registry, .. } => Some(registry),
            Self::Tag(image) => Some(&image.registry),
        }
    }
}

/// Scans a target and records what it finds. `on_step` is called for every image.
///
/// # Errors
/// Nothing could be scanned at all, or the database failed. A registry that fails is in
/// the report.
pub async fn scan(
    datastore: &Datastore,
    registries: &BTreeMap<String, Registry>,
    target: &Target,
    on_step: impl FnMut(Step),
) -> Result<ScanReport, ScanError> {
    if registries.is_empty() {
        return Err(ScanError::NoRegistries);
    }
    let mut scan = Scan { datastore, on_step, report: ScanReport::default(), done: 0, total: 0 };
    for registry in registries.values() {
        if target.registry().is_some_and(|name| name != registry.name) {
            continue;
        }
        match scan.registry(registry, target).await {
            Ok(()) => {}
            Err(Stop::Registry(error)) => {
                let why = backendai_service::telemetry::chain(&error);
                scan.report.failed.push((registry.name.clone(), why));
            }
            Err(Stop::Datastore(error)) => return Err(error.into()),
        }
    }
    Ok(scan.report)
}

/// What to scan to read the images of this host's engine: all that are made for us, or one.
pub fn local_engine(image: Option<&str>) -> (BTreeMap<String, Registry>, Target) {
    let registry = engine::registry();
    let name = registry.name.clone();
    let target = match image.filter(|image| !image.is_empty()) {
        None => Target::Registry(name.clone()),
        Some(image) => Target::Repository { registry: name.clone(), repository: image.to_owned() },
    };
    (BTreeMap::from([(name, registry)]), target)
}

struct Scan<'a, F> {
    datastore: &'a Datastore,
    on_step: F,
    report: ScanReport,
    done: usize,
    total: usize,
}

enum Stop {
    Registry(RegistryError),
    Datastore(DatastoreError),
}

impl From<RegistryError> for Stop {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<DatastoreError> for Stop {
    fn from(error: DatastoreError) -> Self {
        Self::Datastore(error)
    }
}

impl<F: FnMut(Step)> Scan<'_, F> {
    async fn registry(&mut self, registry: &Registry, target: &Target) -> Result<(), Stop> {
        if registry.kind == RegistryKind::Local {
            return self.engine(registry, target).await;
        }
        let client = RegistryClient::connect(registry).await?;
        let repositories = match target {
            Target::Tag(image) => {
                let tags = vec![image.tag.clone()];
                return self.tags(registry, &client, &image.name, tags, true).await;
            }
            Target::Repository { repository, .. } => vec![repository.clone()],
            Target::All | Target::Registry(_) => client.catalogue(registry).await?,
        };
        let single = matches!(target, Target::Repository { .. });
        for repository in repositories {
            match client.repository_tags(registry, &repository).await {
                Ok(tags) => self.tags(registry, &client, &repository, tags, single).await?,
                // A repository may be listed and have no tag left.
                Err(RegistryError::NotFound { .. }) if !single => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Images of an engine. What is known from a registry already stays as the registry tells.
    async fn engine(&mut self, registry: &Registry, target: &Target) -> Result<(), Stop> {
        let client = engine::EngineClient::new(registry)?;
        let names = match target {
            Target::Repository { repository, .. } => vec![repository.clone()],
            Target::All | Target::Registry(_) | Target::Tag(_) => client.tags().await?,
        };
        self.total += names.len();
        for name in names {
            let manifest = client.image(&name).await?;
            let (owner, repository, tag) = engine::canonical(&name);
            let architecture = manifest.architecture();
            let digest = manifest.config_digest().to_owned();
            let is_known = self.datastore.autocommit().await?.image_is_remote(&digest).await?;
            let image = match is_known {
                true => Err("it is known from a registry".to_owned()),
                false => manifest
                    .into_image(&owner, &repository, &tag)
                    .map(|image| NewImage { is_local: true, ..image }),
            };
            self.record(&repository, &tag, &architecture, image).await?;
        }
        Ok(())
    }

    /// `named` tells that the user named the tag or repository: then it must be there.
    async fn tags(
        &mut self,
        registry: &Registry,
        client: &RegistryClient,
        repository: &str,
        tags: Vec<String>,
        named: bool,
    ) -> Result<(), Stop> {
        self.total += tags.len();
        let mut found = stream::iter(tags)
            .map(|tag| async move {
                let manifests = client.images(repository, &tag).await;
                manifests.map(|manifests| (tag, manifests))
            })
            .buffer_unordered(TAGS_AT_ONCE);
        loop {
            let (tag, manifests) = match found.try_next().await {
                Ok(None) => return Ok(()),
                Ok(Some(found)) => found,
                // Deleted since the list was made.
                Err(RegistryError::NotFound { .. }) if !named => {
                    self.total -= 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            // The tag itself was one step; each of its platforms is one.
            self.total = self.total + manifests.len() - 1;
            for (architecture, manifest) in manifests {
                let image = manifest.and_then(|m| m.into_image(&registry.name, repository, &tag));
                self.record(repository, &tag, &architecture, image).await?;
            }
        }
    }

    async fn record(
        &mut self,
        repository: &str,
        tag: &str,
        architecture: &str,
        image: Result<NewImage, String>,
    ) -> Result<(), DatastoreError> {
        let name = format!("{repository}:{tag}/{architecture}");
        let message = match image {
            Ok(image) => {
                let digest = &image.config_digest;
                let message = format!("Updated {name} ({digest})");
                match self.datastore.autocommit().await?.image_upsert(&image).await? {
                    Upserted::Added => self.report.added += 1,
                    Upserted::Changed => self.report.changed += 1,
                    Upserted::Same => self.report.same += 1,
                }
                message
            }
            Err(reason) => {
                let message = format!("Skipped {name} ({reason})");
                self.report.skipped.push((name, reason));
                message
            }
        };
        self.done += 1;
        (self.on_step)(Step { done: self.done, total: self.total, message });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_what_users_mean() {
        let registry = Registry {
            name: "127.0.0.1:5000".into(),
            url: "http://127.0.0.1:5000".into(),
            kind: RegistryKind::Docker,
            username: None,
            password: None,
            projects: vec![],
            ssl_verify: true,
        };
        let registries = BTreeMap::from([(registry.name.clone(), registry)]);
        let parse = |text: &str| Target::parse(Some(text), &registries);
        assert_eq!(parse("").unwrap(), Target::All);
        assert_eq!(parse("127.0.0.1:5000").unwrap(), Target::Registry("127.0.0.1:5000".into()));
        let repository = Target::Repository {
            registry: "127.0.0.1:5000".into(),
            repository: "stable/python".into(),
        };
        assert_eq!(parse("127.0.0.1:5000/stable/python").unwrap(), repository);
        assert!(
            matches!(parse("127.0.0.1:5000/stable/python:3.11"), Ok(Target::Tag(image)) if image.tag == "3.11")
        );
        let error = parse("other:5000").unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:5000") && error.contains("other%3A5000"), "{error}");
        assert!(matches!(parse("python/x"), Err(ScanError::UnknownRegistry { .. })));
        assert!(matches!(parse("127.0.0.1:5000/A b"), Err(ScanError::InvalidName(_))));
    }
}
