//! `ContainerRegistry`.

use async_graphql::{ID, Object, SimpleObject};

use super::node;
use crate::shared_config::Registry;

/// A container registry.
pub struct ContainerRegistry(pub Registry);

/// How a registry is reached.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
struct ContainerRegistryConfig {
    url: String,
    #[graphql(name = "type")]
    kind: String,
    project: Option<Vec<Option<String>>>,
    username: Option<String>,
    /// Never shown: `*****` if there is one.
    password: Option<String>,
    ssl_verify: Option<bool>,
}

/// A container registry.
#[Object(rename_fields = "snake_case")]
impl ContainerRegistry {
    pub(super) async fn id(&self) -> ID {
        node::global_id("ContainerRegistry", &self.0.name)
    }

    async fn hostname(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    async fn config(&self) -> Option<ContainerRegistryConfig> {
        let registry = &self.0;
        Some(ContainerRegistryConfig {
            url: registry.url.clone(),
            kind: registry.kind.as_str().to_owned(),
            project: Some(registry.projects.iter().cloned().map(Some).collect()),
            username: registry.username.clone(),
            password: registry.password.as_ref().map(|_| "*****".to_owned()),
            ssl_verify: Some(registry.ssl_verify),
        })
    }
}
