//! What repositories and tags there are, where the common protocol does not tell: Harbor
//! (versions 1 and 2) and Docker Hub have interfaces of their own for that. The images
//! themselves are then read by the common protocol.

use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::headers::next_page;
use super::registry::{LINK_HEADER, RegistryClient, RegistryError, Result, header, read_body};
use crate::shared_config::{Registry, RegistryKind};
use backendai_service::etcd::quote;
use backendai_types::image::DEFAULT_REGISTRY;

/// Page size, as the product asks for.
const PAGE: u32 = 30;
/// Docker Hub's own interface; its registry has another address.
const HUB: &str = "https://hub.docker.com";
/// Repositories of the Hub that hold images of another product generation.
const HUB_SKIPPED: &str = "kernel-";

/// Who tells which repositories there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Catalogue {
    Common,
    Hub,
    Harbor1,
    Harbor2,
}

/// True for Docker Hub, whatever kind it is configured as.
pub(super) fn is_hub(registry: &Registry) -> bool {
    registry.name == DEFAULT_REGISTRY || registry.name.ends_with(".docker.io")
}

fn kind(registry: &Registry) -> Catalogue {
    match registry.kind {
        _ if is_hub(registry) => Catalogue::Hub,
        RegistryKind::Harbor => Catalogue::Harbor1,
        RegistryKind::Harbor2 => Catalogue::Harbor2,
        RegistryKind::Docker | RegistryKind::Local => Catalogue::Common,
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl RegistryClient {
    /// Names of the repositories to scan: all, or those of the configured projects or account.
    ///
    /// # Errors
    /// The registry fails, does not list them to this account, or needs to be told whose.
    pub async fn catalogue(&self, registry: &Registry) -> Result<Vec<String>> {
        match kind(registry) {
            Catalogue::Common => self.repositories().await,
            Catalogue::Hub => self.hub_repositories(registry).await,
            Catalogue::Harbor1 => self.harbor1_repositories(registry).await,
            Catalogue::Harbor2 => self.harbor2_repositories(registry).await,
        }
    }

    /// Tags of a repository, as its registry likes to be asked.
    ///
    /// # Errors
    /// The registry fails or has no such repository.
    pub async fn repository_tags(
        &self,
        registry: &Registry,
        repository: &str,
    ) -> Result<Vec<String>> {
        match (kind(registry), repository.split_once('/')) {
            (Catalogue::Harbor2, Some((project, name))) => {
                self.harbor2_tags(project, name, repository).await
            }
            _ => self.tags(repository).await,
        }
    }

    async fn hub_repositories(&self, registry: &Registry) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            next: Option<String>,
            results: Vec<Named>,
        }
        let Some(account) = &registry.username else {
            return Err(RegistryError::NotOffered(
                "Docker Hub cannot be scanned as a whole: say whose repositories in \
                 config/docker/registry/index.docker.io/username, or name an image, \
                 as in `image rescan index.docker.io/library/python:3.12-slim`",
            ));
        };
        let is_real = Url::parse(&registry.url)
            .is_ok_and(|url| url.host_str().is_some_and(|host| host.ends_with("docker.io")));
        let base = if is_real { HUB } else { &registry.url };
        let account_path = quote(account);
        let first = format!("{base}/v2/repositories/{account_path}/?page_size={PAGE}");
        let mut names = Vec::new();
        let mut next = Some(first);
        while let Some(url) = next {
            let (page, _) = self.api_page::<Page>("list repositories", &url, account).await?;
            let found = page.results.into_iter().filter(|r| !r.name.starts_with(HUB_SKIPPED));
            names.extend(found.map(|repository| format!("{account}/{}", repository.name)));
            next = page.next.filter(|next| *next != url && same_origin(&url, next));
        }
        Ok(names)
    }

    async fn harbor1_repositories(&self, registry: &Registry) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Project {
            project_id: i64,
            name: String,
        }
        let base = &registry.url;
        let mut projects: Vec<Project> = self
            .api_list("list projects", format!("{base}/api/projects?page_size={PAGE}"), "projects")
            .await?;
        self.pick(registry, &mut projects, |project| &project.name)?;
        let mut names = Vec::new();
        for Project { project_id, name } in projects {
            let doing = format!("list repositories of the project {name}");
            let url = format!("{base}/api/repositories?project_id={project_id}&page_size={PAGE}");
            let found: Vec<Named> = self.api_list(&doing, url, &name).await?;
            names.extend(found.into_iter().map(|repository| repository.name));
        }
        Ok(names)
    }

    async fn harbor2_repositories(&self, registry: &Registry) -> Result<Vec<String>> {
        let api = format!("{}/api/v2.0/projects", registry.url);
        let projects: Vec<String> = if registry.projects.is_empty() {
            let url = format!("{api}?page_size={PAGE}");
            let found: Vec<Named> = self.api_list("list projects", url, "projects").await?;
            found.into_iter().map(|project| project.name).collect()
        } else {
            registry.projects.clone()
        };
        let mut names = Vec::new();
        for project in projects {
            let doing = format!("list repositories of the project {project}");
            let url = format!("{api}/{}/repositories?page_size={PAGE}", quote(&project));
            let what = format!("the project {project}");
            let found: Vec<Named> = self.api_list(&doing, url, &what).await?;
            names.extend(found.into_iter().map(|repository| repository.name));
        }
        Ok(names)
    }

    /// Artifacts without a tag are layers of others or left over: they are no images of ours.
    async fn harbor2_tags(
        &self,
        project: &str,
        name: &str,
        repository: &str,
    ) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Artifact {
            tags: Option<Vec<Named>>,
        }
        // A name with slashes is quoted twice, as the interface wants it.
        let name = if name.contains('/') { quote(&quote(name)) } else { quote(name) };
        let url = format!(
            "{}/api/v2.0/projects/{}/repositories/{name}/artifacts?with_tag=true&page_size={PAGE}",
            self.base(),
            quote(project)
        );
        let doing = format!("list artifacts of {repository}");
        let artifacts: Vec<Artifact> = self.api_list(&doing, url, repository).await?;
        let tags = artifacts.into_iter().filter_map(|artifact| artifact.tags).flatten();
        Ok(tags.map(|tag| tag.name).collect())
    }

    /// Keeps the configured projects; all if none is configured.
    fn pick<T>(
        &self,
        registry: &Registry,
        projects: &mut Vec<T>,
        name: impl Fn(&T) -> &String,
    ) -> Result<()> {
        let wanted = &registry.projects;
        if wanted.is_empty() {
            return Ok(());
        }
        let missing = wanted.iter().find(|w| !projects.iter().any(|project| name(project) == *w));
        if let Some(missing) = missing {
            return Err(RegistryError::NotFound { what: format!("the project {missing}") });
        }
        projects.retain(|project| wanted.contains(name(project)));
        Ok(())
    }

    /// All pages of a list.
    async fn api_list<T: DeserializeOwned>(
        &self,
        doing: &str,
        first: String,
        what: &str,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut next = Some(first);
        while let Some(url) = next {
            // Where there is nothing, Harbor says `null`.
            let (page, link) = self.api_page::<Option<Vec<T>>>(doing, &url, what).await?;
            items.extend(page.unwrap_or_default());
            next = link.filter(|link| *link != url);
        }
        Ok(items)
    }

    /// One answer of a registry's own interface, and the address of the next.
    async fn api_page<T: DeserializeOwned>(
        &self,
        doing: &str,
        url: &str,
        what: &str,
    ) -> Result<(T, Option<String>)> {
        let response = self.api_get(doing, url).await?;
        let protocol =
            |message: String| RegistryError::Protocol { doing: doing.to_owned(), message };
        match response.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => {
                return Err(RegistryError::NotFound { what: what.to_owned() });
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.denied(doing.to_owned()));
            }
            status => return Err(protocol(status.to_string())),
        }
        let link = header(response.headers(), LINK_HEADER)
            .and_then(|link| next_page(response.url(), link));
        let body = read_body(doing, response).await?;
        let page = serde_json::from_slice(&body).map_err(|error| protocol(error.to_string()))?;
        Ok((page, link))
    }
}

/// Our credentials travel with requests, so a list does not lead us elsewhere.
fn same_origin(current: &str, next: &str) -> bool {
    match (Url::parse(current), Url::parse(next)) {
        (Ok(current), Ok(next)) => current.origin() == next.origin(),
        _ => false,
    }
}
