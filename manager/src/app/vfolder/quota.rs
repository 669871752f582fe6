//! Quota scopes: all folders of one user or project on one host, what they hold, and what
//! they may.

use backendai_datastore::identity_view::{GroupScope, UserScope};
use backendai_datastore::list_view::Slice;
use backendai_datastore::vfolder::VfolderOwner;

use super::host;
use crate::app::{Error, Result, SharedApp};
use crate::context::{RequestContext, Role};

/// What is known of a quota scope.
#[derive(Clone, Debug)]
pub struct QuotaView {
    /// The host.
    pub host: String,
    /// Whose folders.
    pub owner: VfolderOwner,
    /// Bytes they hold there.
    pub used_bytes: u64,
    /// Files they hold there.
    pub used_files: u64,
    /// Bytes all folders of the owner may hold; `None` is unlimited.
    pub limit: Option<i64>,
}

/// The quota scope of this id (`user:<uuid>`, `project:<uuid>`) on a host.
///
/// # Errors
/// No such host or scope, or it is not for the caller's eyes.
pub async fn find(
    app: &SharedApp,
    context: &RequestContext,
    host: &str,
    scope: &str,
) -> Result<QuotaView> {
    let owner = VfolderOwner::of_quota_scope(scope).ok_or_else(missing)?;
    if !may_see(app, context, owner).await? {
        return Err(missing());
    }
    let volume = host::volume(app, host).await?;
    let db = app.datastore.autocommit().await?;
    let limit = db.vfolder_max_total(owner).await?;
    let folders = db.vfolders_of(owner).await?;
    drop(db);
    let (mut used_bytes, mut used_files) = (0u64, 0u64);
    for (id, _) in folders.into_iter().filter(|(_, at)| at == host) {
        match volume.usage(id.0).await {
            Ok(usage) => {
                used_bytes = used_bytes.saturating_add(usage.bytes);
                used_files = used_files.saturating_add(usage.files);
            }
            // A copy that is not there yet.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(QuotaView { host: host.to_owned(), owner, used_bytes, used_files, limit })
}

fn missing() -> Error {
    Error::NotFound { object: "quota scope", message: None }
}

/// Superadmins see all, administrators their domain's, others their own and their projects'.
async fn may_see(app: &SharedApp, context: &RequestContext, owner: VfolderOwner) -> Result<bool> {
    if owner.user() == Some(context.user_id) {
        return Ok(true);
    }
    let domain_name = match context.role {
        Role::Superadmin => None,
        _ => Some(context.domain_name.clone()),
    };
    let is_administrator = matches!(context.role, Role::Superadmin | Role::Admin);
    let db = app.datastore.autocommit().await?;
    Ok(match owner {
        VfolderOwner::User(id) => {
            let scope = UserScope { id: Some(id), domain_name, ..UserScope::default() };
            is_administrator && db.user_page(&scope, &Slice::first(1)).await?.total > 0
        }
        VfolderOwner::Group(id) => {
            let member = (!is_administrator).then_some(context.user_id);
            let scope = GroupScope { id: Some(id), domain_name, member, ..GroupScope::default() };
            !db.group_views(&scope).await?.is_empty()
        }
    })
}
