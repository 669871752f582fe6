//! `AuditLog` and its list.

use async_graphql::{ID, Object};
use backendai_datastore::audit::AuditView;
use backendai_datastore::list_view::Page;

use super::scalars::{DateTime, Uuid};

/// Something that was done or tried.
pub struct AuditLog(AuditView);

/// A page of the audit log.
pub struct AuditLogList(pub Page<AuditView>);

/// A page of the audit log.
#[Object(rename_fields = "snake_case")]
impl AuditLogList {
    async fn items(&self) -> Vec<Option<AuditLog>> {
        self.0.items.iter().cloned().map(AuditLog).map(Some).collect()
    }

    async fn total_count(&self) -> i32 {
        i32::try_from(self.0.total).unwrap_or(i32::MAX)
    }
}

/// Something that was done or tried.
#[Object(rename_fields = "snake_case")]
impl AuditLog {
    async fn id(&self) -> Option<ID> {
        Some(self.0.seq.to_string().into())
    }

    async fn at(&self) -> Option<DateTime> {
        Some(self.0.at.into())
    }

    /// Names the request in the managers' logs.
    async fn request_id(&self) -> Option<&str> {
        Some(&self.0.request_id)
    }

    /// Null for callers who did not sign.
    async fn user_id(&self) -> Option<Uuid> {
        self.0.user_id.map(|id| Uuid(id.0))
    }

    async fn email(&self) -> Option<&str> {
        self.0.email.as_deref()
    }

    async fn domain_name(&self) -> Option<&str> {
        self.0.domain_name.as_deref()
    }

    async fn access_key(&self) -> Option<&str> {
        self.0.access_key.as_deref()
    }

    /// The address it came from.
    async fn client(&self) -> Option<&str> {
        self.0.client.as_deref()
    }

    /// Name of a mutation, or method and path of a route.
    async fn operation(&self) -> Option<&str> {
        Some(&self.0.operation)
    }

    /// What it was done to, as the caller named it.
    async fn target(&self) -> Option<&str> {
        Some(&self.0.target)
    }

    /// `success`, `refused` or `failed`.
    async fn outcome(&self) -> Option<&str> {
        Some(&self.0.outcome)
    }

    /// Why it was refused or failed.
    async fn message(&self) -> Option<&str> {
        Some(&self.0.message)
    }
}
