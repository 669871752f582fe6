//! The door all mutations pass: who may, whether the manager takes changes now, what the
//! caller is told, and the entry in the audit log.
//!
//! A mutation that fails is no GraphQL error: it answers `ok: false` and says why in `msg`.
//! Only values that cannot be what they should (a role that is none) are errors.

use std::fmt::Display;

use async_graphql::{Context, Error, Result};
use backendai_datastore::AsDatastoreError;
use backendai_datastore::audit::AuditOutcome;

use super::super::field_rules;
use super::super::guard::{self, Asker};
use crate::api::problem::Problem;
use crate::app::manager_status::{self, Work};
use crate::app::{self, audit};

/// What came of a mutation.
pub struct Done<T> {
    /// Whether it was done.
    pub ok: bool,
    /// `success`, or why not.
    pub msg: String,
    /// What was made or changed.
    pub object: Option<T>,
}

impl<T> Done<T> {
    /// The same with the object as the schema shows it.
    pub fn map<U>(self, show: impl FnOnce(T) -> U) -> Done<U> {
        Done { ok: self.ok, msg: self.msg, object: self.object.map(show) }
    }

    /// The same with another text when it was done.
    pub fn saying(self, success: &str) -> Self {
        let msg = if self.ok { success.to_owned() } else { self.msg };
        Self { msg, ..self }
    }

    /// The object of a mutation that has no `ok` and `msg`.
    ///
    /// # Errors
    /// It was not done.
    pub fn or_error(self) -> Result<Option<T>> {
        match self.ok {
            true => Ok(self.object),
            false if self.msg.starts_with(NO_PERMISSION) => Err(Error::new("Forbidden operation.")),
            false => Err(Error::new(self.msg)),
        }
    }
}

const NO_PERMISSION: &str = "no permission to execute";

/// How a failure is told.
enum Told {
    /// `ok: false` with this text.
    Refused(String),
    /// As a GraphQL error.
    Error(String),
    /// `ok: false` with this text; something broke.
    Failed(String),
}

/// Carries a mutation out, if its rule and the manager's status allow. `target` is what it
/// is done to, as the caller named it.
///
/// # Errors
/// A value cannot be what it should, or the manager is frozen.
pub async fn pass<'a, T, Fut>(
    ctx: &Context<'a>,
    target: impl Display,
    work: impl FnOnce(&'a Asker) -> Fut,
) -> Result<Done<T>>
where
    Fut: Future<Output = app::Result<T>>,
{
    let asker = guard::asker(ctx)?;
    let name = ctx.field().name();
    let done = match admit(asker, name).await {
        Ok(()) => work(asker).await,
        Err(error) => Err(error),
    };
    let (outcome, answer) = match done {
        Ok(object) => {
            let done = Done { ok: true, msg: "success".into(), object: Some(object) };
            (AuditOutcome::Success, Ok(done))
        }
        Err(error) => match tell(name, error) {
            Told::Refused(msg) => (AuditOutcome::Refused, Ok(refusal(msg))),
            Told::Failed(msg) => (AuditOutcome::Failed, Ok(refusal(msg))),
            Told::Error(msg) => (AuditOutcome::Refused, Err(msg)),
        },
    };
    let message = match (&outcome, &answer) {
        (AuditOutcome::Success, _) => "",
        (_, Ok(done)) => &done.msg,
        (_, Err(msg)) => msg,
    };
    let deed = audit::Deed {
        request_id: &asker.context.request_id,
        context: Some(&asker.context),
        client: asker.client,
        operation: name,
        target: &target.to_string(),
        outcome,
        message,
    };
    audit::record(&asker.app, deed).await;
    answer.map_err(Error::new)
}

fn refusal<T>(msg: String) -> Done<T> {
    Done { ok: false, msg, object: None }
}

async fn admit(asker: &Asker, name: &str) -> app::Result<()> {
    let admits = field_rules::find(field_rules::MUTATIONS, name)
        .is_some_and(|row| row.rule.admits(asker.context.role));
    if !admits {
        return Err(app::Error::Forbidden(name.to_owned()));
    }
    manager_status::admit(&asker.app, Work::Change).await
}

fn tell(name: &str, error: app::Error) -> Told {
    if let Some(why) = error.as_datastore_error().and_then(|e| e.refused_values()) {
        return Told::Refused(format!("integrity error: {why}"));
    }
    match error {
        app::Error::Forbidden(_) | app::Error::InsufficientPrivilege(_) => {
            Told::Refused(format!("{NO_PERMISSION} {name}"))
        }
        app::Error::NotFound { message: None, .. } => {
            Told::Refused(format!("no matching {}", name.replace('_', "")))
        }
        app::Error::BadRequest(why) => Told::Refused(why),
        app::Error::InvalidParams { message, .. } => Told::Error(message),
        error @ app::Error::Frozen => Told::Error(Problem::from(error).summary()),
        error => {
            let problem = Problem::from(error);
            match problem.cause() {
                Some(cause) => {
                    tracing::error!(mutation = name, "a mutation failed: {cause}");
                    Told::Failed(format!("unexpected error: {}", problem.summary()))
                }
                None => Told::Refused(problem.summary()),
            }
        }
    }
}

/// Payloads of mutations: `ok`, `msg`, and what some of them return besides.
macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident $(($object:ident: $kind:ty))?;)+) => {$(
        #[derive(async_graphql::SimpleObject)]
        #[graphql(rename_fields = "snake_case")]
        $(#[$doc])*
        pub struct $name {
            ok: Option<bool>,
            msg: Option<String>,
            $($object: Option<$kind>,)?
        }

        $crate::api::graphql::mutations::door::payload_from!($name $($object $kind)?);
    )+};
}
pub(super) use payloads;

macro_rules! payload_from {
    ($name:ident) => {
        impl From<$crate::api::graphql::mutations::door::Done<()>> for $name {
            fn from(done: $crate::api::graphql::mutations::door::Done<()>) -> Self {
                Self { ok: Some(done.ok), msg: Some(done.msg) }
            }
        }
    };
    ($name:ident $object:ident $kind:ty) => {
        impl From<$crate::api::graphql::mutations::door::Done<$kind>> for $name {
            fn from(done: $crate::api::graphql::mutations::door::Done<$kind>) -> Self {
                Self { ok: Some(done.ok), msg: Some(done.msg), $object: done.object }
            }
        }
    };
}
pub(super) use payload_from;
