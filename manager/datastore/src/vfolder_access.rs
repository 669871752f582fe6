//! Which folders somebody may use, and how.

use std::collections::{BTreeMap, BTreeSet};

use backendai_types::{AccessKey, HostPermission, UserId, VfolderId, VfolderPermission};
use serde_json::Value;
use uuid::Uuid;

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;
use crate::vfolder::{Vfolder, VfolderOwner};

/// Who looks for folders.
#[derive(Clone, Debug)]
pub struct VfolderUser {
    /// The user.
    pub id: UserId,
    /// Whose groups' folders the user sees besides those of its own groups.
    pub groups: VfolderGroups,
}

/// Groups whose folders somebody sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VfolderGroups {
    /// Those the user belongs to.
    Own,
    /// All of a domain: administrators.
    Domain(String),
    /// All.
    All,
}

/// How a folder comes to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is the user's own.
    Own,
    /// It is another's who shares it.
    Shared,
    /// It is a group's.
    Group,
}

/// A folder as somebody may use it.
#[derive(Clone, Debug)]
pub struct VfolderAccess {
    /// The folder.
    pub folder: Vfolder,
    /// How it comes to the user.
    pub relation: Relation,
    /// What the user may do with it.
    pub permission: VfolderPermission,
}

/// Which folders.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Only of this name.
    pub name: Option<&'a str>,
    /// Only this one.
    pub id: Option<VfolderId>,
}

impl VfolderAccess {
    /// True if `user`, who found the folder, may do at least `need` with it.
    pub fn allows(&self, user: &VfolderUser, need: VfolderPermission) -> bool {
        match self.relation {
            Relation::Own => true,
            Relation::Group if user.groups != VfolderGroups::Own => true,
            Relation::Shared | Relation::Group => self.permission >= need,
        }
    }
}

