//! Dotfiles: small files that are placed into every session of a user, a group or a domain.

use backendai_types::{AccessKey, GroupId};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::error::{DatastoreError, Result};
use crate::row;
use crate::tx::Transaction;

/// A file to be placed into sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dotfile {
    /// Below `/home/work`, relative to it or absolute.
    pub path: String,
    /// Three octal digits.
    pub perm: String,
    /// Its content.
    pub data: String,
}

/// Whose sessions get a dotfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DotfileOwner {
    /// Those of one keypair.
    Keypair(AccessKey),
    /// Those of a group.
    Group(GroupId),
    /// Those of a domain.
    Domain(String),
}

impl Transaction {
    /// An owner's dotfiles; `None` if there is no such owner.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn dotfiles(&self, owner: &DotfileOwner) -> Result<Option<Vec<Dotfile>>> {
        let row = match owner {
            DotfileOwner::Keypair(key) => {
                let sql =
                    "-- dotfiles_keypair\nSELECT dotfiles FROM keypairs WHERE access_key = $1";
                self.query_opt(sql, &[&key.0]).await?
            }
            DotfileOwner::Group(group) => {
                let sql = "-- dotfiles_group\nSELECT dotfiles FROM groups WHERE id = $1";
                self.query_opt(sql, &[&group.0]).await?
            }
            DotfileOwner::Domain(domain) => {
                let sql = "-- dotfiles_domain\nSELECT dotfiles FROM domains WHERE name = $1";
                self.query_opt(sql, &[&domain]).await?
            }
        };
        row.as_ref().map(|row| row::json(row, "dotfiles")).transpose()
    }

    /// As [`Transaction::dotfiles`], with the owner locked until the transaction ends.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn dotfiles_lock(&self, owner: &DotfileOwner) -> Result<Option<Vec<Dotfile>>> {
        match owner {
            DotfileOwner::Keypair(key) => {
                let sql = "-- dotfiles_lock_keypair
                    SELECT FROM keypairs WHERE access_key = $1 FOR NO KEY UPDATE";
                self.query_opt(sql, &[&key.0]).await?
            }
            DotfileOwner::Group(group) => {
                let sql =
                    "-- dotfiles_lock_group\nSELECT FROM groups WHERE id = $1 FOR NO KEY UPDATE";
                self.query_opt(sql, &[&group.0]).await?
            }
            DotfileOwner::Domain(domain) => {
                let sql = "-- dotfiles_lock_domain\nSELECT FROM domains WHERE name = $1 FOR NO KEY UPDATE";
                self.query_opt(sql, &[&domain]).await?
            }
        };
        self.dotfiles(owner).await
    }

    /// Replaces an owner's dotfiles.
    ///
    /// # Errors
    /// PostgreSQL failed, or there is no such owner.
    pub async fn dotfiles_store(&self, owner: &DotfileOwner, dotfiles: &[Dotfile]) -> Result<()> {
        let value = serde_json::to_value(dotfiles).expect("texts are always JSON");
        let what = "the owner of dotfiles";
        match owner {
            DotfileOwner::Keypair(key) => {
                let sql = "-- dotfiles_store_keypair
                    UPDATE keypairs SET dotfiles = $2 WHERE access_key = $1";
                self.execute_one(what, sql, &[&key.0, &value]).await
            }
            DotfileOwner::Group(group) => {
                let sql = "-- dotfiles_store_group\nUPDATE groups SET dotfiles = $2 WHERE id = $1";
                self.execute_one(what, sql, &[&group.0, &value]).await
            }
            DotfileOwner::Domain(domain) => {
                let sql =
                    "-- dotfiles_store_domain\nUPDATE domains SET dotfiles = $2 WHERE name = $1";
                self.execute_one(what, sql, &[&domain, &value]).await
            }
        }
    }

    /// The script a keypair's sessions run that bring none of their own; may be empty.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn bootstrap_script(&self, key: &AccessKey) -> Result<String> {
        let sql =
            "-- bootstrap_script\nSELECT bootstrap_script FROM keypairs WHERE access_key = $1";
        let row = self.query_opt(sql, &[&key.0]).await?;
        Ok(row.map(|row| row.try_get("bootstrap_script")).transpose()?.unwrap_or_default())
    }

    /// Replaces a keypair's script.
    ///
    /// # Errors
    /// PostgreSQL failed, or there is no such keypair.
    pub async fn bootstrap_script_store(&self, key: &AccessKey, script: &str) -> Result<()> {
        let sql = "-- bootstrap_script_store
            UPDATE keypairs SET bootstrap_script = $2 WHERE access_key = $1";
        self.execute_one("the keypair of a script", sql, &[&key.0, &script]).await
    }
}

/// The dotfiles of a session: its domain's, its group's and its keypair's, in this order.
pub(crate) fn of_session(row: &Row) -> Result<Vec<Dotfile>, DatastoreError> {
    let mut dotfiles: Vec<Dotfile> = row::json(row, "domain_dotfiles")?;
    dotfiles.extend(row::json::<Vec<Dotfile>>(row, "group_dotfiles")?);
    dotfiles.extend(row::json::<Vec<Dotfile>>(row, "keypair_dotfiles")?);
    Ok(dotfiles)
}
