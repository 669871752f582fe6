//! `UserResourcePolicy`, `ProjectResourcePolicy`.

use async_graphql::{ID, Object};
use backendai_datastore::resource_policy::FolderPolicyView;

use super::scalars::{BigInt, DateTime};

/// A resource policy of users.
pub struct UserPolicy(pub FolderPolicyView);

/// A resource policy of projects.
pub struct ProjectPolicy(pub FolderPolicyView);

/// A resource policy of users.
#[Object(name = "UserResourcePolicy", rename_fields = "snake_case")]
impl UserPolicy {
    async fn id(&self) -> ID {
        self.0.name.clone().into()
    }

    async fn name(&self) -> &str {
        &self.0.name
    }

    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    /// Always null: nobody counts folders.
    async fn max_vfolder_count(&self) -> Option<i32> {
        None
    }

    /// Bytes in all folders; -1 is unlimited.
    async fn max_quota_scope_size(&self) -> Option<BigInt> {
        Some(BigInt(self.0.max_vfolder_size))
    }

    #[graphql(deprecation = "use max_quota_scope_size")]
    async fn max_vfolder_size(&self) -> Option<BigInt> {
        Some(BigInt(self.0.max_vfolder_size))
    }

    async fn max_session_count_per_model_session(&self) -> Option<i32> {
        self.0.max_session_count_per_model_session
    }
}

/// A resource policy of projects.
#[Object(name = "ProjectResourcePolicy", rename_fields = "snake_case")]
impl ProjectPolicy {
    async fn id(&self) -> ID {
        self.0.name.clone().into()
    }

    async fn name(&self) -> &str {
        &self.0.name
    }

    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    /// Always null: nobody counts folders.
    async fn max_vfolder_count(&self) -> Option<i32> {
        None
    }

    /// Bytes in all folders; -1 is unlimited.
    async fn max_quota_scope_size(&self) -> Option<BigInt> {
        Some(BigInt(self.0.max_vfolder_size))
    }

    #[graphql(deprecation = "use max_quota_scope_size")]
    async fn max_vfolder_size(&self) -> Option<BigInt> {
        Some(BigInt(self.0.max_vfolder_size))
    }
}
