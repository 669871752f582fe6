//! Connections and transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures::FutureExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};
use tracing::Instrument;

use crate::error::{DatastoreError, Result};
use crate::list_view::Sql;

/// Our statements go by keys, and one plan fits all values. A plan made while a table was
/// small would read all of it ever after, until its statistics are next gathered: measured,
/// up to ten times the time. Planning anew for each call costs as much as the statements
/// themselves, and compiling plans more than it could save.
const PLANNER: &str = "-c enable_seqscan=off -c plan_cache_mode=force_generic_plan -c jit=off";
/// How often a transaction is repeated after a deadlock or serialisation failure. Conflicts
/// resolve in one or two rounds; more means a design error that should surface.
const MAX_ATTEMPTS: u32 = 5;
/// How long a caller waits for a free connection before it is told that the database is
/// not available.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach PostgreSQL.
#[derive(Clone, Debug)]
pub struct DatastoreConfig {
    /// Host name, address, or directory of the unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub name: String,
    /// User.
    pub user: String,
    /// Password; empty for none.
    pub password: String,
    /// Connections kept. Around 4 per core serves best; more lengthen the tail.
    pub pool_size: usize,
}

/// A pool of connections. Cheap to clone.
#[derive(Clone)]
pub struct Datastore {
    pub(crate) pool: Pool,
}

impl Datastore {
    /// Prepares a pool; connects at first use, and again after the server was away.
    ///
    /// # Errors
    /// The configuration cannot be used at all.
    pub fn new(config: &DatastoreConfig) -> Result<Self> {
        let mut pg = tokio_postgres::Config::new();
        pg.host(&config.host)
            .port(config.port)
            .dbname(&config.name)
            .user(&config.user)
            .application_name("backendai-manager")
            .options(PLANNER)
            .connect_timeout(Duration::from_secs(3))
            .keepalives_idle(Duration::from_secs(15));
        if !config.password.is_empty() {
            pg.password(&config.password);
        }
        let recycling_method = RecyclingMethod::Fast;
        let manager = Manager::from_config(pg, NoTls, ManagerConfig { recycling_method });
        let pool = Pool::builder(manager)
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT_TIMEOUT))
            .create_timeout(Some(WAIT_TIMEOUT))
            .build()
            .map_err(|error| DatastoreError::Unavailable(Box::new(error)))?;
        Ok(Self { pool })
    }

    /// Runs `body` in a transaction called `name`, commits, and returns its result. The body
    /// is repeated after a deadlock or serialisation failure, so it must be safe to repeat.
    /// Its error rolls back.
    ///
    /// # Errors
    /// The body's, or that PostgreSQL is not available.
    pub async fn run_tx<T, E, F, Fut>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        E: From<DatastoreError> + AsDatastoreError,
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut attempt = 1;
        loop {
            let span = tracing::debug_span!("db", transaction = name);
            let result = async {
                let tx = self.begin().await?;
                let value = body(tx.clone()).await?;
                tx.commit().await?;
                Ok(value)
            };
            match result.instrument(span).await {
                Err::<T, E>(error) if attempt < MAX_ATTEMPTS && error.is_retryable() => {
                    tracing::debug!(transaction = name, attempt, "repeating after a conflict");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// A connection on which each statement is its own transaction: for single reads, which
    /// then cost one round trip. Has the same methods as a transaction.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn autocommit(&self) -> Result<Transaction> {
        let client = self.pool.get().await?;
        Ok(Transaction { inner: Arc::new(Open { client, committed: AtomicBool::new(true) }) })
    }

    async fn begin(&self) -> Result<Transaction> {
        let client = self.pool.get().await?;
        // Before it begins: whoever gives up in the middle of that must roll back, too, or
        // the next user of the connection works in a transaction that nobody commits.
        let open = Open { client, committed: AtomicBool::new(false) };
        open.client.batch_execute("BEGIN").await?;
        Ok(Transaction { inner: Arc::new(open) })
    }
}

/// An error that may carry a [`DatastoreError`], so that [`Datastore::run_tx`] knows what to repeat.
pub trait AsDatastoreError {
    /// The datastore's part of the error, if it is one.
    fn as_datastore_error(&self) -> Option<&DatastoreError>;

    /// True when the transaction may succeed when repeated.
    fn is_retryable(&self) -> bool {
        self.as_datastore_error().is_some_and(DatastoreError::is_retryable)
    }
}

impl AsDatastoreError for DatastoreError {
    fn as_datastore_error(&self) -> Option<&DatastoreError> {
        Some(self)
    }
}

/// An open transaction; resources add their queries as methods. Clones are the same transaction.
#[derive(Clone)]
pub struct Transaction {
    inner: Arc<Open>,
}

struct Open {
    client: deadpool_postgres::Client,
    committed: AtomicBool,
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.committed.load(Ordering::Acquire) {
            // The first poll puts the command on the wire; the connection carries out what
            // its next user sends only after it.
            self.client.batch_execute("ROLLBACK").now_or_never();
        }
    }
}

impl Transaction {
    async fn commit(&self) -> Result<()> {
        self.inner.client.batch_execute("COMMIT").await?;
        self.inner.committed.store(true, Ordering::Release);
        Ok(())
    }

    /// Rows of a prepared and cached query.
    pub(crate) async fn query(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let statement = self.inner.client.prepare_cached(sql).await?;
        Ok(self.inner.client.query(&statement, params).await?)
    }

    /// Rows of a statement put together from parts. One whose text is `custom` (a caller's own
    /// filter or order) is not kept prepared: there is no end to them.
    pub(crate) async fn query_built(&self, sql: &Sql, custom: bool) -> Result<Vec<Row>> {
        #[cfg(feature = "testing")]
        crate::testing::note_plan(&self.inner.client, sql).await?;
        if custom {
            return Ok(self.inner.client.query_typed(&sql.text, &sql.typed()).await?);
        }
        self.query(&sql.text, &sql.values()).await
    }

    /// The number a statement put together from parts counts.
    pub(crate) async fn count_built(&self, sql: &Sql, custom: bool) -> Result<i64> {
        let rows = self.query_built(sql, custom).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
    }

    /// The row of a query that gives one or none.
    pub(crate) async fn query_opt(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>> {
        let statement = self.inner.client.prepare_cached(sql).await?;
        Ok(self.inner.client.query_opt(&statement, params).await?)
    }

    /// The row of a query that always gives one.
    pub(crate) async fn query_one(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        let statement = self.inner.client.prepare_cached(sql).await?;
        Ok(self.inner.client.query_one(&statement, params).await?)
    }

    /// Number of rows a statement changed.
    pub(crate) async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        let statement = self.inner.client.prepare_cached(sql).await?;
        Ok(self.inner.client.execute(&statement, params).await?)
    }

    /// A statement that must change exactly one row, `what`.
    ///
    /// # Errors
    /// Another number of rows.
    pub(crate) async fn execute_one(
        &self,
        what: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<()> {
        match self.execute(sql, params).await? {
            1 => Ok(()),
            rows => Err(DatastoreError::RowCount { what, rows }),
        }
    }
}
