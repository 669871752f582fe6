//! What people do to their own account: sign up and out, change name and password.

use chrono::{DateTime, TimeDelta, Utc};

use backendai_datastore::user::{NewUser, UserChange, UserIdentity};

use super::session::create::starts_at;
use super::user::{self, UserWish};
use super::{Error, Result, SharedApp, password};
use crate::context::{RequestContext, Role};

/// Key below `config/` that says how long a password may be used; never expires if absent.
const MAX_PASSWORD_AGE: &str = "auth/max_password_age";
/// Key below `config/` that lets people sign up; off if absent.
const SIGNUP: &str = "auth/signup";
/// Calls in 900 s that the keypair of somebody who signed up may make.
const SIGNUP_RATE_LIMIT: i32 = 1000;
/// The group people who sign up join, if their domain has it.
const SIGNUP_GROUP: &str = "default";

/// Why an account is left as it is; the text is the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The password is not the account's.
    #[error("Old password mismatch")]
    WrongPassword,
    /// The new password and its repetition differ.
    #[error("new password mismatch")]
    Repetition,
    /// No such account, or another password.
    #[error("User credential mismatch.")]
    Mismatch,
    /// The new password is the old one.
    #[error("Cannot update to the same password as an existing password.")]
    SamePassword,
}

/// Somebody who wants an account.
#[derive(Clone)]
pub struct Applicant {
    /// The domain to join.
    pub domain_name: String,
    /// E-mail address.
    pub email: String,
    /// Password. Never logged.
    pub password: String,
    /// Short name; the address if absent.
    pub username: Option<String>,
    /// Name.
    pub full_name: Option<String>,
    /// In words.
    pub description: Option<String>,
}

/// How long a password may be used; `None` is for ever.
///
/// # Errors
/// etcd was never reached.
pub async fn max_password_age(app: &SharedApp) -> Result<Option<TimeDelta>> {
    let text = app.shared.config_value(MAX_PASSWORD_AGE).await?;
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let age = starts_at::distance(text.trim()).filter(|age| *age > TimeDelta::zero());
    if age.is_none() {
        tracing::warn!(text, "the shared configuration {MAX_PASSWORD_AGE} is no duration");
    }
    Ok(age)
}

/// Gives the caller another password.
///
/// # Errors
/// PostgreSQL is not available.
pub async fn change_password(
    app: &SharedApp,
    context: &RequestContext,
    old: String,
    new: String,
    repeated: &str,
) -> Result<Result<(), Refusal>> {
    let account = own(app, context).await?;
    if !password::check(old, account.password_hash).await? {
        return Ok(Err(Refusal::WrongPassword));
    }
    if new != repeated {
        return Ok(Err(Refusal::Repetition));
    }
    store_password(app, context.email.clone(), new).await?;
    Ok(Ok(()))
}

/// Gives somebody who cannot log in because the password has expired another one; when.
///
/// # Errors
/// Passwords do not expire here.
pub async fn change_expired_password(
    app: &SharedApp,
    domain: &str,
    email: &str,
    current: String,
    new: String,
) -> Result<Result<DateTime<Utc>, Refusal>> {
    if max_password_age(app).await?.is_none() {
        return Err(Error::BadRequest("Unsupported function.".into()));
    }
    let found = app.datastore.autocommit().await?.login(domain, email).await?;
    let hash = found.and_then(|user| user.password_hash);
    if !password::check(current.clone(), hash).await? {
        return Ok(Err(Refusal::Mismatch));
    }
    if current == new {
        return Ok(Err(Refusal::SamePassword));
    }
    store_password(app, email.to_owned(), new).await?;
    Ok(Ok(Utc::now()))
}

/// Gives the caller another name.
///
/// # Errors
/// It is too long.
pub async fn rename(app: &SharedApp, context: &RequestContext, full_name: String) -> Result<()> {
    let change = UserChange { full_name: Some(full_name), ..UserChange::default() };
    let db = app.datastore.autocommit().await?;
    db.user_update(context.user_id, &change).await.map_err(refused_values)
}

/// Makes an account that an administrator must approve (by making it active) before it can
/// be used; its keys.
///
/// # Errors
/// Signing up is off, or the address or name is taken.
pub async fn sign_up(app: &SharedApp, who: Applicant) -> Result<(String, String)> {
    let allowed = app.shared.config_value(SIGNUP).await?;
    if !allowed.is_some_and(|text| matches!(text.as_str(), "true" | "True" | "on" | "1")) {
        return Err(Error::Forbidden(format!(
            "Sign-up is off. An administrator can turn it on with `etcd put config/{SIGNUP} true`."
        )));
    }
    let db = app.datastore.autocommit().await?;
    if db.user_locked(&who.email).await?.is_some() {
        return Err(Error::BadRequest("Email already exists".into()));
    }
    if !who.email.contains('@') || who.email.chars().any(char::is_whitespace) {
        return Err(Error::invalid("email: not an e-mail address"));
    }
    if db.domain_active(&who.domain_name).await?.is_none() {
        return Err(Error::invalid("Invalid domain"));
    }
    let groups = db.group_named(&who.domain_name, SIGNUP_GROUP).await?;
    let row = NewUser {
        username: who.username.filter(|name| !name.is_empty()).unwrap_or_else(|| who.email.clone()),
        email: who.email,
        password_hash: None,
        need_password_change: false,
        full_name: who.full_name,
        description: who.description,
        status: "inactive".to_owned(),
        status_info: "user-signup".to_owned(),
        domain_name: who.domain_name,
        role: Role::User.as_str().to_owned(),
        allowed_client_ip: None,
        resource_policy: "default".to_owned(),
        sudo_session_enabled: false,
    };
    let wish = UserWish {
        row,
        password: who.password,
        groups: groups.into_iter().collect(),
        rate_limit: SIGNUP_RATE_LIMIT,
    };
    match user::create(app, wish).await {
        Ok((_, keypair)) => Ok((keypair.access_key.0, keypair.secret_key)),
        Err(error) => Err(error),
    }
}

/// Ends the caller's account. Nothing of it is removed.
///
/// # Errors
/// The account named is another's, or the password is not its.
pub async fn sign_out(
    app: &SharedApp,
    context: &RequestContext,
    email: &str,
    password: String,
) -> Result<()> {
    if email != context.email {
        return Err(Error::Forbidden("Not the account owner".into()));
    }
    let account = own(app, context).await?;
    if !password::check(password, account.password_hash).await? {
        return Err(Error::BadRequest("Invalid email and/or password".into()));
    }
    user::set_status(app, email, "inactive", "user-signout").await
}

async fn own(app: &SharedApp, context: &RequestContext) -> Result<UserIdentity> {
    let found = app.datastore.autocommit().await?.user_locked(&context.email).await?;
    found.ok_or_else(|| Error::NotFound { object: "user", message: None })
}

async fn store_password(app: &SharedApp, email: String, new: String) -> Result<()> {
    let hash = password::hash(new).await?;
    let db = app.datastore.autocommit().await?;
    let user = db.user_locked(&email).await?;
    let user = user.ok_or_else(|| Error::NotFound { object: "user", message: None })?;
    let change = UserChange {
        password_hash: Some(hash),
        need_password_change: Some(false),
        ..UserChange::default()
    };
    Ok(db.user_update(user.id, &change).await?)
}

fn refused_values(error: backendai_datastore::DatastoreError) -> Error {
    match error.refused_values() {
        Some(why) => Error::invalid(why),
        None => error.into(),
    }
}
