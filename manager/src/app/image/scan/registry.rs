//! Client of the Docker registry protocol, version 2, as far as a scan needs it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LINK, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::catalogue::is_hub;
use super::headers::{Challenge, next_page};
use super::manifest::{INDEX, ImageConfig, ImageManifest, Index, Manifest, SINGLE};
use crate::shared_config::Registry;

/// Largest answer that is read. Manifests and configurations are kilobytes; this is what
/// registries themselves allow.
const MAX_BODY: usize = 4 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts at a request that a busy registry puts off.
const ATTEMPTS: u32 = 4;
/// Name of the header that leads to the next page.
pub(super) const LINK_HEADER: &str = "link";
/// Page sizes, as the product asks for.
const CATALOG_PAGE: u32 = 30;
const TAGS_PAGE: u32 = 10;

/// A registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The URL cannot be used.
    #[error("the registry's URL {url:?} cannot be used: {message}")]
    InvalidUrl {
        /// The URL.
        url: String,
        /// Why.
        message: String,
    },
    /// No answer.
    #[error("{doing}")]
    Unavailable {
        /// What was asked.
        doing: String,
        /// Why there was no answer.
        #[source]
        source: reqwest::Error,
    },
    /// The credentials are missing or wrong.
    #[error("{doing}: access denied: {hint}")]
    Denied {
        /// What was asked.
        doing: String,
        /// What to do.
        hint: &'static str,
    },
    /// There is no such thing.
    #[error("{what}: not found in the registry")]
    NotFound {
        /// Repository or tag.
        what: String,
    },
    /// An answer that is not of the protocol.
    #[error("{doing}: {message}")]
    Protocol {
        /// What was asked.
        doing: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// We cannot do this with such a registry.
    #[error("{0}")]
    NotOffered(&'static str),
}

pub(super) type Result<T, E = RegistryError> = std::result::Result<T, E>;

/// How requests are authorized.
enum Auth {
    /// With the configured account, if there is one.
    Basic,
    /// With a token for each scope.
    Token { realm: Url, service: Option<String>, tokens: Mutex<HashMap<String, String>> },
}

/// A connection to one registry.
pub struct RegistryClient {
    http: reqwest::Client,
    base: String,
    credentials: Option<(String, String)>,
    auth: Auth,
}

/// A page of a list and the address of the next.
struct Page {
    body: Vec<u8>,
    next: Option<String>,
}

impl RegistryClient {
    /// Finds out how the registry wants to be spoken to.
    ///
    /// # Errors
    /// It does not answer, is no registry, or refuses the credentials.
    pub async fn connect(registry: &Registry) -> Result<Self> {
        crate::tls::install_provider();
        let invalid =
            |message: String| RegistryError::InvalidUrl { url: registry.url.clone(), message };
        let parsed = Url::parse(&registry.url).map_err(|error| invalid(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(invalid("it must begin with http:// or https://".into()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .danger_accept_invalid_certs(!registry.ssl_verify)
            .user_agent(concat!("backendai-manager/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let mut client = Self {
            http,
            base: registry.url.clone(),
            credentials: credentials(registry),
            auth: Auth::Basic,
        };
        client.auth = client.negotiate().await?;
        Ok(client)
    }

    async fn negotiate(&self) -> Result<Auth> {
        let doing = format!("ask {}/v2/ for its protocol", self.base);
        let url = format!("{}/v2/", self.base);
        let response = self.send(&doing, || self.basic(self.http.get(&url))).await?;
        let protocol = |message: String| RegistryError::Protocol { doing: doing.clone(), message };
        match response.status() {
            status if status.is_success() => Ok(Auth::Basic),
            StatusCode::UNAUTHORIZED => {
                let challenge = header(response.headers(), WWW_AUTHENTICATE.as_str());
                let challenge = Challenge::parse(challenge.unwrap_or_default());
                match challenge {
                    Some(Challenge { realm: Some(realm), service, .. }) => {
                        let realm = Url::parse(&realm)
                            .map_err(|error| protocol(format!("realm {realm:?}: {error}")))?;
                        Ok(Auth::Token { realm, service, tokens: Mutex::default() })
                    }
                    Some(_) | None => Err(self.denied(doing)),
                }
            }
            StatusCode::FORBIDDEN => Err(self.denied(doing)),
            status => Err(protocol(format!("{status}: this is no registry of version 2"))),
        }
    }

    /// Names of all repositories.
    ///
    /// # Errors
    /// The registry fails or does not list them to this account.
    pub async fn repositories(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Catalog {
            repositories: Option<Vec<String>>,
        }
        let first = format!("{}/v2/_catalog?n={CATALOG_PAGE}", self.base);
        let mut names = Vec::new();
        self.pages("list repositories", "registry:catalog:*", first, "the catalogue", |page| {
            let catalog: Catalog = page?;
            names.extend(catalog.repositories.unwrap_or_default());
            Ok(())
        })
        .await?;
        Ok(names)
    }

    /// Tags of a repository.
    ///
    /// # Errors
    /// The registry fails or has no such repository.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Tags {
            tags: Option<Vec<String>>,
        }
        let first = format!("{}/v2/{repository}/tags/list?n={TAGS_PAGE}", self.base);
        let doing = format!("list tags of {repository}");
        let mut names = Vec::new();
        self.pages(&doing, &pull(repository), first, repository, |page| {
            let tags: Tags = page?;
            names.extend(tags.tags.unwrap_or_default());
            Ok(())
        })
        .await?;
        Ok(names)
    }

    /// The images of a tag, one per platform, each with its architecture. What of a tag
    /// cannot be understood is a reason instead.
    ///
    /// # Errors
    /// The registry fails or has no such tag.
    pub async fn images(
        &self,
        repository: &str,
        tag: &str,
    ) -> Result<Vec<(String, Result<ImageManifest, String>)>> {
        let unusable = |why: String| Ok(vec![("unknown".to_owned(), Err(why))]);
        let (media_type, body) = self.manifest(repository, tag).await?;
        if SINGLE.contains(&media_type.as_str()) {
            return match self.image(repository, &body).await? {
                Ok(image) => Ok(vec![(image.architecture(), Ok(image))]),
                Err(why) => unusable(why),
            };
        }
        if !INDEX.contains(&media_type.as_str()) {
            return unusable(format!("a manifest of the unknown kind {media_type:?}"));
        }
        let index: Index = match serde_json::from_slice(&body) {
            Ok(index) => index,
            Err(error) => return unusable(format!("malformed index: {error}")),
        };
        let mut images = Vec::new();
        for descriptor in &index.manifests {
            let Some(architecture) = descriptor.architecture() else { continue };
            // An index may name what was never pushed; the other platforms are still good.
            let image = match self.manifest(repository, &descriptor.digest).await {
                Ok((_, body)) => match verify(&descriptor.digest, &body) {
                    Ok(()) => self.image(repository, &body).await?,
                    Err(why) => Err(why),
                },
                Err(RegistryError::NotFound { .. }) => Err("its manifest is missing".to_owned()),
                Err(error) => return Err(error),
            };
            images.push((architecture, image));
        }
        if images.is_empty() {
            return unusable("it has no image for Linux".into());
        }
        Ok(images)
    }

    async fn manifest(&self, repository: &str, reference: &str) -> Result<(String, Vec<u8>)> {
        let doing = format!("read the manifest of {repository}:{reference}");
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.base);
        let accept: Vec<_> = SINGLE.into_iter().chain(INDEX).collect();
        let what = format!("{repository}:{reference}");
        let response = self.get(&doing, &pull(repository), &url, &accept.join(", "), &what).await?;
        let media_type = header(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        Ok((media_type, read_body(&doing, response).await?))
    }

    /// The image of a manifest, with its configuration, or why it has none.
    async fn image(&self, repository: &str, body: &[u8]) -> Result<Result<ImageManifest, String>> {
        let manifest: Manifest = match serde_json::from_slice(body) {
            Ok(manifest) => manifest,
            Err(error) => return Ok(Err(format!("malformed manifest: {error}"))),
        };
        let digest = &manifest.config.digest;
        let doing = format!("read the configuration {digest} of {repository}");
        let url = format!("{}/v2/{repository}/blobs/{digest}", self.base);
        let blob = match self.get(&doing, &pull(repository), &url, "*/*", digest).await {
            Ok(response) => read_body(&doing, response).await?,
            Err(RegistryError::NotFound { .. }) => {
                return Ok(Err("its configuration is missing".into()));
            }
            Err(error) => return Err(error),
        };
        if let Err(why) = verify(digest, &blob) {
            return Ok(Err(why));
        }
        match serde_json::from_slice::<ImageConfig>(&blob) {
            Ok(config) if config.architecture.is_empty() => {
                Ok(Err("its configuration names no architecture: this is no image".into()))
            }
            Ok(config) => Ok(Ok(ImageManifest { manifest, config })),
            Err(error) => Ok(Err(format!("malformed configuration: {error}"))),
        }
    }

    /// Reads a list page by page.
    async fn pages<T: DeserializeOwned>(
        &self,
        doing: &str,
        scope: &str,
        first: String,
        what: &str,
        mut each: impl FnMut(Result<T>) -> Result<()>,
    ) -> Result<()> {
        let mut next = Some(first);
        while let Some(url) = next {
            let page = self.page(doing, scope, &url, what).await?;
            each(serde_json::from_slice(&page.body).map_err(|error| RegistryError::Protocol {
                doing: doing.to_owned(),
                message: error.to_string(),
            }))?;
            // A page that leads to itself would never end.
            next = page.next.filter(|next| *next != url);
        }
        Ok(())
    }

    async fn page(&self, doing: &str, scope: &str, url: &str, what: &str) -> Result<Page> {
        let response = self.get(doing, scope, url, "application/json", what).await?;
        let next = header(response.headers(), LINK.as_str())
            .and_then(|link| next_page(response.url(), link));
        Ok(Page { body: read_body(doing, response).await?, next })
    }

    /// A GET that is authorized for a scope.
    async fn get(
        &self,
        doing: &str,
        scope: &str,
        url: &str,
        accept: &str,
        what: &str,
    ) -> Result<Response> {
        let mut token = self.token(scope, false).await?;
        let mut renewed = false;
        loop {
            let request = || {
                let request = self.http.get(url).header(ACCEPT, accept);
                match &token {
                    Some(token) => request.bearer_auth(token),
                    None => self.basic(request),
                }
            };
            let response = self.send(doing, request).await?;
            match response.status() {
                status if status.is_success() => return Ok(response),
                StatusCode::UNAUTHORIZED if token.is_some() && !renewed => {
                    // Tokens live for minutes, large scans longer.
                    renewed = true;
                    token = self.token(scope, true).await?;
                }
                StatusCode::NOT_FOUND => {
                    return Err(RegistryError::NotFound { what: what.to_owned() });
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(self.denied(doing.to_owned()));
                }
                status => {
                    let doing = doing.to_owned();
                    return Err(RegistryError::Protocol { doing, message: status.to_string() });
                }
            }
        }
    }

    async fn token(&self, scope: &str, renew: bool) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Reply {
            token: Option<String>,
            access_token: Option<String>,
        }
        let Auth::Token { realm, service, tokens } = &self.auth else { return Ok(None) };
        if !renew && let Some(token) = tokens.lock().get(scope) {
            return Ok(Some(token.clone()));
        }
        let doing = format!("ask {realm} for access to {scope}");
        let mut query = vec![("scope", scope), ("client_id", "docker"), ("offline_token", "true")];
        query.extend(service.as_deref().map(|service| ("service", service)));
        let request = || self.basic(self.http.get(realm.clone()).query(&query));
        let response = self.send(&doing, request).await?;
        if !response.status().is_success() {
            return Err(self.denied(doing));
        }
        let body = read_body(&doing, response).await?;
        let reply: Option<Reply> = serde_json::from_slice(&body).ok();
        let token = reply.and_then(|reply| reply.token.or(reply.access_token));
        let Some(token) = token else {
            let message = "the answer has no token".to_owned();
            return Err(RegistryError::Protocol { doing, message });
        };
        tokens.lock().insert(scope.to_owned(), token.clone());
        Ok(Some(token))
    }

    /// Sends a request, again after a while if the registry puts it off.
    async fn send(
        &self,
        doing: &str,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<Response> {
        let mut attempt = 1;
        loop {
            let result = request().send().await;
            let put_off = match &result {
                Ok(response) => matches!(response.status().as_u16(), 429 | 502 | 503 | 504),
                Err(error) => error.is_timeout() && !error.is_connect(),
            };
            if put_off && attempt < ATTEMPTS {
                tokio::time::sleep(Duration::from_millis(250) * 2u32.pow(attempt)).await;
                attempt += 1;
                continue;
            }
            return result.map_err(|source| RegistryError::Unavailable {
                doing: doing.to_owned(),
                source: source.without_url(),
            });
        }
    }

    /// Where the registry is.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Asks the registry's own interface, which takes the account and no token.
    pub(super) async fn api_get(&self, doing: &str, url: &str) -> Result<Response> {
        self.send(doing, || self.basic(self.http.get(url))).await
    }

    fn basic(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    pub(super) fn denied(&self, doing: String) -> RegistryError {
        let hint = if self.credentials.is_some() {
            "check config/docker/registry/NAME/username and password"
        } else {
            "give it an account in config/docker/registry/NAME/username and password"
        };
        RegistryError::Denied { doing, hint }
    }
}

/// The account to log in with. At Docker Hub a name without a password only says whose
/// repositories are meant.
fn credentials(registry: &Registry) -> Option<(String, String)> {
    let user = registry.username.clone()?;
    match &registry.password {
        Some(password) => Some((user, password.expose().to_owned())),
        None if is_hub(registry) => None,
        None => Some((user, String::new())),
    }
}

fn pull(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Reads an answer of bounded size.
pub(super) async fn read_body(doing: &str, mut response: Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|source| RegistryError::Unavailable {
            doing: doing.to_owned(),
            source: source.without_url(),
        })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > MAX_BODY {
            let message = format!("the answer is larger than {MAX_BODY} bytes");
            return Err(RegistryError::Protocol { doing: doing.to_owned(), message });
        }
        body.extend_from_slice(&chunk);
    }
}

/// Content is what its digest says.
fn verify(digest: &str, content: &[u8]) -> Result<(), String> {
    let Some(expected) = digest.strip_prefix("sha256:") else {
        return Err(format!("the digest {digest:?} is of an unknown kind"));
    };
    let actual = hex::encode(Sha256::digest(content));
    if actual == expected {
        Ok(())
    } else {
        Err(format!("the content of {digest} has another digest, sha256:{actual}"))
    }
}
