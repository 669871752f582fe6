//! Nodes and connections: people and groups in the form that Relay reads.

use async_graphql::{ComplexObject, Context, Error, ID, Interface, Result, SimpleObject};
use backendai_datastore::identity_view::{GroupView, USER_FIELDS, UserScope, UserView};
use backendai_datastore::list_view::{Page, Slice};
use backendai_types::{GroupId, UserId};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::container_registry::ContainerRegistry;
use super::guard::{self, Asker, IntoGraphql};
use super::node::global_id;
use super::queries::slice;
use super::scalars::{DateTime, JsonString};

/// Rows of a page nobody gave a length.
const PAGE: i32 = 10;
/// Rows of the longest page.
const MAX_PAGE: i32 = 100;

/// Whatever has an id of its own among all things.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID"))]
pub enum Node {
    /// A user.
    User(UserNode),
    /// A group.
    Group(GroupNode),
    /// A container registry.
    Registry(ContainerRegistry),
}

/// A user.
#[derive(SimpleObject)]
#[graphql(complex, rename_fields = "snake_case")]
pub struct UserNode {
    #[graphql(skip)]
    user: UserId,
    username: Option<String>,
    email: Option<String>,
    need_password_change: Option<bool>,
    full_name: Option<String>,
    description: Option<String>,
    #[graphql(deprecation = "use status")]
    is_active: Option<bool>,
    status: Option<String>,
    status_info: Option<String>,
    created_at: Option<DateTime>,
    modified_at: Option<DateTime>,
    domain_name: Option<String>,
    role: Option<String>,
    resource_policy: Option<String>,
    allowed_client_ip: Option<Vec<Option<String>>>,
    totp_activated: Option<bool>,
    totp_activated_at: Option<DateTime>,
    sudo_session_enabled: Option<bool>,
}

/// A group.
#[derive(SimpleObject)]
#[graphql(complex, rename_fields = "snake_case")]
pub struct GroupNode {
    name: Option<String>,
    description: Option<String>,
    is_active: Option<bool>,
    created_at: Option<DateTime>,
    modified_at: Option<DateTime>,
    domain_name: Option<String>,
    total_resource_slots: Option<JsonString>,
    allowed_vfolder_hosts: Option<JsonString>,
    integration_id: Option<String>,
    resource_policy: Option<String>,
    scaling_groups: Option<Vec<Option<String>>>,
    #[graphql(skip)]
    group: GroupId,
}

/// Where a page lies in its list.
#[derive(SimpleObject)]
pub struct PageInfo {
    has_next_page: bool,
    has_previous_page: bool,
    start_cursor: Option<String>,
    end_cursor: Option<String>,
}

/// A user of a page.
#[derive(SimpleObject)]
pub struct UserEdge {
    node: Option<UserNode>,
    cursor: String,
}

/// A page of users.
#[derive(SimpleObject)]
pub struct UserConnection {
    #[graphql(name = "pageInfo")]
    page_info: PageInfo,
    edges: Vec<Option<UserEdge>>,
    count: Option<i32>,
}

/// A group of a page.
#[derive(SimpleObject)]
pub struct GroupEdge {
    node: Option<GroupNode>,
    cursor: String,
}

/// A page of groups.
#[derive(SimpleObject)]
pub struct GroupConnection {
    #[graphql(name = "pageInfo")]
    page_info: PageInfo,
    edges: Vec<Option<GroupEdge>>,
    count: Option<i32>,
}

impl From<UserView> for UserNode {
    fn from(row: UserView) -> Self {
        Self {
            user: row.id,
            username: row.username,
            email: Some(row.email),
            need_password_change: Some(row.need_password_change),
            full_name: row.full_name,
            description: row.description,
            is_active: Some(row.status == "active"),
            status: Some(row.status),
            status_info: row.status_info,
            created_at: Some(row.created_at.into()),
            modified_at: Some(row.modified_at.into()),
            domain_name: row.domain_name,
            role: Some(row.role),
            resource_policy: Some(row.resource_policy),
            allowed_client_ip: row
                .allowed_client_ip
                .map(|list| list.into_iter().map(Some).collect()),
            totp_activated: Some(row.totp_activated),
            totp_activated_at: row.totp_activated_at.map(Into::into),
            sudo_session_enabled: Some(row.sudo_session_enabled),
        }
    }
}

