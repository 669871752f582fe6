//! Mutations of scaling groups and of who may use them.

use async_graphql::{Context, InputObject, Object, Result};
use backendai_datastore::scaling_group::{ScalingGroupChange, ScalingGroupUser};
use backendai_types::{AccessKey, GroupId};

use super::super::scalars::{JsonString, Uuid};
use super::super::site::ScalingGroup;
use super::door::{self, Done, payloads};
use crate::app::{self, scaling_group};

/// Mutations of scaling groups.
#[derive(Default)]
pub struct ScalingGroupMutations;

payloads! {
    /// A scaling group was made, or not.
    CreateScalingGroup(scaling_group: ScalingGroup);
    /// A scaling group was changed, or not.
    ModifyScalingGroup;
    /// A scaling group was removed, or not.
    DeleteScalingGroup;
    /// A domain may use a scaling group now, or not.
    AssociateScalingGroupWithDomain;
    /// A group may use a scaling group now, or not.
    AssociateScalingGroupWithUserGroup;
    /// A keypair may use a scaling group now, or not.
    #[graphql(name = "AssociateScalingGroupWithKeyPair")]
    AssociateScalingGroupWithKeypair;
    /// A domain may use a scaling group no more, or nothing changed.
    DisassociateScalingGroupWithDomain;
    /// A group may use a scaling group no more, or nothing changed.
    DisassociateScalingGroupWithUserGroup;
    /// A keypair may use a scaling group no more, or nothing changed.
    #[graphql(name = "DisassociateScalingGroupWithKeyPair")]
    DisassociateScalingGroupWithKeypair;
    /// A domain may use no scaling group any more, or nothing changed.
    DisassociateAllScalingGroupsWithDomain;
    /// A group may use no scaling group any more, or nothing changed.
    DisassociateAllScalingGroupsWithGroup;
}

/// A scaling group to be made.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct CreateScalingGroupInput {
    #[graphql(default_with = "Some(String::new())")]
    description: Option<String>,
    #[graphql(default_with = "Some(true)")]
    is_active: Option<bool>,
    #[graphql(default_with = "Some(true)")]
    is_public: Option<bool>,
    wsproxy_addr: Option<String>,
    wsproxy_api_token: Option<String>,
    driver: String,
    #[graphql(default_with = "JsonString::empty()")]
    driver_opts: Option<JsonString>,
    scheduler: String,
    #[graphql(default_with = "JsonString::empty()")]
    scheduler_opts: Option<JsonString>,
    #[graphql(default_with = "Some(false)")]
    use_host_network: Option<bool>,
}

/// What of a scaling group is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct ModifyScalingGroupInput {
    description: Option<String>,
    is_active: Option<bool>,
    is_public: Option<bool>,
    wsproxy_addr: Option<String>,
    wsproxy_api_token: Option<String>,
    driver: Option<String>,
    driver_opts: Option<JsonString>,
    scheduler: Option<String>,
    scheduler_opts: Option<JsonString>,
    use_host_network: Option<bool>,
}

impl CreateScalingGroupInput {
    fn into_new(self) -> ScalingGroupChange {
        ScalingGroupChange {
            description: self.description,
            is_active: self.is_active,
            is_public: self.is_public,
            wsproxy_addr: self.wsproxy_addr,
            wsproxy_api_token: self.wsproxy_api_token,
            driver: Some(self.driver),
            driver_opts: self.driver_opts.map(|opts| opts.0),
            scheduler: Some(self.scheduler),
            scheduler_opts: self.scheduler_opts.map(|opts| opts.0),
            use_host_network: self.use_host_network,
        }
    }
}

impl ModifyScalingGroupInput {
    fn into_change(self) -> ScalingGroupChange {
        ScalingGroupChange {
            description: self.description,
            is_active: self.is_active,
            is_public: self.is_public,
            wsproxy_addr: self.wsproxy_addr,
            wsproxy_api_token: self.wsproxy_api_token,
            driver: self.driver,
            driver_opts: self.driver_opts.map(|opts| opts.0),
            scheduler: self.scheduler,
            scheduler_opts: self.scheduler_opts.map(|opts| opts.0),
            use_host_network: self.use_host_network,
        }
    }
}

/// Lets somebody use a scaling group.
async fn associate(
    ctx: &Context<'_>,
    name: &str,
    user: app::Result<ScalingGroupUser>,
) -> Result<Done<()>> {
    let target = target(Some(name), &user);
    door::pass(ctx, target, async |asker| scaling_group::associate(&asker.app, name, &user?).await)
        .await
}

