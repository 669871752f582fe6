//! Keypairs as requests need them, kept for a moment.
//!
//! A keypair that is deactivated is refused by every manager within a second. Unknown keys
//! are not kept at all, so a key works from the moment it is created.

use std::sync::Arc;
use std::time::Duration;

use backendai_datastore::Datastore;
use backendai_datastore::credential_view::CredentialView;
use backendai_types::{AccessKey, UserId};
use ipnet::IpNet;
use moka::future::Cache;

use crate::app;
use crate::app::network::parse_network;
use crate::context::Role;

/// How long a keypair is believed without looking again.
const TTL: Duration = Duration::from_secs(1);
/// Keypairs kept; a few hundred bytes each.
const CAPACITY: u64 = 20_000;

/// A keypair with its user.
pub struct Credential {
    /// The public half.
    pub access_key: AccessKey,
    /// The secret half. Never logged.
    pub secret_key: String,
    /// True for administrators' keypairs.
    pub is_admin: bool,
    /// Calls in a rolling window of 900 s.
    pub rate_limit: u64,
    /// The keypair's user.
    pub user_id: UserId,
    /// The user's e-mail address.
    pub email: String,
    /// The user's role.
    pub role: Role,
    /// False when the account is inactive, deleted or not verified yet.
    pub user_is_active: bool,
    /// The user's domain; empty for accounts outside of all domains.
    pub domain_name: String,
    /// Networks the user may call from; `None` is anywhere.
    pub allowed_networks: Option<Vec<IpNet>>,
}

/// The keypairs of the database through a short-lived cache. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    datastore: Datastore,
    cache: Cache<String, Arc<Credential>>,
}

/// Why the cache has no value: nothing there, or no way to know.
#[derive(Clone)]
enum Miss {
    Unknown,
    Failed(Arc<app::Error>),
}

impl Credentials {
    /// An empty cache.
    pub fn new(datastore: Datastore) -> Self {
        let cache = Cache::builder().max_capacity(CAPACITY).time_to_live(TTL).build();
        Self { datastore, cache }
    }

    /// The active keypair with this access key. Concurrent calls for one key share a query.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn get(&self, access_key: &str) -> app::Result<Option<Arc<Credential>>> {
        let found = self
            .cache
            .try_get_with_by_ref(access_key, async {
                match self.load(access_key).await {
                    Ok(Some(credential)) => Ok(Arc::new(credential)),
                    Ok(None) => Err(Miss::Unknown),
                    Err(error) => Err(Miss::Failed(Arc::new(error))),
                }
            })
            .await;
        match found {
            Ok(credential) => Ok(Some(credential)),
            Err(miss) => match &*miss {
                Miss::Unknown => Ok(None),
                Miss::Failed(error) => Err(shared_error(error)),
            },
        }
    }

    async fn load(&self, access_key: &str) -> app::Result<Option<Credential>> {
        let row = self.datastore.autocommit().await?.credential(access_key).await?;
        row.map(from_row).transpose()
    }
}

/// The error of a query that several requests wait for, once for each.
fn shared_error(error: &Arc<app::Error>) -> app::Error {
    let source: Box<dyn std::error::Error + Send + Sync> = Box::new(Arc::clone(error));
    match &**error {
        app::Error::Unavailable { service, .. } => app::Error::Unavailable { service, source },
        _ => app::Error::internal("look up the keypair", source),
    }
}

fn from_row(row: CredentialView) -> app::Result<Credential> {
    let role =
        row.role.parse().map_err(|error: String| app::Error::internal("read users.role", error))?;
    let networks = (!row.allowed_client_ip.is_empty()).then(|| {
        row.allowed_client_ip
            .iter()
            .filter_map(|text| {
                let network = parse_network(text);
                if network.is_none() {
                    tracing::warn!(user = %row.user_id, text, "users.allowed_client_ip has an entry that is no network: it admits nobody");
                }
                network
            })
            .collect()
    });
    Ok(Credential {
        access_key: row.access_key,
        secret_key: row.secret_key,
        is_admin: row.is_admin,
        rate_limit: u64::try_from(row.rate_limit).unwrap_or(0),
        user_id: row.user_id,
        email: row.email,
        role,
        user_is_active: row.user_is_active,
        domain_name: row.domain_name.unwrap_or_default(),
        allowed_networks: networks,
    })
}
