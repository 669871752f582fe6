//! Mutations of users.

use async_graphql::{Context, InputObject, Object, Result};
use backendai_datastore::user::{NewUser, UserChange};

use super::super::identity::User;
use super::door::{self, payloads};
use super::{ids, texts};
use crate::app;
use crate::app::user::{self, BY_ADMIN, RATE_LIMIT, UserEdit, UserWish, parse_role, parse_status};

/// Mutations of users.
#[derive(Default)]
pub struct UserMutations;

payloads! {
    /// A user was made, or not.
    CreateUser(user: User);
    /// A user was changed, or not.
    ModifyUser(user: User);
    /// A user's access was taken away, or not.
    DeleteUser;
    /// A user was removed, or not.
    PurgeUser;
}

/// A user to be made.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct UserInput {
    username: String,
    password: String,
    need_password_change: bool,
    #[graphql(default_with = "Some(String::new())")]
    full_name: Option<String>,
    #[graphql(default_with = "Some(String::new())")]
    description: Option<String>,
    #[graphql(default_with = "Some(true)")]
    is_active: Option<bool>,
    #[graphql(default_with = "Some(\"active\".to_owned())")]
    status: Option<String>,
    #[graphql(default_with = "\"default\".to_owned()")]
    domain_name: String,
    #[graphql(default_with = "Some(\"user\".to_owned())")]
    role: Option<String>,
    group_ids: Option<Vec<Option<String>>>,
    allowed_client_ip: Option<Vec<Option<String>>>,
    #[graphql(default_with = "Some(false)")]
    totp_activated: Option<bool>,
    #[graphql(default_with = "Some(\"default\".to_owned())")]
    resource_policy: Option<String>,
    #[graphql(default_with = "Some(false)")]
    sudo_session_enabled: Option<bool>,
}

/// What of a user is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct ModifyUserInput {
    username: Option<String>,
    password: Option<String>,
    need_password_change: Option<bool>,
    full_name: Option<String>,
    description: Option<String>,
    is_active: Option<bool>,
    status: Option<String>,
    domain_name: Option<String>,
    role: Option<String>,
    group_ids: Option<Vec<Option<String>>>,
    allowed_client_ip: Option<Vec<Option<String>>>,
    /// False takes the second factor away; users begin to use one themselves.
    totp_activated: Option<bool>,
    resource_policy: Option<String>,
    sudo_session_enabled: Option<bool>,
    main_access_key: Option<String>,
}

/// What becomes of what a removed user has.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct PurgeUserInput {
    /// True removes folders shared with others, too; else they become the caller's.
    purge_shared_vfolders: Option<bool>,
}

impl UserInput {
    fn into_wish(self, email: String) -> app::Result<UserWish> {
        let status = status(self.status, self.is_active)?;
        let role = parse_role(self.role.as_deref().unwrap_or("user"))?;
        let groups = ids("group_ids", self.group_ids.unwrap_or_default())?;
        let row = NewUser {
            username: self.username,
            email,
            password_hash: None,
            need_password_change: self.need_password_change,
            full_name: self.full_name,
            description: self.description,
            status: status.unwrap_or_else(|| "active".to_owned()),
            status_info: BY_ADMIN.to_owned(),
            domain_name: self.domain_name,
            role: role.as_str().to_owned(),
            allowed_client_ip: self.allowed_client_ip.map(texts),
            resource_policy: self.resource_policy.unwrap_or_else(|| "default".to_owned()),
            sudo_session_enabled: self.sudo_session_enabled.unwrap_or(false),
        };
        Ok(UserWish { row, password: self.password, groups, rate_limit: RATE_LIMIT })
    }
}

impl ModifyUserInput {
    fn into_edit(self) -> app::Result<UserEdit> {
        let role = self.role.as_deref().map(parse_role).transpose()?;
        let change = UserChange {
            username: self.username,
            password_hash: None,
            need_password_change: self.need_password_change,
            full_name: self.full_name,
            description: self.description,
            status: status(self.status, self.is_active)?,
            status_info: None,
            domain_name: self.domain_name,
            role: role.map(|role| role.as_str().to_owned()),
            allowed_client_ip: self.allowed_client_ip.map(texts),
            totp_activated: self.totp_activated,
            resource_policy: self.resource_policy,
            sudo_session_enabled: self.sudo_session_enabled,
            main_access_key: self.main_access_key,
        };
        let groups = self.group_ids.map(|list| ids("group_ids", list)).transpose()?;
        Ok(UserEdit { change, password: self.password, groups })
    }
}

/// What the older flag and the newer text say together; nothing if neither is there. A flag
/// that says no counts, since the text has a default.
fn status(status: Option<String>, is_active: Option<bool>) -> app::Result<Option<String>> {
    let status = status.as_deref().map(parse_status).transpose()?;
    Ok(match (status.as_deref(), is_active) {
        (None | Some("active"), Some(false)) => Some("inactive".to_owned()),
        (None, Some(true)) => Some("active".to_owned()),
        _ => status,
    })
}

/// Mutations of users.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl UserMutations {
    /// Also makes a keypair, which becomes the user's main one.
    async fn create_user(
        &self,
        ctx: &Context<'_>,
        email: String,
        props: UserInput,
    ) -> Result<Option<CreateUser>> {
        let done = door::pass(ctx, email.clone(), async |asker| {
            let (user, _) = user::create(&asker.app, props.into_wish(email)?).await?;
            Ok(user)
        });
        Ok(Some(done.await?.map(User).into()))
    }

    async fn modify_user(
        &self,
        ctx: &Context<'_>,
        email: String,
        props: ModifyUserInput,
    ) -> Result<Option<ModifyUser>> {
        let done = door::pass(ctx, &email, async |asker| {
            user::modify(&asker.app, &email, props.into_edit()?).await
        });
        Ok(Some(done.await?.map(User).into()))
    }

    /// Takes its access away; nothing is removed.
    async fn delete_user(&self, ctx: &Context<'_>, email: String) -> Result<Option<DeleteUser>> {
        let done =
            door::pass(ctx, &email, async |asker| user::deactivate(&asker.app, &email).await);
        Ok(Some(done.await?.into()))
    }

    /// Removes it for good.
    async fn purge_user(
        &self,
        ctx: &Context<'_>,
        email: String,
        props: PurgeUserInput,
    ) -> Result<Option<PurgeUser>> {
        let purge_shared = props.purge_shared_vfolders.unwrap_or(false);
        let done = door::pass(ctx, &email, async |asker| {
            user::purge(&asker.app, &asker.context, &email, purge_shared).await
        });
        Ok(Some(done.await?.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_changes_only_when_it_is_said() {
        let say = |text: Option<&str>, flag| status(text.map(str::to_owned), flag).ok().flatten();
        assert_eq!(say(None, None), None);
        assert_eq!(say(None, Some(true)).as_deref(), Some("active"));
        assert_eq!(say(Some("active"), Some(false)).as_deref(), Some("inactive"));
        assert_eq!(say(Some("deleted"), Some(true)).as_deref(), Some("deleted"));
        assert!(status(Some("sleeping".into()), None).is_err());
    }
}