impl Transaction {
    /// An active user as somebody who looks for folders.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_user(&self, id: UserId) -> Result<Option<VfolderUser>> {
        let sql = "-- vfolder_user
            SELECT role, domain_name FROM users WHERE uuid = $1 AND status = 'active'";
        let Some(row) = self.query_opt(sql, &[&id.0]).await? else { return Ok(None) };
        let domain: Option<String> = row.try_get("domain_name")?;
        let groups = match (row.try_get("role")?, domain) {
            ("superadmin", _) => VfolderGroups::All,
            ("admin", Some(domain)) => VfolderGroups::Domain(domain),
            _ => VfolderGroups::Own,
        };
        Ok(Some(VfolderUser { id, groups }))
    }

    /// What the policies of a user's domain, groups and main keypair allow, by host.
    ///
    /// # Errors
    /// PostgreSQL failed, or a policy is malformed.
    pub async fn vfolder_hosts_of_user(
        &self,
        id: UserId,
    ) -> Result<BTreeMap<String, BTreeSet<HostPermission>>> {
        let sql = "-- vfolder_hosts_of_user
            SELECT coalesce(u.domain_name, '') AS domain_name,
                   coalesce(u.main_access_key, '') AS access_key
            FROM users u WHERE u.uuid = $1";
        let Some(row) = self.query_opt(sql, &[&id.0]).await? else { return Ok(BTreeMap::new()) };
        let key = AccessKey(row.try_get("access_key")?);
        self.vfolder_hosts(row.try_get("domain_name")?, id, &key, None).await
    }

    /// The folders somebody may use: the own ones first, the older before the newer.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolders_accessible(
        &self,
        user: &VfolderUser,
        wanted: Wanted<'_>,
    ) -> Result<Vec<VfolderAccess>> {
        let (all, domain) = match &user.groups {
            VfolderGroups::Own => (false, None),
            VfolderGroups::Domain(domain) => (false, Some(domain.as_str())),
            VfolderGroups::All => (true, None),
        };
        let sql = format!(
            "-- vfolders_accessible
            WITH mine AS (
                SELECT id, 0 AS relation FROM vfolders WHERE \"user\" = $1
                UNION
                SELECT v.id, 1 FROM vfolder_permissions p JOIN vfolders v ON v.id = p.vfolder
                WHERE p.\"user\" = $1 AND v.\"user\" IS NOT NULL AND v.\"user\" <> $1
                UNION
                SELECT v.id, 2 FROM association_groups_users m
                JOIN vfolders v ON v.\"group\" = m.group_id WHERE m.user_id = $1
                UNION
                SELECT v.id, 2 FROM groups o JOIN vfolders v ON v.\"group\" = o.id
                WHERE $2 OR o.domain_name = $3
            )
            SELECT {columns}, mine.relation, p.permission AS given
            FROM mine JOIN vfolders v ON v.id = mine.id
            LEFT JOIN users u ON u.uuid = v.\"user\" LEFT JOIN groups g ON g.id = v.\"group\"
            LEFT JOIN vfolder_permissions p ON p.vfolder = v.id AND p.\"user\" = $1
            WHERE v.status IN ('ready', 'performing')
              AND ($4::text IS NULL OR v.name = $4)
              AND ($5::uuid IS NULL OR v.id = $5)
            ORDER BY mine.relation, v.created_at, v.id",
            columns = Vfolder::COLUMNS,
        );
        let id = wanted.id.map(|id| id.0);
        let rows = self.query(&sql, &[&user.id.0, &all, &domain, &wanted.name, &id]).await?;
        let mut found = Vec::new();
        for row in &rows {
            let Some(folder) = Vfolder::from_row(row)? else { continue };
            let relation = match row.try_get::<_, i32>("relation")? {
                0 => Relation::Own,
                1 => Relation::Shared,
                _ => Relation::Group,
            };
            let permission = match row.try_get::<_, Option<&str>>("given")? {
                Some(_) if relation != Relation::Own => row::parsed(row, "given")?,
                _ => folder.permission,
            };
            found.push(VfolderAccess { folder, relation, permission });
        }
        Ok(found)
    }

    /// What the policies of a domain, a user's groups in it and a keypair allow, by host.
    ///
    /// # Errors
    /// PostgreSQL failed, or a policy is malformed.
    pub async fn vfolder_hosts(
        &self,
        domain: &str,
        user: UserId,
        access_key: &AccessKey,
        group: Option<Uuid>,
    ) -> Result<BTreeMap<String, BTreeSet<HostPermission>>> {
        let rows = self
            .query(
                "-- vfolder_hosts
                SELECT allowed_vfolder_hosts FROM domains WHERE name = $1
                UNION ALL
                SELECT g.allowed_vfolder_hosts FROM groups g
                WHERE g.is_active AND (g.id = $4 OR $4 IS NULL AND g.domain_name = $1 AND EXISTS (
                    SELECT FROM association_groups_users m
                    WHERE m.group_id = g.id AND m.user_id = $2))
                UNION ALL
                SELECT p.allowed_vfolder_hosts FROM keypairs k
                JOIN keypair_resource_policies p ON p.name = k.resource_policy
                WHERE k.access_key = $3",
                &[&domain, &user.0, &access_key.0, &group],
            )
            .await?;
        let mut hosts: BTreeMap<String, BTreeSet<HostPermission>> = BTreeMap::new();
        for row in &rows {
            let value: Value = row.try_get("allowed_vfolder_hosts")?;
            for (host, permissions) in value.as_object().into_iter().flatten() {
                let known = hosts.entry(host.clone()).or_default();
                // What a newer release may have written means nothing here.
                let names = permissions.as_array().into_iter().flatten().filter_map(Value::as_str);
                known.extend(names.filter_map(|name| name.parse::<HostPermission>().ok()));
            }
        }
        Ok(hosts)
    }

    /// How many folders the policy of a keypair allows; `None` is unlimited.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_max_count(&self, access_key: &AccessKey) -> Result<Option<i64>> {
        let row = self
            .query_opt(
                "-- vfolder_max_count
                SELECT p.max_vfolder_count FROM keypairs k
                JOIN keypair_resource_policies p ON p.name = k.resource_policy
                WHERE k.access_key = $1",
                &[&access_key.0],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let count: i32 = row.try_get(0)?;
        Ok((count > 0).then_some(count.into()))
    }

    /// Bytes that one folder of a keypair's making may hold; `None` is unlimited.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_max_size(&self, access_key: &AccessKey) -> Result<Option<i64>> {
        let row = self
            .query_opt(
                "-- vfolder_max_size
                SELECT p.max_vfolder_size FROM keypairs k
                JOIN keypair_resource_policies p ON p.name = k.resource_policy
                WHERE k.access_key = $1",
                &[&access_key.0],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let bytes: i64 = row.try_get(0)?;
        Ok((bytes > 0).then_some(bytes))
    }

    /// Bytes that all folders of an owner may hold together; `None` is unlimited.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolder_max_total(&self, owner: VfolderOwner) -> Result<Option<i64>> {
        let row = match owner {
            VfolderOwner::User(user) => {
                let sql = "-- vfolder_max_total_of_user
                    SELECT p.max_vfolder_size FROM users u
                    JOIN user_resource_policies p ON p.name = u.resource_policy WHERE u.uuid = $1";
                self.query_opt(sql, &[&user.0]).await?
            }
            VfolderOwner::Group(group) => {
                let sql = "-- vfolder_max_total_of_group
                    SELECT p.max_vfolder_size FROM groups g
                    JOIN project_resource_policies p ON p.name = g.resource_policy
                    WHERE g.id = $1";
                self.query_opt(sql, &[&group.0]).await?
            }
        };
        let Some(row) = row else { return Ok(None) };
        let bytes: i64 = row.try_get(0)?;
        Ok((bytes > 0).then_some(bytes))
    }

    /// Ids and hosts of all folders of an owner.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn vfolders_of(&self, owner: VfolderOwner) -> Result<Vec<(VfolderId, String)>> {
        let rows = self
            .query(
                "-- vfolders_of
                SELECT id, host FROM vfolders WHERE status IN ('ready', 'performing')
                AND (\"user\" = $1 OR \"group\" = $2)",
                &[&owner.user().map(|user| user.0), &owner.group().map(|group| group.0)],
            )
            .await?;
        let folder =
            |row: &tokio_postgres::Row| Ok((VfolderId(row.try_get("id")?), row.try_get("host")?));
        rows.iter().map(folder).collect()
    }
}
