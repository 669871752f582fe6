//! Folders in lists.

use backendai_types::{GroupId, UserId, VfolderId};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::error::Result;
use crate::list_view::{Field, Kind, Page, Slice, Sql};
use crate::row;
use crate::tx::Transaction;
use crate::vfolder::Vfolder;

/// Which folders.
#[derive(Clone, Debug, Default)]
pub struct VfolderScope {
    /// Only of this domain's users and groups.
    pub domain: Option<String>,
    /// Only of this group.
    pub group: Option<GroupId>,
    /// Only of this user, or of groups that this user belongs to if `group` is given.
    pub user: Option<UserId>,
    /// Only this one.
    pub id: Option<VfolderId>,
    /// Only those that others share with this user; then their permission is what the user
    /// was given.
    pub shared_with: Option<UserId>,
    /// Only those of groups that this user belongs to.
    pub member: Option<UserId>,
}

/// What somebody was given on a folder of another.
#[derive(Clone, Debug)]
pub struct VfolderPermissionView {
    /// The folder.
    pub vfolder: VfolderId,
    /// Its name.
    pub vfolder_name: String,
    /// Who.
    pub user: UserId,
    /// That user's e-mail address.
    pub user_email: String,
    /// What.
    pub permission: backendai_types::VfolderPermission,
}

const PERMISSION_NAMES: &[(&str, &str)] =
    &[("READ_ONLY", "ro"), ("READ_WRITE", "rw"), ("RW_DELETE", "wd"), ("OWNER_PERM", "wd")];
const USAGE_NAMES: &[(&str, &str)] =
    &[("GENERAL", "general"), ("MODEL", "model"), ("DATA", "data")];
const OWNERSHIP_NAMES: &[(&str, &str)] = &[("USER", "user"), ("GROUP", "group")];
const STATUS_NAMES: &[(&str, &str)] = &[
    ("READY", "ready"),
    ("PERFORMING", "performing"),
    ("CLONING", "cloning"),
    ("DELETING", "deleting"),
    ("MOUNTED", "mounted"),
];

const OWNERSHIP: &str = "CASE WHEN v.\"user\" IS NULL THEN 'group' ELSE 'user' END";
const SCOPE: &str = "CASE WHEN v.\"user\" IS NULL THEN 'project:' || v.\"group\" \
    ELSE 'user:' || v.\"user\" END";
const STATUS: &str = "CASE WHEN EXISTS (SELECT FROM vfolders c WHERE c.clone_source = v.id \
    AND c.status = 'performing') AND v.status = 'ready' THEN 'cloning' ELSE v.status END";

/// What folders can be filtered and ordered by.
pub static VFOLDER_FIELDS: &[Field] = &[
    Field::new("id", "v.id", Kind::Uuid),
    Field::new("host", "v.host", Kind::Text),
    Field::new("quota_scope_id", SCOPE, Kind::Text),
    Field::new("name", "v.name", Kind::Text),
    Field::new("group", "v.\"group\"", Kind::Uuid),
    Field::new("group_name", "g.name", Kind::Text),
    Field::new("user", "v.\"user\"", Kind::Uuid),
    Field::new("user_email", "u.email", Kind::Text),
    Field::new("creator", "v.creator", Kind::Text),
    Field::new("unmanaged_path", "NULL::text", Kind::Text).filter_only(),
    Field::new("usage_mode", "v.usage_mode", Kind::Enum(USAGE_NAMES)),
    Field::new("permission", "v.permission", Kind::Enum(PERMISSION_NAMES)),
    Field::new("ownership_type", OWNERSHIP, Kind::Enum(OWNERSHIP_NAMES)),
    Field::new("max_files", "v.max_files", Kind::Int),
    Field::new("max_size", "v.max_size", Kind::Int),
    Field::new("cur_size", "v.used_bytes", Kind::Int).order_only(),
    Field::new("created_at", "v.created_at", Kind::Date),
    Field::new("last_used", "v.last_used", Kind::Date),
    Field::new("cloneable", "v.cloneable", Kind::Bool),
    Field::new("status", STATUS, Kind::Enum(STATUS_NAMES)),
];

/// What shares can be filtered and ordered by.
pub static VFOLDER_PERMISSION_FIELDS: &[Field] = &[
    Field::new("permission", "p.permission", Kind::Enum(PERMISSION_NAMES)),
    Field::new("vfolder", "v.id", Kind::Uuid),
    Field::new("vfolder_name", "v.name", Kind::Text),
    Field::new("user", "s.uuid", Kind::Uuid),
    Field::new("user_email", "s.email", Kind::Text),
];

