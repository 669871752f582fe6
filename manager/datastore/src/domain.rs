//! Domains, as administrators make and change them.

use serde_json::Value;

use crate::error::Result;
use crate::policy::Caps;
use crate::tx::Transaction;

/// A domain to be made.
#[derive(Clone, Debug)]
pub struct NewDomain {
    /// Its name.
    pub name: String,
    /// In words.
    pub description: Option<String>,
    /// Whether it may be used.
    pub is_active: bool,
    /// Caps on all its kernels together.
    pub total_resource_slots: Caps,
    /// Permissions by host.
    pub allowed_vfolder_hosts: Value,
    /// Registries whose images may be used.
    pub allowed_docker_registries: Vec<String>,
    /// Id in another system.
    pub integration_id: Option<String>,
}

/// What of a domain is to be changed; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct DomainChange {
    /// Its name: everything that refers to it follows.
    pub name: Option<String>,
    /// In words.
    pub description: Option<String>,
    /// Whether it may be used.
    pub is_active: Option<bool>,
    /// Caps on all its kernels together.
    pub total_resource_slots: Option<Caps>,
    /// Permissions by host.
    pub allowed_vfolder_hosts: Option<Value>,
    /// Registries whose images may be used.
    pub allowed_docker_registries: Option<Vec<String>>,
    /// Id in another system.
    pub integration_id: Option<String>,
}

/// What a domain, a group or a user still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Belongings {
    /// Sessions that have not ended.
    pub live_sessions: i64,
    /// Users, of a domain.
    pub users: i64,
    /// Groups, of a domain.
    pub groups: i64,
}

impl Transaction {
    /// Makes a domain.
    ///
    /// # Errors
    /// There is one of this name.
    pub async fn domain_insert(&self, new: &NewDomain) -> Result<()> {
        self.execute_one(
            "domain",
            "-- domain_insert
            INSERT INTO domains (name, description, is_active, total_resource_slots,
                allowed_vfolder_hosts, allowed_docker_registries, integration_id)
            VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                &new.name,
                &new.description,
                &new.is_active,
                &new.total_resource_slots.0,
                &new.allowed_vfolder_hosts,
                &new.allowed_docker_registries,
                &new.integration_id,
            ],
        )
        .await
    }

    /// Changes a domain; false if there is none of this name.
    ///
    /// # Errors
    /// Its new name is taken.
    pub async fn domain_update(&self, name: &str, change: &DomainChange) -> Result<bool> {
        let rows = self
            .execute(
                "-- domain_update
                UPDATE domains SET
                    name = coalesce($2, name), description = coalesce($3, description),
                    is_active = coalesce($4, is_active),
                    total_resource_slots = coalesce($5, total_resource_slots),
                    allowed_vfolder_hosts = coalesce($6, allowed_vfolder_hosts),
                    allowed_docker_registries = coalesce($7, allowed_docker_registries),
                    integration_id = coalesce($8, integration_id), modified_at = now()
                WHERE name = $1",
                &[
                    &name,
                    &change.name,
                    &change.description,
                    &change.is_active,
                    &change.total_resource_slots.as_ref().map(|caps| &caps.0),
                    &change.allowed_vfolder_hosts,
                    &change.allowed_docker_registries,
                    &change.integration_id,
                ],
            )
            .await?;
        Ok(rows == 1)
    }

    /// What a domain still has.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn domain_belongings(&self, name: &str) -> Result<Belongings> {
        let row = self
            .query_one(
                "-- domain_belongings
                SELECT (SELECT count(*) FROM sessions WHERE domain_name = $1
                            AND status NOT IN ('TERMINATED', 'CANCELLED')),
                       (SELECT count(*) FROM users WHERE domain_name = $1),
                       (SELECT count(*) FROM groups WHERE domain_name = $1)",
                &[&name],
            )
            .await?;
        Ok(Belongings {
            live_sessions: row.try_get(0)?,
            users: row.try_get(1)?,
            groups: row.try_get(2)?,
        })
    }

    /// Removes a domain with what is left of its ended sessions; false if there is none.
    ///
    /// # Errors
    /// Something still refers to it.
    pub async fn domain_delete(&self, name: &str) -> Result<bool> {
        self.execute(
            "-- domain_delete_sessions
            DELETE FROM sessions WHERE domain_name = $1",
            &[&name],
        )
        .await?;
        let rows = self
            .execute(
                "-- domain_delete
                DELETE FROM domains WHERE name = $1",
                &[&name],
            )
            .await?;
        Ok(rows == 1)
    }
}
