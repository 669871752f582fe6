//! `Domain`, `Group`, `User`.

use async_graphql::{ID, Object, SimpleObject};
use backendai_datastore::identity_view::{DomainView, GroupView, UserView};
use backendai_datastore::list_view::Page;

use super::scalars::{DateTime, JsonString, Uuid};

/// A domain.
pub struct Domain(pub DomainView);

/// A group.
pub struct Group(pub GroupView);

/// A user.
pub struct User(pub UserView);

/// A page of users.
pub struct UserList(pub Page<UserView>);

/// A group a user belongs to.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
struct UserGroup {
    id: Option<Uuid>,
    name: Option<String>,
}

fn texts(list: &[String]) -> Option<Vec<Option<&str>>> {
    Some(list.iter().map(|text| Some(text.as_str())).collect())
}

/// A domain.
#[Object(rename_fields = "snake_case")]
impl Domain {
    async fn name(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    async fn description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    async fn is_active(&self) -> Option<bool> {
        Some(self.0.is_active)
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(self.0.created_at.into())
    }

    async fn modified_at(&self) -> Option<DateTime> {
        Some(self.0.modified_at.into())
    }

    async fn total_resource_slots(&self) -> Option<JsonString> {
        Some(self.0.total_resource_slots.clone().into())
    }

    async fn allowed_vfolder_hosts(&self) -> Option<JsonString> {
        Some(self.0.allowed_vfolder_hosts.clone().into())
    }

    async fn allowed_docker_registries(&self) -> Option<Vec<Option<&str>>> {
        texts(&self.0.allowed_docker_registries)
    }

    async fn integration_id(&self) -> Option<&str> {
        self.0.integration_id.as_deref()
    }

    async fn scaling_groups(&self) -> Option<Vec<Option<&str>>> {
        texts(&self.0.scaling_groups)
    }
}

/// A group.
#[Object(rename_fields = "snake_case")]
impl Group {
    async fn id(&self) -> Option<Uuid> {
        Some(Uuid(self.0.id.0))
    }

    async fn name(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    async fn description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    async fn is_active(&self) -> Option<bool> {
        Some(self.0.is_active)
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(self.0.created_at.into())
    }

    async fn modified_at(&self) -> Option<DateTime> {
        Some(self.0.modified_at.into())
    }

    async fn domain_name(&self) -> Option<&str> {
        Some(&self.0.domain_name)
    }

    async fn total_resource_slots(&self) -> Option<JsonString> {
        Some(self.0.total_resource_slots.clone().into())
    }

    async fn allowed_vfolder_hosts(&self) -> Option<JsonString> {
        Some(self.0.allowed_vfolder_hosts.clone().into())
    }

    async fn integration_id(&self) -> Option<&str> {
        self.0.integration_id.as_deref()
    }

    async fn resource_policy(&self) -> Option<&str> {
        Some(&self.0.resource_policy)
    }

    async fn scaling_groups(&self) -> Option<Vec<Option<&str>>> {
        texts(&self.0.scaling_groups)
    }
}

/// A page of users.
#[Object(rename_fields = "snake_case")]
impl UserList {
    async fn items(&self) -> Vec<Option<User>> {
        self.0.items.iter().cloned().map(User).map(Some).collect()
    }

    async fn total_count(&self) -> i32 {
        i32::try_from(self.0.total).unwrap_or(i32::MAX)
    }
}

/// A user.
#[Object(rename_fields = "snake_case")]
impl User {
    async fn id(&self) -> Option<ID> {
        Some(self.0.id.to_string().into())
    }

    async fn uuid(&self) -> Option<Uuid> {
        Some(Uuid(self.0.id.0))
    }

    async fn username(&self) -> Option<&str> {
        self.0.username.as_deref()
    }

    async fn email(&self) -> Option<&str> {
        Some(&self.0.email)
    }

    async fn need_password_change(&self) -> Option<bool> {
        Some(self.0.need_password_change)
    }

    async fn full_name(&self) -> Option<&str> {
        self.0.full_name.as_deref()
    }

    async fn description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    async fn is_active(&self) -> Option<bool> {
        Some(self.0.status == "active")
    }

    async fn status(&self) -> Option<&str> {
        Some(&self.0.status)
    }

    async fn status_info(&self) -> Option<&str> {
        self.0.status_info.as_deref()
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(self.0.created_at.into())
    }

    async fn modified_at(&self) -> Option<DateTime> {
        Some(self.0.modified_at.into())
    }

    async fn domain_name(&self) -> Option<&str> {
        self.0.domain_name.as_deref()
    }

    async fn role(&self) -> Option<&str> {
        Some(&self.0.role)
    }

    async fn resource_policy(&self) -> Option<&str> {
        Some(&self.0.resource_policy)
    }

    async fn allowed_client_ip(&self) -> Option<Vec<Option<&str>>> {
        texts(self.0.allowed_client_ip.as_deref()?)
    }

    async fn totp_activated(&self) -> Option<bool> {
        Some(self.0.totp_activated)
    }

    async fn totp_activated_at(&self) -> Option<DateTime> {
        self.0.totp_activated_at.map(Into::into)
    }

    async fn sudo_session_enabled(&self) -> Option<bool> {
        Some(self.0.sudo_session_enabled)
    }

    async fn main_access_key(&self) -> Option<&str> {
        self.0.main_access_key.as_deref()
    }

    async fn groups(&self) -> Option<Vec<Option<UserGroup>>> {
        let groups = self.0.groups.iter().map(|group| {
            Some(UserGroup { id: Some(Uuid(group.id.0)), name: Some(group.name.clone()) })
        });
        Some(groups.collect())
    }
}
