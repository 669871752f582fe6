//! Mutations of resource policies.

use async_graphql::{Context, InputObject, Object, Result};
use backendai_datastore::resource_policy::{KeypairPolicyChange, UserPolicyChange};

use super::super::resource_policy::{ProjectPolicy, UserPolicy};
use super::super::scalars::{BigInt, JsonString};
use super::super::site::KeypairPolicy;
use super::door::{self, payloads};
use super::{caps, hosts};
use crate::app::{self, resource_policy};

/// Mutations of resource policies.
#[derive(Default)]
pub struct PolicyMutations;

payloads! {
    /// A policy was made, or not.
    #[graphql(name = "CreateKeyPairResourcePolicy")]
    CreateKeypairPolicy(resource_policy: KeypairPolicy);
    /// A policy was changed, or not.
    #[graphql(name = "ModifyKeyPairResourcePolicy")]
    ModifyKeypairPolicy;
    /// A policy was removed, or not.
    #[graphql(name = "DeleteKeyPairResourcePolicy")]
    DeleteKeypairPolicy;
    /// A policy was made, or not.
    #[graphql(name = "CreateUserResourcePolicy")]
    CreateUserPolicy(resource_policy: UserPolicy);
    /// A policy was changed, or not.
    #[graphql(name = "ModifyUserResourcePolicy")]
    ModifyUserPolicy;
    /// A policy was removed, or not.
    #[graphql(name = "DeleteUserResourcePolicy")]
    DeleteUserPolicy;
    /// A policy was made, or not.
    #[graphql(name = "CreateProjectResourcePolicy")]
    CreateProjectPolicy(resource_policy: ProjectPolicy);
    /// A policy was changed, or not.
    #[graphql(name = "ModifyProjectResourcePolicy")]
    ModifyProjectPolicy;
    /// A policy was removed, or not.
    #[graphql(name = "DeleteProjectResourcePolicy")]
    DeleteProjectPolicy;
}

/// A policy of keypairs to be made.
#[derive(InputObject)]
#[graphql(name = "CreateKeyPairResourcePolicyInput", rename_fields = "snake_case")]
struct CreateKeypairPolicyInput {
    /// `LIMITED` or `UNLIMITED`.
    default_for_unspecified: String,
    #[graphql(default_with = "JsonString::empty()")]
    total_resource_slots: Option<JsonString>,
    #[graphql(default_with = "Some(0)")]
    max_session_lifetime: Option<i32>,
    max_concurrent_sessions: i32,
    #[graphql(default_with = "Some(1)")]
    max_concurrent_sftp_sessions: Option<i32>,
    max_containers_per_session: i32,
    idle_timeout: BigInt,
    allowed_vfolder_hosts: Option<JsonString>,
    max_vfolder_count: Option<i32>,
    max_vfolder_size: Option<BigInt>,
    /// Older clients send it; the policies of users and projects say it now.
    max_quota_scope_size: Option<BigInt>,
}

/// What of a policy of keypairs is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(name = "ModifyKeyPairResourcePolicyInput", rename_fields = "snake_case")]
struct ModifyKeypairPolicyInput {
    default_for_unspecified: Option<String>,
    total_resource_slots: Option<JsonString>,
    max_session_lifetime: Option<i32>,
    max_concurrent_sessions: Option<i32>,
    max_concurrent_sftp_sessions: Option<i32>,
    max_containers_per_session: Option<i32>,
    idle_timeout: Option<BigInt>,
    allowed_vfolder_hosts: Option<JsonString>,
    max_vfolder_count: Option<i32>,
    max_vfolder_size: Option<BigInt>,
    /// Older clients send it; the policies of users and projects say it now.
    max_quota_scope_size: Option<BigInt>,
}

