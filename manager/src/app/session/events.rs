//! Which events of sessions a caller may see, and which it wants to.

use std::time::Duration;

use backendai_datastore::transition::STREAMED_EVENTS;
use backendai_datastore::transition_view::TransitionView;
use backendai_types::{AccessKey, GroupId, SessionId, UserId};

use crate::app::{Error, Result, SharedApp};
use crate::context::{RequestContext, Role};
use crate::feed::Subscription;

/// How long a quiet stream stays without a sign of life.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What stands for any name.
const ANY: &str = "*";

/// What a caller wants to hear of.
#[derive(Clone, Debug)]
pub struct ListenToSessions {
    /// Name of the sessions; `*` is any.
    pub session_name: String,
    /// Whose sessions of that name; the caller's own by default.
    pub owner_access_key: Option<String>,
    /// One session, whatever its name and keypair.
    pub session_id: Option<SessionId>,
    /// Name of their group; `*` is any.
    pub group_name: String,
    /// Events of sessions, of kernels, or both.
    pub scope: EventScope,
    /// Go on after the event of this number.
    pub after: Option<i64>,
}

/// What events are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventScope {
    /// Sessions and kernels.
    All,
    /// Sessions.
    Session,
    /// Kernels.
    Kernel,
}

impl EventScope {
    /// Every scope.
    pub const ALL: &'static [Self] = &[Self::All, Self::Session, Self::Kernel];

    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => ANY,
            Self::Session => "session",
            Self::Kernel => "kernel",
        }
    }

    fn admits(self, transition: &TransitionView) -> bool {
        match self {
            Self::All => true,
            Self::Session => transition.event.starts_with("session_"),
            Self::Kernel => transition.event.starts_with("kernel_"),
        }
    }
}

/// Listens to what a caller wants to hear of and may.
pub struct Listener {
    subscription: Subscription,
    filter: Filter,
}

impl Listener {
    /// The next events, in order: at least one. Cancel-safe.
    ///
    /// # Errors
    /// PostgreSQL failed; nothing was skipped.
    pub async fn next(&mut self) -> Result<Vec<std::sync::Arc<TransitionView>>> {
        loop {
            let mut news = self.subscription.next().await?;
            news.retain(|transition| self.filter.admits(transition));
            if !news.is_empty() {
                return Ok(news);
            }
        }
    }
}

/// Begins to listen.
///
/// # Errors
/// Another's keypair is none of the caller's business, or there is no such group.
pub async fn listen(
    app: &SharedApp,
    context: &RequestContext,
    request: ListenToSessions,
) -> Result<Listener> {
    let own = context.access_key.as_str();
    if context.role == Role::User && request.owner_access_key.as_ref().is_some_and(|key| key != own)
    {
        return Err(Error::Forbidden("Only your own access key may be given.".into()));
    }
    // First, so that nothing is missed that happens from here on.
    let subscription = app.feed.subscribe(&app.datastore, request.after).await;
    let group_id = match request.group_name.as_str() {
        ANY => None,
        name => {
            let db = app.datastore.autocommit().await?;
            let found = db.group_active(&context.domain_name, name, None).await?;
            Some(found.ok_or(Error::NotFound { object: "group", message: None })?)
        }
    };
    let filter = Filter {
        visible: match context.role {
            Role::Superadmin => Visible::All,
            Role::Admin | Role::Monitor => Visible::Domain(context.domain_name.clone()),
            Role::User => Visible::User(context.user_id),
        },
        session: match (request.session_id, request.session_name.as_str()) {
            (Some(id), _) => Which::Id(id),
            (None, ANY) => Which::Any(request.owner_access_key.map(AccessKey)),
            (None, name) => Which::Named(
                name.to_owned(),
                request.owner_access_key.map_or_else(|| context.access_key.clone(), AccessKey),
            ),
        },
        group_id,
        scope: request.scope,
    };
    Ok(Listener { subscription, filter })
}

struct Filter {
    visible: Visible,
    session: Which,
    group_id: Option<GroupId>,
    scope: EventScope,
}

/// What the caller's role lets it see.
enum Visible {
    All,
    Domain(String),
    User(UserId),
}

/// What the caller asked for.
enum Which {
    Any(Option<AccessKey>),
    Named(String, AccessKey),
    Id(SessionId),
}

impl Filter {
    fn admits(&self, transition: &TransitionView) -> bool {
        let is_visible = match &self.visible {
            Visible::All => true,
            Visible::Domain(name) => transition.domain_name == *name,
            Visible::User(id) => transition.user_id == *id,
        };
        let is_wanted = match &self.session {
            Which::Any(owner) => owner.as_ref().is_none_or(|key| transition.access_key == *key),
            Which::Named(name, owner) => {
                transition.session_name == *name && transition.access_key == *owner
            }
            Which::Id(id) => transition.session_id == *id,
        };
        is_visible
            && is_wanted
            && self.group_id.is_none_or(|id| transition.group_id == id)
            && self.scope.admits(transition)
            && STREAMED_EVENTS.contains(&transition.event.as_str())
    }
}