/// Lets somebody use a scaling group, or any, no more.
async fn disassociate(
    ctx: &Context<'_>,
    name: Option<&str>,
    user: app::Result<ScalingGroupUser>,
) -> Result<Done<()>> {
    let target = target(name, &user);
    door::pass(ctx, target, async |asker| {
        scaling_group::disassociate(&asker.app, name, &user?).await
    })
    .await
}

fn target(name: Option<&str>, user: &app::Result<ScalingGroupUser>) -> String {
    let name = name.unwrap_or("every scaling group");
    match user {
        Ok(ScalingGroupUser::Domain(domain)) => format!("{name} domain {domain}"),
        Ok(ScalingGroupUser::Group(id)) => format!("{name} group {id}"),
        Ok(ScalingGroupUser::Keypair(key)) => format!("{name} keypair {key}"),
        Err(_) => name.to_owned(),
    }
}

fn group(id: Uuid) -> app::Result<ScalingGroupUser> {
    Ok(ScalingGroupUser::Group(GroupId(id.0)))
}

fn domain(name: String) -> app::Result<ScalingGroupUser> {
    Ok(ScalingGroupUser::Domain(name))
}

fn keypair(access_key: String) -> app::Result<ScalingGroupUser> {
    Ok(ScalingGroupUser::Keypair(AccessKey(access_key)))
}

/// Mutations of scaling groups.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ScalingGroupMutations {
    async fn create_scaling_group(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: CreateScalingGroupInput,
    ) -> Result<Option<CreateScalingGroup>> {
        let done = door::pass(ctx, &name, async |asker| {
            scaling_group::create(&asker.app, &name, props.into_new()).await
        });
        Ok(Some(done.await?.map(ScalingGroup).into()))
    }

    async fn modify_scaling_group(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyScalingGroupInput,
    ) -> Result<Option<ModifyScalingGroup>> {
        let done = door::pass(ctx, &name, async |asker| {
            scaling_group::modify(&asker.app, &name, props.into_change()).await
        });
        Ok(Some(done.await?.into()))
    }

    async fn delete_scaling_group(
        &self,
        ctx: &Context<'_>,
        name: String,
    ) -> Result<Option<DeleteScalingGroup>> {
        let done =
            door::pass(ctx, &name, async |asker| scaling_group::delete(&asker.app, &name).await);
        Ok(Some(done.await?.into()))
    }

    async fn associate_scaling_group_with_domain(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        #[graphql(name = "domain")] name: String,
    ) -> Result<Option<AssociateScalingGroupWithDomain>> {
        Ok(Some(associate(ctx, &scaling_group, domain(name)).await?.into()))
    }

    async fn associate_scaling_group_with_user_group(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        user_group: Uuid,
    ) -> Result<Option<AssociateScalingGroupWithUserGroup>> {
        Ok(Some(associate(ctx, &scaling_group, group(user_group)).await?.into()))
    }

    async fn associate_scaling_group_with_keypair(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        access_key: String,
    ) -> Result<Option<AssociateScalingGroupWithKeypair>> {
        Ok(Some(associate(ctx, &scaling_group, keypair(access_key)).await?.into()))
    }

    async fn disassociate_scaling_group_with_domain(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        #[graphql(name = "domain")] name: String,
    ) -> Result<Option<DisassociateScalingGroupWithDomain>> {
        Ok(Some(disassociate(ctx, Some(&scaling_group), domain(name)).await?.into()))
    }

    /// The id is text here, as clients declare it.
    async fn disassociate_scaling_group_with_user_group(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        user_group: String,
    ) -> Result<Option<DisassociateScalingGroupWithUserGroup>> {
        let user = user_group
            .parse()
            .map(ScalingGroupUser::Group)
            .map_err(|_| app::Error::invalid("user_group: not a UUID"));
        Ok(Some(disassociate(ctx, Some(&scaling_group), user).await?.into()))
    }

    async fn disassociate_scaling_group_with_keypair(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        access_key: String,
    ) -> Result<Option<DisassociateScalingGroupWithKeypair>> {
        Ok(Some(disassociate(ctx, Some(&scaling_group), keypair(access_key)).await?.into()))
    }

    async fn disassociate_all_scaling_groups_with_domain(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "domain")] name: String,
    ) -> Result<Option<DisassociateAllScalingGroupsWithDomain>> {
        Ok(Some(disassociate(ctx, None, domain(name)).await?.into()))
    }

    async fn disassociate_all_scaling_groups_with_group(
        &self,
        ctx: &Context<'_>,
        user_group: Uuid,
    ) -> Result<Option<DisassociateAllScalingGroupsWithGroup>> {
        Ok(Some(disassociate(ctx, None, group(user_group)).await?.into()))
    }
}
