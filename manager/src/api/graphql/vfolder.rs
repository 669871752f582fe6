//! `VirtualFolder`, `VirtualFolderPermission`, `StorageVolume`.

use async_graphql::{Context, ID, Object, Result, SimpleObject};
use backendai_datastore::list_view::Page;
use backendai_datastore::vfolder::{Vfolder, VfolderOwner};
use backendai_datastore::vfolder_view::VfolderPermissionView;
use serde_json::json;

use super::guard::{self, IntoGraphql};
use super::node::global_id;
use super::scalars::{BigInt, DateTime, JsonString, Uuid};
use crate::app::vfolder::host::VolumeView;
use crate::app::vfolder::manage;
use crate::app::vfolder::quota::QuotaView;

/// A folder.
pub struct VirtualFolder(pub Vfolder);

/// A page of folders.
pub struct VirtualFolderList(pub Page<Vfolder>);

/// What somebody may do with a folder of another.
pub struct VirtualFolderPermission(pub VfolderPermissionView);

/// A page of those.
pub struct VirtualFolderPermissionList(pub Page<VfolderPermissionView>);

/// A host of folders.
pub struct StorageVolume(pub VolumeView);

/// All hosts of folders, or some of them.
pub struct StorageVolumeList(pub Vec<VolumeView>, pub i32);

/// All folders of a user or project on a host.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub struct QuotaScope {
    id: ID,
    quota_scope_id: String,
    storage_host_name: String,
    details: QuotaDetails,
}

/// What the folders of a quota scope hold, and may hold.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
struct QuotaDetails {
    usage_bytes: Option<BigInt>,
    usage_count: Option<BigInt>,
    /// Null is unlimited.
    hard_limit_bytes: Option<BigInt>,
}

impl From<QuotaView> for QuotaScope {
    fn from(view: QuotaView) -> Self {
        let scope = view.owner.quota_scope();
        let number = |count: u64| Some(BigInt(i64::try_from(count).unwrap_or(i64::MAX)));
        Self {
            id: global_id("QuotaScope", &format!("{}:{scope}", view.host)),
            quota_scope_id: scope,
            details: QuotaDetails {
                usage_bytes: number(view.used_bytes),
                usage_count: number(view.used_files),
                hard_limit_bytes: view.limit.map(BigInt),
            },
            storage_host_name: view.host,
        }
    }
}

/// A folder.
#[Object(rename_fields = "snake_case")]
impl VirtualFolder {
    async fn id(&self) -> Option<ID> {
        Some(self.0.id.to_string().into())
    }

    async fn host(&self) -> Option<&str> {
        Some(&self.0.host)
    }

    async fn quota_scope_id(&self) -> Option<String> {
        Some(self.0.owner.quota_scope())
    }

