//! Brings the database's schema to the version this program was built with.

use crate::error::{DatastoreError, Result};
use crate::tx::Datastore;

mod embedded {
    refinery::embed_migrations!("../../migrations");
}

/// Serialises managers that start at once. An arbitrary number, never used for another lock.
const MIGRATION_LOCK: i64 = 0x6261_6900;

/// The schema of a database, and the one this program needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// What the database has: number and name; `None` for an empty database.
    pub current: Option<(i32, String)>,
    /// What this program needs.
    pub head: (i32, String),
}

impl SchemaVersion {
    /// True when nothing is to be done.
    pub fn is_current(&self) -> bool {
        self.current.as_ref() == Some(&self.head)
    }
}

fn head() -> (i32, String) {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|m| (m.version(), m.name().to_owned()))
        .max()
        .expect("at least the initial migration is embedded")
}

/// Identifies the schema this program makes, for caches of migrated databases.
#[cfg(feature = "testing")]
pub(crate) fn embedded_checksums() -> Vec<u64> {
    embedded::migrations::runner().get_migrations().iter().map(|m| m.checksum()).collect()
}

impl Datastore {
    /// Compares the database's schema with the program's.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn schema_version(&self) -> Result<SchemaVersion> {
        let mut client = self.pool.get().await?;
        let exists = client
            .query_one("SELECT to_regclass('refinery_schema_history') IS NOT NULL", &[])
            .await?
            .get(0);
        let current = if exists {
            let history: &mut tokio_postgres::Client = &mut client;
            embedded::migrations::runner()
                .get_last_applied_migration_async(history)
                .await
                .map_err(|error| DatastoreError::Schema(error.to_string()))?
                .map(|m| (m.version(), m.name().to_owned()))
        } else {
            None
        };
        Ok(SchemaVersion { current, head: head() })
    }

    /// Applies what is missing; does nothing when the schema is current. Returns the names of
    /// the migrations applied.
    ///
    /// # Errors
    /// PostgreSQL is not available, or a migration fails (it is rolled back).
    pub async fn migrate(&self) -> Result<Vec<String>> {
        let mut client = self.pool.get().await?;
        client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
        let connection: &mut tokio_postgres::Client = &mut client;
        let report = embedded::migrations::runner().run_async(connection).await;
        client.execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK]).await?;
        let report = report.map_err(|error| DatastoreError::Schema(backtrace_free(&error)))?;
        Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
    }

    /// Refuses a schema this program does not know.
    ///
    /// # Errors
    /// The schema is older or newer; the text says what to do.
    pub async fn check_schema(&self) -> Result<()> {
        let version = self.schema_version().await?;
        match &version.current {
            _ if version.is_current() => Ok(()),
            None => Err(DatastoreError::Schema(
                "the database is empty: run `backendai-manager schema oneshot`".into(),
            )),
            Some((number, name)) if *number < version.head.0 => {
                Err(DatastoreError::Schema(format!(
                    "the database has schema {number} ({name}), this program needs {} ({}): \
                     run `backendai-manager schema oneshot`",
                    version.head.0, version.head.1
                )))
            }
            Some((number, name)) => Err(DatastoreError::Schema(format!(
                "the database has schema {number} ({name}), which is newer than this program's \
                 {} ({}): install the newer program",
                version.head.0, version.head.1
            ))),
        }
    }
}

fn backtrace_free(error: &refinery::Error) -> String {
    let mut text = format!("migrate: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
