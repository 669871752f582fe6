//! Limits on keypairs, users, groups and domains, and whose session is whose.

use std::collections::BTreeMap;

use backendai_types::{AccessKey, GroupId, ResourceLimits, UserId};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

/// Caps by slot in the form in which they are stored: amounts in base units, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps(pub(crate) Value);

impl Caps {
    /// Reads caps as people write them: `{"cpu": 4, "mem": "1g", "cuda.shares": "Infinity"}`.
    ///
    /// # Errors
    /// Not an object, or a value is neither an amount nor `Infinity`; in words.
    pub fn parse(value: &Value) -> Result<Self, String> {
        if !value.is_object() {
            return Err("must be an object of amounts by slot".into());
        }
        let limits = ResourceLimits::from_json(value, true).map_err(|error| error.to_string())?;
        let shown = limits.named.into_iter().map(|(slot, cap)| {
            let cap = cap.map_or("Infinity".into(), |cap| cap.normalize().to_string());
            (slot.0, Value::from(cap))
        });
        Ok(Self(shown.collect()))
    }
}

/// Permissions by host, `{"host": ["permission", …]}`, as they are stored.
///
/// # Errors
/// The value has another shape; in words.
pub fn parse_host_permissions(value: Value) -> Result<Value, String> {
    let lists = value.as_object().is_some_and(|hosts| {
        hosts
            .values()
            .all(|list| list.as_array().is_some_and(|list| list.iter().all(Value::is_string)))
    });
    match lists {
        true => Ok(value),
        false => Err("must be {\"host\": [\"permission\", …]}".into()),
    }
}

/// What a keypair may have at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeypairLimits {
    /// Caps on resource slots.
    pub slots: ResourceLimits,
    /// Sessions at once; `None` is unlimited.
    pub sessions: Option<i64>,
    /// Private (sftp) sessions at once; `None` is unlimited.
    pub private_sessions: Option<i64>,
}

/// How many sessions a keypair has that count against its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Ordinary ones.
    pub sessions: i64,
    /// Private (sftp) ones.
    pub private_sessions: i64,
}

/// The owner of a keypair, as far as the creation of sessions needs to know.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The keypair.
    pub access_key: AccessKey,
    /// Its user.
    pub user_id: UserId,
    /// The user's role.
    pub role: String,
    /// The user's domain; `None` for users outside of any.
    pub domain_name: Option<String>,
    /// Kernels that one session may have.
    pub max_containers_per_session: i32,
    /// Run in sessions that bring no script of their own; may be empty.
    pub bootstrap_script: String,
    /// True when the user may become root in sessions.
    pub sudo_session_enabled: bool,
}

/// A domain, as far as the creation of sessions needs to know.
#[derive(Clone, Debug)]
pub struct DomainAccess {
    /// Registries whose images may be used.
    pub allowed_docker_registries: Vec<String>,
}

/// A group as one user stands to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMembership {
    /// Its id.
    pub id: GroupId,
    /// Its domain.
    pub domain_name: String,
    /// True if the user belongs to it.
    pub is_member: bool,
}

