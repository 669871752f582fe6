//! Mutations of domains.

use async_graphql::{Context, InputObject, Object, Result};
use backendai_datastore::domain::{DomainChange, NewDomain};

use super::super::identity::Domain;
use super::super::scalars::JsonString;
use super::door::{self, payloads};
use super::{caps, hosts, texts};
use crate::app::{self, domain};

/// Mutations of domains.
#[derive(Default)]
pub struct DomainMutations;

payloads! {
    /// A domain was made, or not.
    CreateDomain(domain: Domain);
    /// A domain was changed, or not.
    ModifyDomain(domain: Domain);
    /// A domain was made unusable, or not.
    DeleteDomain;
    /// A domain was removed, or not.
    PurgeDomain;
}

/// A domain to be made.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct DomainInput {
    #[graphql(default_with = "Some(String::new())")]
    description: Option<String>,
    #[graphql(default_with = "Some(true)")]
    is_active: Option<bool>,
    #[graphql(default_with = "JsonString::empty()")]
    total_resource_slots: Option<JsonString>,
    #[graphql(default_with = "JsonString::empty()")]
    allowed_vfolder_hosts: Option<JsonString>,
    #[graphql(default_with = "Some(Vec::new())")]
    allowed_docker_registries: Option<Vec<Option<String>>>,
    integration_id: Option<String>,
}

/// What of a domain is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct ModifyDomainInput {
    name: Option<String>,
    description: Option<String>,
    is_active: Option<bool>,
    total_resource_slots: Option<JsonString>,
    allowed_vfolder_hosts: Option<JsonString>,
    allowed_docker_registries: Option<Vec<Option<String>>>,
    integration_id: Option<String>,
}

impl DomainInput {
    fn into_new(self, name: String) -> app::Result<NewDomain> {
        Ok(NewDomain {
            name,
            description: self.description,
            is_active: self.is_active.unwrap_or(true),
            total_resource_slots: caps(
                "total_resource_slots",
                self.total_resource_slots.unwrap_or_default(),
            )?,
            allowed_vfolder_hosts: hosts(self.allowed_vfolder_hosts.unwrap_or_default())?,
            allowed_docker_registries: texts(self.allowed_docker_registries.unwrap_or_default()),
            integration_id: self.integration_id,
        })
    }
}

impl ModifyDomainInput {
    fn into_change(self) -> app::Result<DomainChange> {
        Ok(DomainChange {
            name: self.name,
            description: self.description,
            is_active: self.is_active,
            total_resource_slots: self
                .total_resource_slots
                .map(|value| caps("total_resource_slots", value))
                .transpose()?,
            allowed_vfolder_hosts: self.allowed_vfolder_hosts.map(hosts).transpose()?,
            allowed_docker_registries: self.allowed_docker_registries.map(texts),
            integration_id: self.integration_id,
        })
    }
}

/// Mutations of domains.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl DomainMutations {
    async fn create_domain(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: DomainInput,
    ) -> Result<Option<CreateDomain>> {
        let done = door::pass(ctx, name.clone(), async |asker| {
            domain::create(&asker.app, props.into_new(name)?).await
        });
        Ok(Some(done.await?.map(Domain).into()))
    }

    async fn modify_domain(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyDomainInput,
    ) -> Result<Option<ModifyDomain>> {
        let done = door::pass(ctx, &name, async |asker| {
            domain::modify(&asker.app, &name, props.into_change()?).await
        });
        Ok(Some(done.await?.map(Domain).into()))
    }

    /// Makes it unusable; nothing is removed.
    async fn delete_domain(&self, ctx: &Context<'_>, name: String) -> Result<Option<DeleteDomain>> {
        let done =
            door::pass(ctx, &name, async |asker| domain::deactivate(&asker.app, &name).await);
        Ok(Some(done.await?.into()))
    }

    /// Removes it for good.
    async fn purge_domain(&self, ctx: &Context<'_>, name: String) -> Result<Option<PurgeDomain>> {
        let done = door::pass(ctx, &name, async |asker| domain::purge(&asker.app, &name).await);
        Ok(Some(done.await?.into()))
    }
}
