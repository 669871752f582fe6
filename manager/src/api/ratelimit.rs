//! The rate limit of a keypair: calls in a rolling window, all managers together.
//!
//! The window lives in Redis. A manager does not ask for every call: it takes a lease of
//! some calls, counts them down in the process, and gives back what it did not use. A busy
//! key's leases grow, up to a 64th of what is left of its limit, and near the limit they
//! are single calls; so the limit is never exceeded, and what other managers hold can
//! refuse a call too early by at most that part, for [`LEASE`].
//!
//! While Redis is away every call passes, and the log says so once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backendai_service::redis::Redis;
use moka::future::Cache;
use parking_lot::Mutex;

/// The window, as the contract announces it.
pub const WINDOW_SECONDS: u64 = 900;
/// Granularity with which calls leave the window.
const BUCKET_SECONDS: u64 = 10;
/// How long a lease may be used before what is left goes back.
const LEASE: Duration = Duration::from_secs(1);
/// How long a refused key is refused without asking again; its calls count nevertheless.
const REFUSAL: Duration = Duration::from_millis(100);
/// Largest lease: a 20th of a second's calls of a saturated manager.
const MAX_LEASE: u64 = 1024;
/// How long Redis may take, and how long it is left alone after it failed.
const PATIENCE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_secs(1);
/// Keys whose leases are remembered.
const CAPACITY: u64 = 20_000;

/// Counts calls.
pub struct RateLimiter {
    redis: Redis,
    script: redis::Script,
    keys: Cache<String, Arc<KeyState>>,
    away_until: Mutex<Option<Instant>>,
    reported: AtomicBool,
}

#[derive(Default)]
struct KeyState {
    lease: Mutex<Lease>,
    /// Held while a new lease is fetched, so that waiting calls share it.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Lease {
    unused: u64,
    size: u64,
    /// Calls in the window when the lease was taken, its own included.
    total: u64,
    bucket: i64,
    until: Option<Instant>,
    refused_until: Option<Instant>,
    refused: u64,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is within the limit, which leaves `remaining`.
    Pass {
        /// Calls left in the window.
        remaining: u64,
    },
    /// It is beyond the limit.
    Refuse,
}

impl RateLimiter {
    /// A limiter over the cluster's windows.
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            script: redis::Script::new(include_str!("ratelimit.lua")),
            keys: Cache::builder()
                .max_capacity(CAPACITY)
                .time_to_idle(Duration::from_secs(WINDOW_SECONDS))
                .build(),
            away_until: Mutex::default(),
            reported: AtomicBool::new(false),
        }
    }

    /// Counts one call of a keypair with this limit.
    pub async fn count(&self, access_key: &str, limit: u64) -> Verdict {
        let state = match self.keys.get(access_key).await {
            Some(state) => state,
            None => self.keys.get_with_by_ref(access_key, async { Arc::default() }).await,
        };
        if let Some(verdict) = state.lease.lock().take(limit, Instant::now()) {
            return verdict;
        }
        let _fetching = state.fetching.lock().await;
        if let Some(verdict) = state.lease.lock().take(limit, Instant::now()) {
            return verdict;
        }
        self.fetch(&state, access_key, limit).await
    }

    async fn fetch(&self, state: &KeyState, access_key: &str, limit: u64) -> Verdict {
        if self.away_until.lock().is_some_and(|until| Instant::now() < until) {
            return Verdict::Pass { remaining: limit };
        }
        let mut call = self.script.key(self.redis.key(&format!("rate:{access_key}")));
        call.key(use_key(&self.redis, access_key));
        let wanted = {
            let lease = state.lease.lock();
            let wanted = lease.next_size();
            call.arg(limit).arg(wanted).arg(lease.unused).arg(lease.bucket).arg(lease.refused);
            wanted
        };
        call.arg(BUCKET_SECONDS).arg(WINDOW_SECONDS / BUCKET_SECONDS);
        let mut connection = self.redis.connection();
        let reply =
            tokio::time::timeout(PATIENCE, call.invoke_async::<(u64, u64, i64)>(&mut connection))
                .await;
        let (granted, total, bucket) = match reply {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return self.redis_failed(&error.to_string(), limit),
            Err(_) => return self.redis_failed("no answer in time", limit),
        };
        if self.reported.swap(false, Ordering::Relaxed) {
            tracing::info!("rate limits are counted again");
        }
        let now = Instant::now();
        let mut lease = state.lease.lock();
        *lease = Lease {
            unused: granted,
            size: wanted,
            total,
            bucket,
            until: Some(now + LEASE),
            refused_until: (granted == 0).then(|| now + REFUSAL),
            refused: 0,
        };
        if granted == 0 {
            // The script has counted this call.
            return Verdict::Refuse;
        }
        lease.take(limit, now).unwrap_or(Verdict::Refuse)
    }

    fn redis_failed(&self, why: &str, limit: u64) -> Verdict {
        *self.away_until.lock() = Some(Instant::now() + PAUSE);
        if !self.reported.swap(true, Ordering::Relaxed) {
            tracing::warn!(why, "rate limits are not counted while Redis is away");
        }
        Verdict::Pass { remaining: limit }
    }
}

/// How much a keypair was used, as far as Redis remembers (30 days after the last call).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// Calls so far.
    pub calls: i64,
    /// The last of them, give or take a lease.
    pub last: chrono::DateTime<chrono::Utc>,
}

/// How much a keypair was used; `None` if it was not, or while Redis is away.
pub async fn key_use(redis: &Redis, access_key: &str) -> Option<KeyUse> {
    let mut connection = redis.connection();
    let mut command = redis::cmd("HMGET");
    command.arg(use_key(redis, access_key)).arg("calls").arg("last");
    let query = command.query_async::<(Option<i64>, Option<i64>)>(&mut connection);
    match tokio::time::timeout(PATIENCE, query).await {
        Ok(Ok((calls, last))) => {
            let last = chrono::DateTime::from_timestamp(last?, 0)?;
            Some(KeyUse { calls: calls?, last })
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "the use of a keypair is not known");
            None
        }
        Err(_) => None,
    }
}

fn use_key(redis: &Redis, access_key: &str) -> String {
    redis.key(&format!("use:{access_key}"))
}

impl Lease {
    /// Decides without asking, if that is possible.
    fn take(&mut self, limit: u64, now: Instant) -> Option<Verdict> {
        if self.refused_until.is_some_and(|until| now < until) {
            self.refused += 1;
            return Some(Verdict::Refuse);
        }
        if self.unused == 0 || self.until.is_none_or(|until| now >= until) {
            return None;
        }
        self.unused -= 1;
        Some(Verdict::Pass { remaining: limit.saturating_sub(self.total - self.unused) })
    }

    /// Doubles while leases are used up, halves while they are not.
    fn next_size(&self) -> u64 {
        if self.unused == 0 { (self.size * 2).clamp(1, MAX_LEASE) } else { (self.size / 2).max(1) }
    }
}
