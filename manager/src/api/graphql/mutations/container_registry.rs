//! Mutations of container registries. They have no `ok` and `msg`: what fails is an error.

use async_graphql::{Context, InputObject, Object, Result, SimpleObject};

use super::super::container_registry::ContainerRegistry;
use super::door;
use super::texts;
use crate::app::container_registry::{self, RegistryChange};

/// Mutations of container registries.
#[derive(Default)]
pub struct RegistryMutations;

/// A registry was made.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
struct CreateContainerRegistry {
    container_registry: Option<ContainerRegistry>,
}

/// A registry was changed.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
struct ModifyContainerRegistry {
    container_registry: Option<ContainerRegistry>,
}

/// A registry was removed.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
struct DeleteContainerRegistry {
    container_registry: Option<ContainerRegistry>,
}

/// A registry to be made.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct CreateContainerRegistryInput {
    url: String,
    #[graphql(name = "type")]
    kind: String,
    project: Option<Vec<Option<String>>>,
    username: Option<String>,
    password: Option<String>,
    ssl_verify: Option<bool>,
}

/// What of a registry is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct ModifyContainerRegistryInput {
    url: Option<String>,
    #[graphql(name = "type")]
    kind: Option<String>,
    project: Option<Vec<Option<String>>>,
    username: Option<String>,
    password: Option<String>,
    ssl_verify: Option<bool>,
}

impl ModifyContainerRegistryInput {
    fn into_change(self) -> RegistryChange {
        RegistryChange {
            url: self.url,
            kind: self.kind,
            projects: self.project.map(texts),
            username: self.username,
            password: self.password,
            ssl_verify: self.ssl_verify,
        }
    }
}

impl CreateContainerRegistryInput {
    fn into_new(self) -> RegistryChange {
        RegistryChange {
            url: Some(self.url),
            kind: Some(self.kind),
            projects: self.project.map(texts),
            username: self.username,
            password: self.password,
            ssl_verify: self.ssl_verify,
        }
    }
}

/// Mutations of container registries.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RegistryMutations {
    async fn create_container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
        props: CreateContainerRegistryInput,
    ) -> Result<Option<CreateContainerRegistry>> {
        let done = door::pass(ctx, &hostname, async |asker| {
            container_registry::create(&asker.app, &hostname, props.into_new()).await
        });
        let container_registry = done.await?.map(ContainerRegistry).or_error()?;
        Ok(Some(CreateContainerRegistry { container_registry }))
    }

    async fn modify_container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
        props: ModifyContainerRegistryInput,
    ) -> Result<Option<ModifyContainerRegistry>> {
        let done = door::pass(ctx, &hostname, async |asker| {
            container_registry::modify(&asker.app, &hostname, props.into_change()).await
        });
        let container_registry = done.await?.map(ContainerRegistry).or_error()?;
        Ok(Some(ModifyContainerRegistry { container_registry }))
    }

    async fn delete_container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
    ) -> Result<Option<DeleteContainerRegistry>> {
        let done = door::pass(ctx, &hostname, async |asker| {
            container_registry::delete(&asker.app, &hostname).await
        });
        let container_registry = done.await?.map(ContainerRegistry).or_error()?;
        Ok(Some(DeleteContainerRegistry { container_registry }))
    }
}