impl Transaction {
    /// A page of folders, the newest first unless asked otherwise.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_page(&self, scope: &VfolderScope, slice: &Slice) -> Result<Page<Vfolder>> {
        let mut sql = Sql::new("-- vfolder_page\nSELECT ");
        sql.push(Vfolder::COLUMNS);
        if scope.shared_with.is_some() {
            sql.push(", p.permission AS given");
        }
        restrict(&mut sql, scope, slice);
        sql.slice(slice, "v.created_at DESC, v.id", "v.id");
        let mut items = Vec::new();
        for row in self.query_built(&sql, slice.is_custom()).await? {
            let Some(mut folder) = Vfolder::from_row(&row)? else { continue };
            if scope.shared_with.is_some() {
                folder.permission = row::parsed(&row, "given")?;
            }
            items.push(folder);
        }
        let total = match slice.total_if_last(items.len()) {
            Some(total) => total,
            None => {
                let mut sql = Sql::new("-- vfolder_page_count\nSELECT count(*)");
                restrict(&mut sql, scope, slice);
                self.count_built(&sql, slice.is_custom()).await?
            }
        };
        Ok(Page { items, total })
    }

    /// A page of what people were given on the folders of others.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_permission_page(
        &self,
        slice: &Slice,
    ) -> Result<Page<VfolderPermissionView>> {
        let from = " FROM vfolder_permissions p JOIN vfolders v ON v.id = p.vfolder \
            JOIN users s ON s.uuid = p.\"user\" WHERE v.status IN ('ready', 'performing')";
        let filter = |sql: &mut Sql| {
            sql.push(from);
            if let Some(condition) = &slice.filter {
                sql.push(" AND ");
                sql.condition(condition);
            }
        };
        let mut sql = Sql::new(
            "-- vfolder_permission_page\nSELECT v.id, v.name, s.uuid, s.email, p.permission",
        );
        filter(&mut sql);
        sql.slice(slice, "v.created_at DESC, v.id, s.uuid", "v.id, s.uuid");
        let rows = self.query_built(&sql, slice.is_custom()).await?;
        let items = rows
            .iter()
            .map(|row| {
                Ok(VfolderPermissionView {
                    vfolder: VfolderId(row.try_get("id")?),
                    vfolder_name: row.try_get("name")?,
                    user: UserId(row.try_get("uuid")?),
                    user_email: row.try_get("email")?,
                    permission: row::parsed(row, "permission")?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let total = match slice.total_if_last(items.len()) {
            Some(total) => total,
            None => {
                let mut sql = Sql::new("-- vfolder_permission_count\nSELECT count(*)");
                filter(&mut sql);
                self.count_built(&sql, slice.is_custom()).await?
            }
        };
        Ok(Page { items, total })
    }
}

fn restrict(sql: &mut Sql, scope: &VfolderScope, slice: &Slice) {
    sql.push(" FROM ").push(Vfolder::FROM);
    if let Some(user) = scope.shared_with {
        sql.push(" JOIN vfolder_permissions p ON p.vfolder = v.id AND p.\"user\" = ");
        sql.bind(user.0, Type::UUID);
    }
    sql.push(
        " WHERE v.status IN ('ready', 'performing') AND num_nonnulls(v.\"user\", v.\"group\") > 0",
    );
    if let Some(domain) = &scope.domain {
        sql.push(" AND coalesce(u.domain_name, g.domain_name) = ").bind(domain.clone(), Type::TEXT);
    }
    match (scope.group, scope.user) {
        (Some(group), user) => {
            sql.push(" AND v.\"group\" = ").bind(group.0, Type::UUID);
            if let Some(user) = user {
                member(sql, user.0);
            }
        }
        (None, Some(user)) => {
            sql.push(" AND v.\"user\" = ").bind(user.0, Type::UUID);
        }
        (None, None) => {}
    }
    if let Some(id) = scope.id {
        sql.push(" AND v.id = ").bind(id.0, Type::UUID);
    }
    if let Some(user) = scope.shared_with {
        sql.push(" AND v.\"user\" <> ").bind(user.0, Type::UUID);
    }
    if let Some(user) = scope.member {
        member(sql, user.0);
    }
    if let Some(condition) = &slice.filter {
        sql.push(" AND ");
        sql.condition(condition);
    }
}

fn member(sql: &mut Sql, user: Uuid) {
    sql.push(
        " AND EXISTS (SELECT FROM association_groups_users m WHERE m.group_id = v.\"group\" \
              AND m.user_id = ",
    );
    sql.bind(user, Type::UUID).push(")");
}