impl From<GroupView> for GroupNode {
    fn from(row: GroupView) -> Self {
        Self {
            name: Some(row.name),
            description: row.description,
            is_active: Some(row.is_active),
            created_at: Some(row.created_at.into()),
            modified_at: Some(row.modified_at.into()),
            domain_name: Some(row.domain_name),
            total_resource_slots: Some(row.total_resource_slots.into()),
            allowed_vfolder_hosts: Some(row.allowed_vfolder_hosts.into()),
            integration_id: row.integration_id,
            resource_policy: Some(row.resource_policy),
            scaling_groups: Some(row.scaling_groups.into_iter().map(Some).collect()),
            group: row.id,
        }
    }
}

/// A user.
#[ComplexObject(rename_fields = "snake_case")]
impl UserNode {
    pub(super) async fn id(&self) -> ID {
        global_id("UserNode", &self.user.to_string())
    }
}

/// A group.
#[ComplexObject(rename_fields = "snake_case", rename_args = "snake_case")]
impl GroupNode {
    pub(super) async fn id(&self) -> ID {
        global_id("GroupNode", &self.group.to_string())
    }

    /// Its members, for who may see people at all.
    #[expect(clippy::too_many_arguments, reason = "they are the field's own")]
    async fn user_nodes(
        &self,
        ctx: &Context<'_>,
        filter: Option<String>,
        order: Option<String>,
        offset: Option<i32>,
        before: Option<String>,
        after: Option<String>,
        first: Option<i32>,
        last: Option<i32>,
    ) -> Result<Option<UserConnection>> {
        let window = Window { offset, before, after, first, last };
        let scope = UserScope { group_id: Some(self.group), ..UserScope::default() };
        user_connection(guard::asker(ctx)?, &scope, filter, order, &window).await.map(Some)
    }
}

/// Which part of a list is wanted: forward from an offset or cursor, or backward from one.
#[derive(Debug, Default)]
pub struct Window {
    /// After so many.
    pub offset: Option<i32>,
    /// Only what lies before this cursor.
    pub before: Option<String>,
    /// Only what lies after this cursor.
    pub after: Option<String>,
    /// At most so many, from the beginning.
    pub first: Option<i32>,
    /// At most so many, up to the end of what lies before the cursor.
    pub last: Option<i32>,
}

impl Window {
    /// The first row and the number of rows.
    fn resolve(&self) -> Result<(i32, i32)> {
        let length = |wanted: Option<i32>| match wanted {
            Some(wanted) if wanted < 0 => Err(Error::new("A page cannot have fewer than 0 rows.")),
            Some(wanted) => Ok(wanted.min(MAX_PAGE)),
            None => Ok(PAGE),
        };
        if let Some(before) = &self.before {
            let end = position(before)?;
            let length = length(self.last)?.min(end);
            return Ok((end - length, length));
        }
        if self.last.is_some() {
            return Err(Error::new("`last` needs `before`."));
        }
        let begin = match &self.after {
            Some(after) => position(after)?.saturating_add(1),
            None => self.offset.unwrap_or_default().max(0),
        };
        Ok((begin, length(self.first)?))
    }
}

/// A cursor is a position in its list, in a form that nobody is tempted to calculate with.
fn cursor(position: i32) -> String {
    STANDARD.encode(format!("row:{position}"))
}

fn position(cursor: &str) -> Result<i32> {
    let decoded = STANDARD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let position = decoded.and_then(|text| text.strip_prefix("row:")?.parse::<i32>().ok());
    position.filter(|position| *position >= 0).ok_or_else(|| Error::new("No such cursor."))
}

