//! What must hold before a session may look for room. The texts are the product's.

use backendai_types::SessionType;
use chrono::{DateTime, Utc};

use crate::Session;
use crate::amounts::Request;
use crate::quota::Owners;

/// A condition that is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Name of the condition.
    pub name: &'static str,
    /// Why it is not met, for users.
    pub message: String,
}

/// All conditions of a session: those that failed, and names of those that passed. All are
/// looked at, so that a user learns of everything at once.
pub(crate) fn check(
    session: &Session,
    request: &Request,
    owners: &Owners,
    now: DateTime<Utc>,
) -> (Vec<Failure>, Vec<&'static str>) {
    let mut failed = Vec::new();
    let mut passed = Vec::new();
    let mut note = |name: &'static str, failure: Option<String>| match failure {
        Some(message) => failed.push(Failure { name, message }),
        None => passed.push(name),
    };
    note("reserved_time", reserved_time(session, now));
    note("dependencies", dependencies(session));
    note("concurrency", concurrency(session, owners));

    let limited = !session.is_private;
    let exceeded = |what: &str, caps: &str| format!("{what} resource quota is exceeded. ({caps})");
    let keypair = owners.keypairs.get(&session.access_key);
    note(
        "keypair_resource_limit",
        match keypair {
            _ if !limited => None,
            Some(keypair) if keypair.cap.allows(request) => None,
            Some(keypair) => Some(exceeded("Your keypair", &keypair.cap.describe())),
            None => Some("The keypair has no resource policy.".to_owned()),
        },
    );
    note(
        "user_resource_limit",
        match owners.users.get(&session.user_id) {
            _ if !limited => None,
            Some(cap) if cap.allows(request) => None,
            Some(cap) => Some(exceeded("Your main-keypair", &cap.describe())),
            None => Some("The user has no main keypair.".to_owned()),
        },
    );
    note(
        "user_group_resource_limit",
        match owners.groups.get(&session.group_id) {
            Some(cap) if limited && !cap.allows(request) => {
                Some(exceeded("Your group", &cap.describe()))
            }
            _ => None,
        },
    );
    note(
        "domain_resource_limit",
        match owners.domains.get(&session.domain_name) {
            Some(cap) if limited && !cap.allows(request) => {
                Some(exceeded("Your domain", &cap.describe()))
            }
            _ => None,
        },
    );
    (failed, passed)
}

fn reserved_time(session: &Session, now: DateTime<Utc>) -> Option<String> {
    let early = session.starts_at.is_some_and(|at| now < at);
    (session.session_type == SessionType::Batch && early).then(|| "Before start time".to_owned())
}

fn dependencies(session: &Session) -> Option<String> {
    if session.unmet_dependencies.is_empty() {
        return None;
    }
    let list: Vec<String> =
        session.unmet_dependencies.iter().map(|(id, name)| format!("{name} ({id})")).collect();
    Some(format!("Waiting dependency sessions to finish as success. ({})", list.join(", ")))
}

fn concurrency(session: &Session, owners: &Owners) -> Option<String> {
    let keypair = owners.keypairs.get(&session.access_key)?;
    let (limit, has, what) = if session.is_private {
        (keypair.max_private_sessions, keypair.private_sessions, "SFTP sessions")
    } else {
        (keypair.max_sessions, keypair.sessions, "sessions")
    };
    let limit = limit.filter(|limit| has >= *limit)?;
    Some(format!("You cannot run more than {limit} concurrent {what}"))
}