impl Transaction {
    /// The owner of a keypair.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn owner_of_keypair(&self, access_key: &AccessKey) -> Result<Option<Owner>> {
        let row = self
            .query_opt(
                "-- owner_of_keypair
                SELECT k.access_key, u.uuid, u.role, u.domain_name, p.max_containers_per_session,
                       k.bootstrap_script, u.sudo_session_enabled
                FROM keypairs k
                JOIN users u ON u.uuid = k.\"user\"
                JOIN keypair_resource_policies p ON p.name = k.resource_policy
                WHERE k.access_key = $1",
                &[&access_key.0],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Owner {
            access_key: AccessKey(row.try_get("access_key")?),
            user_id: UserId(row.try_get("uuid")?),
            role: row.try_get("role")?,
            domain_name: row.try_get("domain_name")?,
            max_containers_per_session: row.try_get("max_containers_per_session")?,
            bootstrap_script: row.try_get("bootstrap_script")?,
            sudo_session_enabled: row.try_get("sudo_session_enabled")?,
        }))
    }

    /// An active domain.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn domain_active(&self, name: &str) -> Result<Option<DomainAccess>> {
        let row = self
            .query_opt(
                "-- domain_active
                SELECT allowed_docker_registries FROM domains WHERE name = $1 AND is_active",
                &[&name],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let allowed_docker_registries = row.try_get("allowed_docker_registries")?;
        Ok(Some(DomainAccess { allowed_docker_registries }))
    }

    /// An active group of a domain by name or id; only one that `member` belongs to, if given.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_active(
        &self,
        domain: &str,
        reference: &str,
        member: Option<UserId>,
    ) -> Result<Option<GroupId>> {
        let id: Option<Uuid> = reference.parse().ok();
        let row = self
            .query_opt(
                "-- group_active
                SELECT g.id FROM groups g
                WHERE g.domain_name = $1 AND g.is_active AND (g.name = $2 OR g.id = $3)
                  AND ($4::uuid IS NULL OR EXISTS (
                      SELECT FROM association_groups_users m
                      WHERE m.group_id = g.id AND m.user_id = $4))
                ORDER BY g.name = $2 DESC LIMIT 1",
                &[&domain, &reference, &id, &member.map(|user| user.0)],
            )
            .await?;
        Ok(row.map(|row| row.try_get("id")).transpose()?.map(GroupId))
    }

    /// A group by its id, or by its name within a domain, and whether a user is a member.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_membership(
        &self,
        reference: &str,
        domain: Option<&str>,
        user: UserId,
    ) -> Result<Option<GroupMembership>> {
        let id: Option<Uuid> = reference.parse().ok();
        let row = self
            .query_opt(
                "-- group_membership
                SELECT g.id, g.domain_name, EXISTS (
                    SELECT FROM association_groups_users m
                    WHERE m.group_id = g.id AND m.user_id = $4) AS is_member
                FROM groups g
                WHERE (g.id = $1 OR g.name = $2) AND ($3::text IS NULL OR g.domain_name = $3)
                ORDER BY g.id = $1 DESC NULLS LAST LIMIT 1",
                &[&id, &reference, &domain, &user.0],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(GroupMembership {
            id: GroupId(row.try_get("id")?),
            domain_name: row.try_get("domain_name")?,
            is_member: row.try_get("is_member")?,
        }))
    }

    /// Limits of keypairs.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn keypair_limits(
        &self,
        keys: &[AccessKey],
    ) -> Result<BTreeMap<AccessKey, KeypairLimits>> {
        let keys: Vec<&str> = keys.iter().map(AccessKey::as_str).collect();
        let rows = self
            .query(
                "-- keypair_limits
                SELECT k.access_key, p.default_for_unspecified, p.total_resource_slots,
                       p.max_concurrent_sessions, p.max_concurrent_sftp_sessions
                FROM keypairs k JOIN keypair_resource_policies p ON p.name = k.resource_policy
                WHERE k.access_key = ANY($1 /* keys */)",
                &[&keys],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let above_zero = |limit: i32| (limit > 0).then_some(i64::from(limit));
                let limits = KeypairLimits {
                    slots: policy_limits(row)?,
                    sessions: above_zero(row.try_get("max_concurrent_sessions")?),
                    private_sessions: above_zero(row.try_get("max_concurrent_sftp_sessions")?),
                };
                Ok((AccessKey(row.try_get("access_key")?), limits))
            })
            .collect()
    }

    /// Sessions of keypairs that count against their limits: all that have been scheduled
    /// and are not about to end.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn keypair_session_counts(
        &self,
        keys: &[AccessKey],
    ) -> Result<BTreeMap<AccessKey, SessionCounts>> {
        let keys: Vec<&str> = keys.iter().map(AccessKey::as_str).collect();
        let rows = self
            .query(
                "-- keypair_session_counts
                SELECT access_key, count(*) FILTER (WHERE NOT is_private) AS sessions,
                       count(*) FILTER (WHERE is_private) AS private_sessions
                FROM sessions
                WHERE access_key = ANY($1 /* keys */)
                  AND status NOT IN ('PENDING', 'TERMINATING', 'TERMINATED', 'CANCELLED')
                GROUP BY 1",
                &[&keys],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let counts = SessionCounts {
                    sessions: row.try_get("sessions")?,
                    private_sessions: row.try_get("private_sessions")?,
                };
                Ok((AccessKey(row.try_get("access_key")?), counts))
            })
            .collect()
    }

    /// Caps of users: those of their main keypair's policy. Users without one are left out.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_limits(&self, users: &[UserId]) -> Result<BTreeMap<UserId, ResourceLimits>> {
        let users: Vec<Uuid> = users.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- user_limits
                SELECT u.uuid, p.default_for_unspecified, p.total_resource_slots
                FROM users u
                JOIN keypairs k ON k.access_key = u.main_access_key
                JOIN keypair_resource_policies p ON p.name = k.resource_policy
                WHERE u.uuid = ANY($1 /* users */)",
                &[&users],
            )
            .await?;
        rows.iter().map(|row| Ok((UserId(row.try_get("uuid")?), policy_limits(row)?))).collect()
    }

    /// Caps of groups.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_limits(
        &self,
        groups: &[GroupId],
    ) -> Result<BTreeMap<GroupId, ResourceLimits>> {
        let groups: Vec<Uuid> = groups.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- group_limits
                SELECT id, total_resource_slots FROM groups WHERE id = ANY($1 /* groups */)",
                &[&groups],
            )
            .await?;
        rows.iter().map(|row| Ok((GroupId(row.try_get("id")?), caps(row)?))).collect()
    }

    /// Caps of domains.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn domain_limits(
        &self,
        domains: &[String],
    ) -> Result<BTreeMap<String, ResourceLimits>> {
        let rows = self
            .query(
                "-- domain_limits
                SELECT name, total_resource_slots FROM domains WHERE name = ANY($1 /* domains */)",
                &[&domains],
            )
            .await?;
        rows.iter().map(|row| Ok((row.try_get("name")?, caps(row)?))).collect()
    }
}

fn policy_limits(row: &Row) -> Result<ResourceLimits> {
    let unspecified: &str = row.try_get("default_for_unspecified")?;
    limits(row, unspecified == "UNLIMITED")
}

/// Caps on groups and domains bind only the slots they name.
fn caps(row: &Row) -> Result<ResourceLimits> {
    limits(row, true)
}

fn limits(row: &Row, unnamed_unlimited: bool) -> Result<ResourceLimits> {
    let slots: Value = row.try_get("total_resource_slots")?;
    ResourceLimits::from_json(&slots, unnamed_unlimited)
        .map_err(|error| row::malformed("total_resource_slots", error))
}