fn page_info(begin: i32, shown: usize, total: i64) -> PageInfo {
    let shown = i32::try_from(shown).unwrap_or(i32::MAX);
    let end = begin.saturating_add(shown);
    PageInfo {
        has_next_page: i64::from(end) < total,
        has_previous_page: begin > 0 && total > 0,
        start_cursor: (shown > 0).then(|| cursor(begin)),
        end_cursor: (shown > 0).then(|| cursor(end - 1)),
    }
}

/// Rows with their cursors.
fn edges<T, E>(begin: i32, rows: Vec<T>, edge: impl Fn(T, String) -> E) -> Vec<Option<E>> {
    (begin..).zip(rows).map(|(position, row)| Some(edge(row, cursor(position)))).collect()
}

/// A page of users.
///
/// # Errors
/// Filter, order or cursor is none, or PostgreSQL failed.
pub async fn user_connection(
    asker: &Asker,
    scope: &UserScope,
    filter: Option<String>,
    order: Option<String>,
    window: &Window,
) -> Result<UserConnection> {
    let (begin, length) = window.resolve()?;
    let page = user_page(asker, scope, &slice(length, begin, filter, order, USER_FIELDS)?).await?;
    Ok(UserConnection {
        page_info: page_info(begin, page.items.len(), page.total),
        edges: edges(begin, page.items, |row, cursor| UserEdge { node: Some(row.into()), cursor }),
        count: Some(i32::try_from(page.total).unwrap_or(i32::MAX)),
    })
}

/// Users as rows.
///
/// # Errors
/// PostgreSQL failed.
pub async fn user_page(asker: &Asker, scope: &UserScope, slice: &Slice) -> Result<Page<UserView>> {
    let load = async {
        let db = asker.app.datastore.autocommit().await?;
        db.user_page(scope, slice).await
    };
    load.await.map_err(IntoGraphql::into_graphql)
}

/// A page of these groups.
///
/// # Errors
/// The cursor is none.
pub fn group_connection(groups: Vec<GroupView>, window: &Window) -> Result<GroupConnection> {
    let (begin, length) = window.resolve()?;
    let count = |number: i32| usize::try_from(number).unwrap_or_default();
    let total = groups.len();
    let rows: Vec<_> = groups.into_iter().skip(count(begin)).take(count(length)).collect();
    Ok(GroupConnection {
        page_info: page_info(begin, rows.len(), i64::try_from(total).unwrap_or(i64::MAX)),
        edges: edges(begin, rows, |row, cursor| GroupEdge { node: Some(row.into()), cursor }),
        count: Some(i32::try_from(total).unwrap_or(i32::MAX)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_go_forward_and_backward() {
        let forward = |after: Option<i32>, first| Window {
            after: after.map(cursor),
            first,
            ..Window::default()
        };
        assert_eq!(forward(None, None).resolve().unwrap(), (0, PAGE));
        assert_eq!(forward(Some(9), Some(5)).resolve().unwrap(), (10, 5));
        assert_eq!(forward(None, Some(i32::MAX)).resolve().unwrap(), (0, MAX_PAGE));
        let back = Window { before: Some(cursor(3)), last: Some(5), ..Window::default() };
        assert_eq!(back.resolve().unwrap(), (0, 3));
        assert!(Window { last: Some(1), ..Window::default() }.resolve().is_err());
        assert!(Window { first: Some(-1), ..Window::default() }.resolve().is_err());
        assert!(Window { after: Some("nonsense".into()), ..Window::default() }.resolve().is_err());
    }

    #[test]
    fn pages_know_what_lies_around_them() {
        let info = page_info(10, 10, 21);
        assert!(info.has_next_page && info.has_previous_page);
        assert_eq!(position(&info.end_cursor.unwrap()).unwrap(), 19);
        let info = page_info(0, 0, 0);
        assert!(!info.has_next_page && !info.has_previous_page && info.start_cursor.is_none());
    }
}
