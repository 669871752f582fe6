//! Admits callers to GraphQL fields, by the table of [`field_rules`].
//!
//! Every query begins with [`admit`], or with [`scope`], which also says whose things the
//! caller may see. Mutations pass [`door`](super::mutations::door).

use std::sync::Arc;

use async_graphql::{Context, Error, Result};

use super::field_rules::{self, Rule};
use crate::api::problem::Problem;
use crate::app::{self, SharedApp};
use crate::context::{RequestContext, Role};

/// Who asks, and with what.
#[derive(Clone)]
pub struct Asker {
    /// What rules may use.
    pub app: SharedApp,
    /// Who.
    pub context: Arc<RequestContext>,
    /// The address the request came from.
    pub client: Option<std::net::IpAddr>,
}

/// Whose things a query is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only of this domain; `None` is any.
    pub domain: Option<String>,
    /// Only of this owner; `None` is any.
    pub owner: Option<String>,
}

/// Who asks, for fields below the root.
pub fn asker<'a>(ctx: &Context<'a>) -> Result<&'a Asker> {
    ctx.data::<Asker>()
}

/// Admits the caller to a query if the table's rule for it does.
///
/// # Errors
/// It does not, or there is no rule.
pub fn admit<'a>(ctx: &Context<'a>) -> Result<&'a Asker> {
    let asker = asker(ctx)?;
    let rule = field_rules::find(field_rules::QUERIES, ctx.field().name()).map(|row| row.rule);
    match rule {
        Some(rule) if rule.admits(asker.context.role) => Ok(asker),
        Some(Rule::Superadmin) => {
            Err(app::Error::Forbidden("superadmin privilege required".into()).into_graphql())
        }
        Some(Rule::Scoped) => Err(app::Error::invalid("Unknown client role").into_graphql()),
        Some(Rule::Administrator | Rule::Anyone) | None => {
            Err(Error::new("Insufficient privilege."))
        }
    }
}

/// What of `domain` and `owner`, as asked for, the caller may see. `own` is the caller's own
/// value of `owner`. A superadmin sees all, an administrator its domain, a user its own.
///
/// # Errors
/// Another's was asked for; or the caller's role has no scope.
pub fn scope<'a>(
    ctx: &Context<'a>,
    domain: Option<String>,
    owner: Option<String>,
    own: impl FnOnce(&RequestContext) -> String,
) -> Result<(&'a Asker, Scope)> {
    let asker = admit(ctx)?;
    let scope = decide(&asker.context, domain, owner, own(&asker.context))?;
    Ok((asker, scope))
}

fn decide(
    context: &RequestContext,
    domain: Option<String>,
    owner: Option<String>,
    own: String,
) -> Result<Scope> {
    let forbidden = || Error::new("Forbidden operation.");
    let own_domain = || match &domain {
        Some(domain) if *domain != context.domain_name => Err(forbidden()),
        _ => Ok(Some(context.domain_name.clone())),
    };
    match context.role {
        Role::Superadmin => Ok(Scope { domain, owner }),
        Role::Admin => Ok(Scope { domain: own_domain()?, owner }),
        Role::User => {
            let domain = own_domain()?;
            if owner.is_some_and(|owner| owner != own) {
                return Err(forbidden());
            }
            Ok(Scope { domain, owner: Some(own) })
        }
        Role::Monitor => {
            Err(Error::new("Missing or invalid API parameters. (Unknown client role)"))
        }
    }
}

/// Failures of rules as errors of GraphQL fields.
pub trait IntoGraphql {
    /// The error: what the client may know of it. The rest is logged, here and only here.
    fn into_graphql(self) -> Error;
}

impl<E: Into<app::Error>> IntoGraphql for E {
    fn into_graphql(self) -> Error {
        let problem = Problem::from(self.into());
        if let Some(cause) = problem.cause() {
            tracing::error!("a query failed: {cause}");
        }
        Error::new(problem.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backendai_types::{AccessKey, UserId};

    fn caller(role: Role) -> RequestContext {
        RequestContext {
            request_id: String::new(),
            access_key: AccessKey::from("OWN"),
            is_admin_key: false,
            user_id: UserId::random(),
            email: "me@example.org".into(),
            role,
            domain_name: "mine".into(),
            api_version: (7, "20230615".into()),
        }
    }

    fn ask(role: Role, domain: Option<&str>, owner: Option<&str>) -> Result<Scope, String> {
        let some = |text: &str| text.to_owned();
        decide(&caller(role), domain.map(some), owner.map(some), "OWN".into())
            .map_err(|error| error.message)
    }

    #[test]
    fn a_scope_never_exceeds_the_role() {
        let scope = |domain: Option<&str>, owner: Option<&str>| {
            Ok(Scope { domain: domain.map(str::to_owned), owner: owner.map(str::to_owned) })
        };
        let forbidden = Err("Forbidden operation.".to_owned());
        assert_eq!(ask(Role::Superadmin, Some("x"), Some("Y")), scope(Some("x"), Some("Y")));
        assert_eq!(ask(Role::Superadmin, None, None), scope(None, None));
        assert_eq!(ask(Role::Admin, None, Some("Y")), scope(Some("mine"), Some("Y")));
        assert_eq!(ask(Role::Admin, Some("x"), None), forbidden);
        assert_eq!(ask(Role::User, None, None), scope(Some("mine"), Some("OWN")));
        assert_eq!(ask(Role::User, Some("mine"), Some("OWN")), scope(Some("mine"), Some("OWN")));
        assert_eq!(ask(Role::User, None, Some("Y")), forbidden);
        assert_eq!(ask(Role::User, Some("x"), None), forbidden);
        assert!(ask(Role::Monitor, None, None).is_err());
    }
}
