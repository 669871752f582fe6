//! Writing down who did what: the one place where entries are made.
//!
//! GraphQL mutations and the routes of REST that change something come here when they are
//! done. An entry names what the caller named; values (passwords, keys, tokens) never reach it.

use backendai_datastore::audit::{AuditEntry, AuditOutcome};

use super::SharedApp;
use crate::context::RequestContext;

/// Longest target and message kept; both may hold what a caller wrote.
const MAX_TEXT: usize = 500;

/// Something that was done or tried.
#[derive(Clone, Debug)]
pub struct Deed<'a> {
    /// Names the request in logs.
    pub request_id: &'a str,
    /// Who; `None` for callers who did not sign.
    pub context: Option<&'a RequestContext>,
    /// The address it came from.
    pub client: Option<std::net::IpAddr>,
    /// A GraphQL mutation, or method and path of a route.
    pub operation: &'a str,
    /// What it was done to, as the caller named it.
    pub target: &'a str,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// Why it was refused or failed, as the caller was told.
    pub message: &'a str,
}

/// Writes an entry. What was done is done: when it cannot be written down, that is logged
/// with the entry itself.
pub async fn record(app: &SharedApp, deed: Deed<'_>) {
    let entry = AuditEntry {
        request_id: deed.request_id.to_owned(),
        user_id: deed.context.map(|context| context.user_id),
        email: deed.context.map(|context| context.email.clone()),
        domain_name: deed.context.map(|context| context.domain_name.clone()),
        access_key: deed.context.map(|context| context.access_key.0.clone()),
        client: deed.client.map(|address| address.to_string()),
        operation: deed.operation.to_owned(),
        target: shortened(deed.target),
        outcome: deed.outcome,
        message: shortened(deed.message),
    };
    let write = async { app.datastore.autocommit().await?.audit_insert(&entry).await };
    if let Err(error) = write.await {
        tracing::error!(?entry, "an audit entry was lost: {error}");
    }
}

/// Without what PostgreSQL cannot store, and not longer than [`MAX_TEXT`].
fn shortened(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(MAX_TEXT).collect()
}
