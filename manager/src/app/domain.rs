//! Domains: made, changed and removed by superadmins.

use std::sync::Arc;

use backendai_datastore::domain::{DomainChange, NewDomain};
use backendai_datastore::identity_view::DomainView;

use super::{Error, Result, SharedApp};

/// True for names that domains and groups may have: letters, digits, and in between `.`, `_`
/// and `-`.
pub fn is_slug(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().all(is_inner)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Makes a domain.
///
/// # Errors
/// The name is none, or taken.
pub async fn create(app: &SharedApp, new: NewDomain) -> Result<DomainView> {
    check_name(&new.name)?;
    let db = app.datastore.autocommit().await?;
    db.domain_insert(&new).await?;
    show(app, &new.name).await
}

/// Changes a domain.
///
/// # Errors
/// There is none, or its new name is none or taken.
pub async fn modify(app: &SharedApp, name: &str, change: DomainChange) -> Result<DomainView> {
    if let Some(new_name) = &change.name {
        check_name(new_name)?;
    }
    if !app.datastore.autocommit().await?.domain_update(name, &change).await? {
        return Err(missing());
    }
    show(app, change.name.as_deref().unwrap_or(name)).await
}

/// Makes a domain unusable. Nothing of it is removed.
///
/// # Errors
/// There is none.
pub async fn deactivate(app: &SharedApp, name: &str) -> Result<()> {
    let change = DomainChange { is_active: Some(false), ..DomainChange::default() };
    match app.datastore.autocommit().await?.domain_update(name, &change).await? {
        true => Ok(()),
        false => Err(missing()),
    }
}

/// Removes a domain and the records of its ended sessions.
///
/// # Errors
/// There is none, or it has live sessions, users or groups.
pub async fn purge(app: &SharedApp, name: &str) -> Result<()> {
    let name = Arc::new(name.to_owned());
    app.datastore
        .run_tx("domain_purge", |tx| {
            let name = Arc::clone(&name);
            async move {
                let left = tx.domain_belongings(&name).await?;
                let refuse = |what: &str| Err(Error::BadRequest(what.to_owned()));
                if left.live_sessions > 0 {
                    return refuse(
                        "There are active kernels in the domain. Terminate those kernels first.",
                    );
                }
                if left.users > 0 {
                    return refuse("There are users bound to the domain. Remove users first.");
                }
                if left.groups > 0 {
                    return refuse("There are groups bound to the domain. Remove groups first.");
                }
                match tx.domain_delete(&name).await? {
                    true => Ok(()),
                    false => Err(missing()),
                }
            }
        })
        .await
}

fn check_name(name: &str) -> Result<()> {
    match is_slug(name) && name.len() <= 64 {
        true => Ok(()),
        false => Err(Error::BadRequest("invalid name format. slug format required.".into())),
    }
}

async fn show(app: &SharedApp, name: &str) -> Result<DomainView> {
    let found = app.datastore.autocommit().await?.domain_views(Some(name), None).await?.pop();
    found.ok_or_else(missing)
}

fn missing() -> Error {
    Error::NotFound { object: "domain", message: None }
}

#[cfg(test)]
mod tests {
    use super::is_slug;

    #[test]
    fn slugs_begin_and_end_with_a_letter_or_digit() {
        for name in ["a", "default", "my-domain.v1_x", "0"] {
            assert!(is_slug(name), "{name}");
        }
        for name in ["", "-a", "a-", "a b", ".", "도메인", "a/b"] {
            assert!(!is_slug(name), "{name}");
        }
    }
}