    async fn name(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    async fn user(&self) -> Option<Uuid> {
        self.0.owner.user().map(|user| Uuid(user.0))
    }

    async fn user_email(&self) -> Option<&str> {
        self.0.user_email.as_deref()
    }

    async fn group(&self) -> Option<Uuid> {
        self.0.owner.group().map(|group| Uuid(group.0))
    }

    async fn group_name(&self) -> Option<&str> {
        self.0.group_name.as_deref()
    }

    async fn creator(&self) -> Option<&str> {
        Some(&self.0.creator)
    }

    async fn unmanaged_path(&self) -> Option<&str> {
        None
    }

    async fn usage_mode(&self) -> Option<&str> {
        Some(self.0.usage_mode.as_str())
    }

    async fn permission(&self) -> Option<&str> {
        Some(self.0.permission.as_str())
    }

    async fn ownership_type(&self) -> Option<&str> {
        Some(match self.0.owner {
            VfolderOwner::User(_) => "user",
            VfolderOwner::Group(_) => "group",
        })
    }

    async fn max_files(&self) -> Option<i32> {
        Some(self.0.max_files)
    }

    /// In units of 1024² bytes.
    async fn max_size(&self) -> Option<BigInt> {
        self.0.max_size.map(|bytes| BigInt(bytes >> 20))
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(self.0.created_at.into())
    }

    async fn last_used(&self) -> Option<DateTime> {
        self.0.last_used.map(Into::into)
    }

    async fn num_files(&self, ctx: &Context<'_>) -> Result<Option<i32>> {
        let usage = self.usage(ctx).await?;
        Ok(Some(i32::try_from(usage.files).unwrap_or(i32::MAX)))
    }

    /// In units of 1024 bytes.
    async fn cur_size(&self, ctx: &Context<'_>) -> Result<Option<BigInt>> {
        let usage = self.usage(ctx).await?;
        Ok(Some(BigInt(i64::try_from(usage.bytes >> 10).unwrap_or(i64::MAX))))
    }

    async fn cloneable(&self) -> Option<bool> {
        Some(self.0.cloneable)
    }

    async fn status(&self) -> Option<&str> {
        Some(self.0.status.as_str())
    }
}

impl VirtualFolder {
    async fn usage(&self, ctx: &Context<'_>) -> Result<backendai_storage::Usage> {
        let asker = guard::asker(ctx)?;
        if self.0.status == backendai_types::VfolderStatus::Performing {
            return Ok(backendai_storage::Usage::default());
        }
        manage::measure(&asker.app, &self.0).await.map_err(IntoGraphql::into_graphql)
    }
}

/// A page of folders.
#[Object(rename_fields = "snake_case")]
impl VirtualFolderList {
    async fn items(&self) -> Vec<Option<VirtualFolder>> {
        self.0.items.iter().cloned().map(VirtualFolder).map(Some).collect()
    }

    async fn total_count(&self) -> i32 {
        i32::try_from(self.0.total).unwrap_or(i32::MAX)
    }
}

/// What somebody may do with a folder of another.
#[Object(rename_fields = "snake_case")]
impl VirtualFolderPermission {
    async fn id(&self) -> Option<ID> {
        Some(format!("{}:{}", self.0.vfolder, self.0.user).into())
    }

    async fn permission(&self) -> Option<&str> {
        Some(self.0.permission.as_str())
    }

    async fn vfolder(&self) -> Option<Uuid> {
        Some(Uuid(self.0.vfolder.0))
    }

    async fn vfolder_name(&self) -> Option<&str> {
        Some(&self.0.vfolder_name)
    }

    async fn user(&self) -> Option<Uuid> {
        Some(Uuid(self.0.user.0))
    }

    async fn user_email(&self) -> Option<&str> {
        Some(&self.0.user_email)
    }
}

/// A page of those.
#[Object(rename_fields = "snake_case")]
impl VirtualFolderPermissionList {
    async fn items(&self) -> Vec<Option<VirtualFolderPermission>> {
        self.0.items.iter().cloned().map(VirtualFolderPermission).map(Some).collect()
    }

    async fn total_count(&self) -> i32 {
        i32::try_from(self.0.total).unwrap_or(i32::MAX)
    }
}

/// A host of folders.
#[Object(rename_fields = "snake_case")]
impl StorageVolume {
    async fn id(&self) -> Option<ID> {
        Some(self.0.host.clone().into())
    }

    async fn backend(&self) -> Option<&str> {
        Some(self.0.backend)
    }

    async fn fsprefix(&self) -> Option<&str> {
        Some("")
    }

    async fn path(&self) -> Option<&str> {
        Some(&self.0.path)
    }

    async fn capabilities(&self) -> Option<Vec<Option<&str>>> {
        Some(vec![Some("vfolder")])
    }

    async fn hardware_metadata(&self) -> Option<JsonString> {
        Some(json!({ "status": "healthy", "status_info": null, "metadata": {} }).into())
    }

    async fn performance_metric(&self) -> Option<JsonString> {
        Some(json!({}).into())
    }

    async fn usage(&self) -> Option<JsonString> {
        let capacity = self.0.capacity;
        Some(json!({ "capacity_bytes": capacity.total, "used_bytes": capacity.used }).into())
    }
}

/// All hosts of folders, or some of them.
#[Object(rename_fields = "snake_case")]
impl StorageVolumeList {
    async fn items(&self) -> Vec<Option<StorageVolume>> {
        self.0.iter().cloned().map(StorageVolume).map(Some).collect()
    }

    async fn total_count(&self) -> i32 {
        self.1
    }
}