macro_rules! user_policy_input {
    ($(#[$doc:meta])* $name:ident, $graphql:literal) => {
        $(#[$doc])*
        #[derive(InputObject)]
        #[graphql(name = $graphql, rename_fields = "snake_case")]
        struct $name {
            /// Without effect: nobody counts folders.
            max_vfolder_count: Option<i32>,
            /// Bytes in all folders; -1 is unlimited.
            max_quota_scope_size: Option<BigInt>,
            max_session_count_per_model_session: Option<i32>,
        }

        impl $name {
            fn into_change(self) -> UserPolicyChange {
                UserPolicyChange {
                    max_vfolder_size: self.max_quota_scope_size.map(|size| size.0),
                    max_session_count_per_model_session: self.max_session_count_per_model_session,
                }
            }
        }
    };
}

user_policy_input! {
    /// A policy of users to be made.
    CreateUserPolicyInput, "CreateUserResourcePolicyInput"
}
user_policy_input! {
    /// What of a policy of users is to be changed; null leaves it as it is.
    ModifyUserPolicyInput, "ModifyUserResourcePolicyInput"
}

/// A policy of projects to be made.
#[derive(InputObject)]
#[graphql(name = "CreateProjectResourcePolicyInput", rename_fields = "snake_case")]
struct CreateProjectPolicyInput {
    /// Without effect: nobody counts folders.
    max_vfolder_count: Option<i32>,
    /// Bytes in all folders; -1 is unlimited.
    max_quota_scope_size: Option<BigInt>,
}

/// What of a policy of projects is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(name = "ModifyProjectResourcePolicyInput", rename_fields = "snake_case")]
struct ModifyProjectPolicyInput {
    /// Without effect: nobody counts folders.
    max_vfolder_count: Option<i32>,
    /// Bytes in all folders; -1 is unlimited.
    max_quota_scope_size: Option<BigInt>,
}

impl CreateKeypairPolicyInput {
    fn into_new(self) -> app::Result<KeypairPolicyChange> {
        ModifyKeypairPolicyInput {
            default_for_unspecified: Some(self.default_for_unspecified),
            total_resource_slots: self.total_resource_slots,
            max_session_lifetime: self.max_session_lifetime,
            max_concurrent_sessions: Some(self.max_concurrent_sessions),
            max_concurrent_sftp_sessions: self.max_concurrent_sftp_sessions,
            max_containers_per_session: Some(self.max_containers_per_session),
            idle_timeout: Some(self.idle_timeout),
            allowed_vfolder_hosts: self.allowed_vfolder_hosts,
            max_vfolder_count: self.max_vfolder_count,
            max_vfolder_size: self.max_vfolder_size,
            max_quota_scope_size: self.max_quota_scope_size,
        }
        .into_change()
    }
}

impl ModifyKeypairPolicyInput {
    fn into_change(self) -> app::Result<KeypairPolicyChange> {
        Ok(KeypairPolicyChange {
            default_for_unspecified: self.default_for_unspecified,
            total_resource_slots: self
                .total_resource_slots
                .map(|value| caps("total_resource_slots", value))
                .transpose()?,
            max_session_lifetime: self.max_session_lifetime,
            max_concurrent_sessions: self.max_concurrent_sessions,
            max_concurrent_sftp_sessions: self.max_concurrent_sftp_sessions,
            max_containers_per_session: self.max_containers_per_session,
            idle_timeout: self.idle_timeout.map(|seconds| seconds.0),
            allowed_vfolder_hosts: self.allowed_vfolder_hosts.map(hosts).transpose()?,
            max_vfolder_count: self.max_vfolder_count,
            max_vfolder_size: self.max_vfolder_size.or(self.max_quota_scope_size).map(|b| b.0),
        })
    }
}

/// Mutations of resource policies.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl PolicyMutations {
    async fn create_keypair_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: CreateKeypairPolicyInput,
    ) -> Result<Option<CreateKeypairPolicy>> {
        let done = door::pass(ctx, &name, async |asker| {
            resource_policy::create_for_keypairs(&asker.app, &name, props.into_new()?).await
        });
        Ok(Some(done.await?.map(KeypairPolicy).into()))
    }

    async fn modify_keypair_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyKeypairPolicyInput,
    ) -> Result<Option<ModifyKeypairPolicy>> {
        let done = door::pass(ctx, &name, async |asker| {
            resource_policy::modify_for_keypairs(&asker.app, &name, props.into_change()?).await
        });
        Ok(Some(done.await?.into()))
    }

    async fn delete_keypair_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
    ) -> Result<Option<DeleteKeypairPolicy>> {
        let done = door::pass(ctx, &name, async |asker| {
            resource_policy::delete_for_keypairs(&asker.app, &name).await
        });
        Ok(Some(done.await?.into()))
    }

    async fn create_user_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: CreateUserPolicyInput,
    ) -> Result<Option<CreateUserPolicy>> {
        let done = door::pass(ctx, &name, async |asker| {
            resource_policy::create_for_users(&asker.app, &name, props.into_change()).await
        });
        Ok(Some(done.await?.map(UserPolicy).into()))
    }

    async fn modify_user_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyUserPolicyInput,
    ) -> Result<Option<ModifyUserPolicy>> {
        let done = door::pass(ctx, &name, async |asker| {
            resource_policy::modify_for_users(&asker.app, &name, props.into_change()).await
        });
        Ok(Some(done.await?.into()))
    }

    async fn delete_user_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
    ) -> Result<Option<DeleteUserPolicy>> {
        let done = door::pass(ctx, &name, async |asker| {
            resource_policy::delete_for_users(&asker.app, &name).await
        });
        Ok(Some(done.await?.into()))
    }

    async fn create_project_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: CreateProjectPolicyInput,
    ) -> Result<Option<CreateProjectPolicy>> {
        let size = props.max_quota_scope_size.map(|size| size.0);
        let done = door::pass(ctx, &name, async |asker| {
            resource_policy::create_for_projects(&asker.app, &name, size).await
        });
        Ok(Some(done.await?.map(ProjectPolicy).into()))
    }

    async fn modify_project_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyProjectPolicyInput,
    ) -> Result<Option<ModifyProjectPolicy>> {
        let size = props.max_quota_scope_size.map(|size| size.0);
        let done = door::pass(ctx, &name, async |asker| {
            resource_policy::modify_for_projects(&asker.app, &name, size).await
        });
        Ok(Some(done.await?.into()))
    }

    async fn delete_project_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
    ) -> Result<Option<DeleteProjectPolicy>> {
        let done = door::pass(ctx, &name, async |asker| {
            resource_policy::delete_for_projects(&asker.app, &name).await
        });
        Ok(Some(done.await?.into()))
    }
}
