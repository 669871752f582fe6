//! Queries about folders and the hosts they lie on.

use async_graphql::{Context, Error, Object, Result};
use backendai_datastore::list_view::Slice;
use backendai_datastore::vfolder_view::{VFOLDER_FIELDS, VFOLDER_PERMISSION_FIELDS, VfolderScope};
use backendai_types::{GroupId, UserId, VfolderId};

use super::super::guard::{self, Asker, IntoGraphql};
use super::super::scalars::Uuid;
use super::super::vfolder::{
    QuotaScope, StorageVolume, StorageVolumeList, VirtualFolder, VirtualFolderList,
    VirtualFolderPermissionList,
};
use super::slice;
use crate::app::vfolder::{host, quota};

/// Queries about folders and the hosts they lie on.
#[derive(Default)]
pub struct StorageQueries;

/// Queries about folders and the hosts they lie on.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl StorageQueries {
    async fn vfolder(
        &self,
        ctx: &Context<'_>,
        id: Option<String>,
    ) -> Result<Option<VirtualFolder>> {
        let asker = guard::admit(ctx)?;
        let Some(id) = id else { return Ok(None) };
        let id: VfolderId = id.parse().map_err(|_| Error::new("id: not a UUID"))?;
        let scope = VfolderScope { id: Some(id), ..VfolderScope::default() };
        Ok(page(asker, &scope, &Slice::first(1)).await?.0.items.pop().map(VirtualFolder))
    }

    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn vfolder_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
        group_id: Option<Uuid>,
        access_key: Option<String>,
    ) -> Result<Option<VirtualFolderList>> {
        let (asker, scope) = guard::scope(ctx, domain_name, None, own_id)?;
        let user = match (scope.owner, access_key) {
            (Some(own), _) => Some(own.parse::<UserId>().map_err(|_| Error::new("not a UUID"))?),
            (None, Some(key)) => Some(user_of_key(asker, &key).await?),
            (None, None) => None,
        };
        let slice = slice(limit, offset, filter, order, VFOLDER_FIELDS)?;
        let scope = VfolderScope {
            domain: scope.domain,
            group: group_id.map(|id| GroupId(id.0)),
            user,
            ..VfolderScope::default()
        };
        page(asker, &scope, &slice).await.map(Some)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn vfolder_own_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
        access_key: Option<String>,
    ) -> Result<Option<VirtualFolderList>> {
        let (asker, domain) = own(ctx, domain_name, access_key)?;
        let slice = slice(limit, offset, filter, order, VFOLDER_FIELDS)?;
        let user = Some(asker.context.user_id);
        let scope = VfolderScope { domain, user, ..VfolderScope::default() };
        page(asker, &scope, &slice).await.map(Some)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn vfolder_invited_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
        access_key: Option<String>,
    ) -> Result<Option<VirtualFolderList>> {
        let (asker, domain) = own(ctx, domain_name, access_key)?;
        let slice = slice(limit, offset, filter, order, VFOLDER_FIELDS)?;
        let shared_with = Some(asker.context.user_id);
        let scope = VfolderScope { domain, shared_with, ..VfolderScope::default() };
        page(asker, &scope, &slice).await.map(Some)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn vfolder_project_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
        access_key: Option<String>,
    ) -> Result<Option<VirtualFolderList>> {
        let (asker, domain) = own(ctx, domain_name, access_key)?;
        let slice = slice(limit, offset, filter, order, VFOLDER_FIELDS)?;
        let member = Some(asker.context.user_id);
        let scope = VfolderScope { domain, member, ..VfolderScope::default() };
        page(asker, &scope, &slice).await.map(Some)
    }

    async fn vfolder_permission_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
    ) -> Result<Option<VirtualFolderPermissionList>> {
        let asker = guard::admit(ctx)?;
        let slice = slice(limit, offset, filter, order, VFOLDER_PERMISSION_FIELDS)?;
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.vfolder_permission_page(&slice).await
        };
        let found = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(VirtualFolderPermissionList(found)))
    }

    async fn quota_scope(
        &self,
        ctx: &Context<'_>,
        storage_host_name: String,
        quota_scope_id: String,
    ) -> Result<Option<QuotaScope>> {
        let asker = guard::admit(ctx)?;
        let found =
            quota::find(&asker.app, &asker.context, &storage_host_name, &quota_scope_id).await;
        found.map(|view| Some(view.into())).map_err(IntoGraphql::into_graphql)
    }

    async fn storage_volume(
        &self,
        ctx: &Context<'_>,
        id: Option<String>,
    ) -> Result<Option<StorageVolume>> {
        let asker = guard::admit(ctx)?;
        let volumes = host::volumes(&asker.app).await.map_err(IntoGraphql::into_graphql)?;
        let id = id.unwrap_or_default();
        let found = volumes.into_iter().find(|volume| volume.host == id);
        found
            .map(|volume| Some(StorageVolume(volume)))
            .ok_or_else(|| Error::new(format!("No such storage volume. ({id:?})")))
    }

    /// Filters and orders are accepted and mean nothing: there are few.
    async fn storage_volume_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        #[graphql(name = "filter")] _filter: Option<String>,
        #[graphql(name = "order")] _order: Option<String>,
    ) -> Result<Option<StorageVolumeList>> {
        let asker = guard::admit(ctx)?;
        let volumes = host::volumes(&asker.app).await.map_err(IntoGraphql::into_graphql)?;
        let total = i32::try_from(volumes.len()).unwrap_or(i32::MAX);
        let count = |number: i32| usize::try_from(number).unwrap_or(0);
        let items = volumes.into_iter().skip(count(offset)).take(count(limit)).collect();
        Ok(Some(StorageVolumeList(items, total)))
    }
}

fn own_id(context: &crate::context::RequestContext) -> String {
    context.user_id.to_string()
}

/// The caller, for lists that are about nobody else.
fn own<'a>(
    ctx: &Context<'a>,
    domain_name: Option<String>,
    access_key: Option<String>,
) -> Result<(&'a Asker, Option<String>)> {
    let (asker, scope) = guard::scope(ctx, domain_name, None, own_id)?;
    if access_key.is_some_and(|key| key != asker.context.access_key.0) {
        return Err(Error::new("Forbidden operation."));
    }
    let domain = match asker.context.is_superadmin() {
        true => scope.domain,
        // Folders of groups in other domains are theirs all the same.
        false => None,
    };
    Ok((asker, domain))
}

async fn user_of_key(asker: &Asker, access_key: &str) -> Result<UserId> {
    let load = async {
        let db = asker.app.datastore.autocommit().await?;
        db.keypair_view(access_key, None).await
    };
    let found = load.await.map_err(IntoGraphql::into_graphql)?;
    found.map(|keypair| keypair.user_id).ok_or_else(|| Error::new("No such keypair."))
}

async fn page(asker: &Asker, scope: &VfolderScope, slice: &Slice) -> Result<VirtualFolderList> {
    let load = async {
        let db = asker.app.datastore.autocommit().await?;
        db.vfolder_page(scope, slice).await
    };
    load.await.map(VirtualFolderList).map_err(IntoGraphql::into_graphql)
}
