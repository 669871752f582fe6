//! Mutations of keypairs.

use async_graphql::{Context, InputObject, Object, Result};
use backendai_datastore::keypair::KeypairChange;
use backendai_types::AccessKey;

use super::super::guard;
use super::super::keypair::Keypair;
use super::door::{self, payloads};
use crate::app::keypair::{self, KeypairWish};

/// Mutations of keypairs.
#[derive(Default)]
pub struct KeypairMutations;

payloads! {
    /// A keypair was made, or not.
    #[graphql(name = "CreateKeyPair")]
    CreateKeypair(keypair: Keypair);
    /// A keypair was changed, or not.
    #[graphql(name = "ModifyKeyPair")]
    ModifyKeypair;
    /// A keypair was removed, or not.
    #[graphql(name = "DeleteKeyPair")]
    DeleteKeypair;
}

/// A keypair to be made.
#[derive(InputObject)]
#[graphql(name = "KeyPairInput", rename_fields = "snake_case")]
struct KeypairInput {
    #[graphql(default_with = "Some(true)")]
    is_active: Option<bool>,
    #[graphql(default_with = "Some(false)")]
    is_admin: Option<bool>,
    resource_policy: String,
    /// Older clients send it; the policy's limit counts.
    concurrency_limit: Option<i32>,
    rate_limit: i32,
}

/// What of a keypair is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(name = "ModifyKeyPairInput", rename_fields = "snake_case")]
struct ModifyKeypairInput {
    is_active: Option<bool>,
    is_admin: Option<bool>,
    resource_policy: Option<String>,
    /// Older clients send it; the policy's limit counts.
    concurrency_limit: Option<i32>,
    rate_limit: Option<i32>,
}

/// Mutations of keypairs.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl KeypairMutations {
    /// `user_id` is the user's e-mail address.
    async fn create_keypair(
        &self,
        ctx: &Context<'_>,
        user_id: String,
        props: KeypairInput,
    ) -> Result<Option<CreateKeypair>> {
        let asker = guard::asker(ctx)?;
        let wish = KeypairWish {
            is_active: props.is_active.unwrap_or(true),
            is_admin: props.is_admin.unwrap_or(false),
            resource_policy: props.resource_policy,
            rate_limit: props.rate_limit,
        };
        let done = door::pass(ctx, &user_id, async |asker| {
            keypair::create(&asker.app, &user_id, wish).await
        });
        Ok(Some(done.await?.map(|row| Keypair::new(asker, row)).into()))
    }

    async fn modify_keypair(
        &self,
        ctx: &Context<'_>,
        access_key: String,
        props: ModifyKeypairInput,
    ) -> Result<Option<ModifyKeypair>> {
        let change = KeypairChange {
            is_active: props.is_active,
            is_admin: props.is_admin,
            resource_policy: props.resource_policy,
            rate_limit: props.rate_limit,
        };
        let key = AccessKey(access_key);
        let done =
            door::pass(ctx, &key, async |asker| keypair::modify(&asker.app, &key, change).await);
        Ok(Some(done.await?.into()))
    }

    async fn delete_keypair(
        &self,
        ctx: &Context<'_>,
        access_key: String,
    ) -> Result<Option<DeleteKeypair>> {
        let key = AccessKey(access_key);
        let done = door::pass(ctx, &key, async |asker| keypair::delete(&asker.app, &key).await);
        Ok(Some(done.await?.into()))
    }
}
