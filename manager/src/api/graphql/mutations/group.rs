//! Mutations of groups.

use async_graphql::{Context, InputObject, Object, Result};
use backendai_datastore::group::{GroupChange, NewGroup};
use backendai_types::GroupId;

use super::super::identity::Group;
use super::super::scalars::{JsonString, Uuid};
use super::door::{self, payloads};
use super::{caps, hosts, ids};
use crate::app::group::{self, GroupEdit, Membership};
use crate::app::{self, Error};

/// Mutations of groups.
#[derive(Default)]
pub struct GroupMutations;

payloads! {
    /// A group was made, or not.
    CreateGroup(group: Group);
    /// A group was changed, or not.
    ModifyGroup(group: Group);
    /// A group was made unusable, or not.
    DeleteGroup;
    /// A group was removed, or not.
    PurgeGroup;
}

/// A group to be made.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct GroupInput {
    #[graphql(default_with = "Some(String::new())")]
    description: Option<String>,
    #[graphql(default_with = "Some(true)")]
    is_active: Option<bool>,
    domain_name: String,
    #[graphql(default_with = "JsonString::empty()")]
    total_resource_slots: Option<JsonString>,
    #[graphql(default_with = "JsonString::empty()")]
    allowed_vfolder_hosts: Option<JsonString>,
    #[graphql(default_with = "Some(String::new())")]
    integration_id: Option<String>,
    #[graphql(default_with = "Some(\"default\".to_owned())")]
    resource_policy: Option<String>,
}

/// What of a group is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct ModifyGroupInput {
    name: Option<String>,
    description: Option<String>,
    is_active: Option<bool>,
    domain_name: Option<String>,
    total_resource_slots: Option<JsonString>,
    /// `add` or `remove`: what becomes of `user_uuids`.
    user_update_mode: Option<String>,
    user_uuids: Option<Vec<Option<String>>>,
    allowed_vfolder_hosts: Option<JsonString>,
    integration_id: Option<String>,
    resource_policy: Option<String>,
}

impl GroupInput {
    fn into_new(self, name: String) -> app::Result<NewGroup> {
        Ok(NewGroup {
            name,
            description: self.description,
            is_active: self.is_active.unwrap_or(true),
            domain_name: self.domain_name,
            total_resource_slots: caps(
                "total_resource_slots",
                self.total_resource_slots.unwrap_or_default(),
            )?,
            allowed_vfolder_hosts: hosts(self.allowed_vfolder_hosts.unwrap_or_default())?,
            integration_id: self.integration_id.filter(|id| !id.is_empty()),
            resource_policy: self.resource_policy.unwrap_or_else(|| "default".to_owned()),
        })
    }
}

impl ModifyGroupInput {
    fn into_edit(self) -> app::Result<GroupEdit> {
        let mode = match self.user_update_mode.as_deref() {
            None => None,
            Some("add") => Some(Membership::Add),
            Some("remove") => Some(Membership::Remove),
            Some(_) => return Err(Error::invalid("invalid user_update_mode")),
        };
        let users = self.user_uuids.map(|list| ids("user_uuids", list)).transpose()?;
        let change = GroupChange {
            name: self.name,
            description: self.description,
            is_active: self.is_active,
            domain_name: self.domain_name,
            total_resource_slots: self
                .total_resource_slots
                .map(|value| caps("total_resource_slots", value))
                .transpose()?,
            allowed_vfolder_hosts: self.allowed_vfolder_hosts.map(hosts).transpose()?,
            integration_id: self.integration_id,
            resource_policy: self.resource_policy,
        };
        let edit = GroupEdit { change, members: mode.zip(users) };
        if edit == GroupEdit::default() {
            return Err(Error::BadRequest("nothing to update".into()));
        }
        Ok(edit)
    }
}

/// Mutations of groups.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl GroupMutations {
    async fn create_group(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: GroupInput,
    ) -> Result<Option<CreateGroup>> {
        let target = format!("{}/{name}", props.domain_name);
        let done = door::pass(ctx, target, async |asker| {
            group::create(&asker.app, &asker.context, props.into_new(name)?).await
        });
        Ok(Some(done.await?.map(Group).into()))
    }

    async fn modify_group(
        &self,
        ctx: &Context<'_>,
        gid: Uuid,
        props: ModifyGroupInput,
    ) -> Result<Option<ModifyGroup>> {
        let done = door::pass(ctx, gid.0, async |asker| {
            group::modify(&asker.app, &asker.context, GroupId(gid.0), props.into_edit()?).await
        });
        Ok(Some(done.await?.map(Group).into()))
    }

    /// Makes it unusable; nothing is removed.
    async fn delete_group(&self, ctx: &Context<'_>, gid: Uuid) -> Result<Option<DeleteGroup>> {
        let done = door::pass(ctx, gid.0, async |asker| {
            group::deactivate(&asker.app, &asker.context, GroupId(gid.0)).await
        });
        Ok(Some(done.await?.into()))
    }

    /// Removes it for good.
    async fn purge_group(&self, ctx: &Context<'_>, gid: Uuid) -> Result<Option<PurgeGroup>> {
        let done = door::pass(ctx, gid.0, async |asker| {
            group::purge(&asker.app, &asker.context, GroupId(gid.0)).await
        });
        Ok(Some(done.await?.into()))
    }
}
