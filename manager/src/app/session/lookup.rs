//! The one rule by which a name or id finds a session, and whose sessions a caller may use.

use backendai_datastore::policy::Owner;
use backendai_datastore::session::Session;
use backendai_types::AccessKey;
use serde_json::json;

use crate::app::{App, Error, Result, SharedApp};
use crate::context::{RequestContext, Role};

/// The live session (not TERMINATED or CANCELLED) of a keypair with this id or name.
///
/// # Errors
/// None, or several.
pub async fn find_live(
    app: &SharedApp,
    access_key: &AccessKey,
    reference: &str,
) -> Result<Session> {
    let tx = app.datastore.autocommit().await?;
    only_one(tx.session_find(access_key, reference, true).await?, reference)
}

/// The session of a keypair with this id or name, ended ones included: a live one if there
/// is one, else the newest.
///
/// # Errors
/// There is none.
pub async fn find_any(app: &SharedApp, access_key: &AccessKey, reference: &str) -> Result<Session> {
    let tx = app.datastore.autocommit().await?;
    let mut found = tx.session_find(access_key, reference, false).await?;
    if found.is_empty() {
        return Err(Error::session_not_found(reference));
    }
    let live = found.iter().position(|session| !session.status.is_terminal());
    Ok(found.swap_remove(live.unwrap_or(0)))
}

fn only_one(mut found: Vec<Session>, reference: &str) -> Result<Session> {
    match found.len() {
        0 => Err(Error::session_not_found(reference)),
        1 => Ok(found.swap_remove(0)),
        _ => {
            let matches = found
                .iter()
                .map(|session| {
                    json!({
                        "id": session.id,
                        "name": session.name,
                        "status": session.status,
                        "created_at": session.created_at.to_rfc3339(),
                    })
                })
                .collect();
            Err(Error::TooManySessions { matches })
        }
    }
}

/// The keypair a request acts for: the caller's own, or another's that it may act for.
///
/// # Errors
/// No such keypair, or the caller may not act for it.
pub async fn resolve_owner(
    app: &SharedApp,
    context: &RequestContext,
    owner_access_key: Option<&str>,
) -> Result<AccessKey> {
    match owner_access_key {
        None => Ok(context.access_key.clone()),
        Some(key) if key == context.access_key.as_str() => Ok(context.access_key.clone()),
        Some(key) => Ok(owner(app, context, Some(key)).await?.access_key),
    }
}

/// As [`resolve_owner`], with what the database knows of the owner.
///
/// # Errors
/// As [`resolve_owner`].
pub async fn owner(
    app: &App,
    context: &RequestContext,
    owner_access_key: Option<&str>,
) -> Result<Owner> {
    let own = context.access_key.as_str();
    let wanted = owner_access_key.unwrap_or(own);
    let tx = app.datastore.autocommit().await?;
    let unknown = || Error::invalid("Unknown owner access key");
    let owner = tx.owner_of_keypair(&wanted.into()).await?.ok_or_else(unknown)?;
    if wanted == own {
        return Ok(owner);
    }
    match context.role {
        Role::Superadmin => Ok(owner),
        Role::Admin if owner.role == Role::Superadmin.as_str() => {
            Err(Error::Forbidden("You cannot perform operations on behalf of super-admins.".into()))
        }
        Role::Admin if owner.domain_name.as_deref() == Some(&context.domain_name) => Ok(owner),
        Role::Admin => Err(Error::Forbidden(
            "You can only perform operations on behalf of users of your domain.".into(),
        )),
        Role::User | Role::Monitor => Err(Error::Forbidden(
            "Only admins can perform operations on behalf of other users.".into(),
        )),
    }
}
