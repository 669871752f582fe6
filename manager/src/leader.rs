//! Which manager runs the loops.
//!
//! Managers compete for one etcd key under a lease. The winner's *epoch* is the revision at
//! which it took the key: it only ever grows, every call to an agent carries it, and agents
//! refuse an older one. A leader that cannot renew its lease stops leading before the lease
//! can expire for others, so that there is never more than one; one that is killed is
//! followed after the lease's life.
//!
//! The same lease carries the keys by which agents find and recognise managers.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use backendai_service::Lifecycle;
use backendai_service::etcd::{Etcd, EtcdError};
use backendai_service::telemetry::chain;

use crate::shared_config::STATUS_KEY;

/// The key managers compete for.
const ELECTION_KEY: &str = "election/manager";
/// Where the leader tells agents how to reach it.
const LEADER_KEY: &str = "leader";
/// Pause after a failed attempt to reach etcd.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What a manager publishes of itself.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The manager's id.
    pub manager_id: String,
    /// Where agents report to, `tcp://host:port`.
    pub event_addr: String,
    /// CURVE public key; `None` when calls are not encrypted.
    pub public_key: Option<String>,
    /// Life of the lease.
    pub lease: Duration,
}

/// Whether this manager leads. Cheap to clone.
#[derive(Clone)]
pub struct Leadership {
    epoch: watch::Receiver<Option<u64>>,
}

/// The right to run for leadership once; made together with the [`Leadership`] that shows it.
pub struct Candidacy {
    sender: watch::Sender<Option<u64>>,
}

impl Candidacy {
    /// Runs for leadership until the lifecycle stops, and resigns then.
    pub fn campaign(self, etcd: Etcd, candidate: Candidate, lifecycle: &Lifecycle) {
        let campaign =
            Campaign { etcd, candidate, sender: self.sender, lifecycle: lifecycle.clone() };
        lifecycle.spawn_vital("leadership", campaign.run());
    }
}

impl Leadership {
    /// A leadership that nobody holds until its candidacy campaigns.
    pub fn new() -> (Self, Candidacy) {
        let (sender, epoch) = watch::channel(None);
        (Self { epoch }, Candidacy { sender })
    }

    /// A leadership that is held for ever, for tests of the loops.
    pub fn fixed(epoch: u64) -> Self {
        Self { epoch: watch::channel(Some(epoch)).1 }
    }

    /// The epoch, while this manager leads.
    pub fn epoch(&self) -> Option<u64> {
        *self.epoch.borrow()
    }

    /// Waits until this manager leads and gives the epoch. Cancel-safe.
    pub async fn acquired(&self) -> u64 {
        let mut epoch = self.epoch.clone();
        loop {
            if let Some(epoch) = *epoch.borrow_and_update() {
                return epoch;
            }
            if epoch.changed().await.is_err() {
                // The campaign is over: nobody will lead here again.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until this manager no longer leads in `held`. Cancel-safe.
    pub async fn lost(&self, held: u64) {
        let mut epoch = self.epoch.clone();
        while *epoch.borrow_and_update() == Some(held) {
            if epoch.changed().await.is_err() {
                // Sender gone: a fixed leadership stays, a campaign that ended has said so.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// What agents read under [`LEADER_KEY`].
#[derive(Serialize)]
struct Announcement<'a> {
    manager_id: &'a str,
    epoch: u64,
    event_addr: &'a str,
    public_key: Option<&'a str>,
}

struct Campaign {
    etcd: Etcd,
    candidate: Candidate,
    sender: watch::Sender<Option<u64>>,
    lifecycle: Lifecycle,
}

/// A lease that is being kept alive.
struct Lease {
    id: i64,
    /// Until when it certainly lives.
    valid_until: Instant,
}

impl Campaign {
    async fn run(self) -> Result<(), String> {
        let mut complained = false;
        while !self.lifecycle.is_stopping() {
            match self.hold_lease().await {
                Ok(()) => complained = false,
                Err(error) => {
                    if !complained {
                        tracing::warn!("cannot take part in the election: {}", chain(&error));
                        complained = true;
                    }
                }
            }
            self.sender.send_replace(None);
            self.lifecycle.sleep(RETRY_PAUSE).await;
        }
        Ok(())
    }

    /// Takes a lease, publishes this manager, and leads or waits to lead until the lease is
    /// lost or the lifecycle stops.
    async fn hold_lease(&self) -> Result<(), EtcdError> {
        let mut lease = self.grant().await?;
        self.publish(&lease).await?;
        let result = self.compete(&mut lease).await;
        self.sender.send_replace(None);
        if self.lifecycle.is_stopping() {
            // Others need not wait for the lease to run out.
            self.etcd.revoke_lease(lease.id).await?;
        }
        result
    }

    async fn compete(&self, lease: &mut Lease) -> Result<(), EtcdError> {
        let renewal = self.candidate.lease / 4;
        loop {
            if self.sender.borrow().is_none()
                && self.etcd.create(ELECTION_KEY, &self.candidate.manager_id, lease.id).await?
            {
                self.lead(lease).await?;
            }
            // While another leads, its key vanishing is noticed at once; the timer is for
            // renewing the lease, and for a watch that broke.
            tokio::select! {
                () = self.lifecycle.stopping() => return Ok(()),
                () = tokio::time::sleep(renewal) => {}
                () = self.vacancy() => {}
            }
            self.renew(lease).await?;
        }
    }

    /// Announces this manager as the leader.
    async fn lead(&self, lease: &Lease) -> Result<(), EtcdError> {
        let epoch = self.etcd.create_revision(ELECTION_KEY).await?.unsigned_abs();
        let announcement = Announcement {
            manager_id: &self.candidate.manager_id,
            epoch,
            event_addr: &self.candidate.event_addr,
            public_key: self.candidate.public_key.as_deref(),
        };
        let text = serde_json::to_string(&announcement).expect("plain data always encodes");
        self.etcd.put_with_lease(LEADER_KEY, &text, lease.id).await?;
        tracing::info!(epoch, "this manager leads");
        self.sender.send_replace(Some(epoch));
        Ok(())
    }

    /// Resolves when the election key is deleted; never while this manager holds it.
    async fn vacancy(&self) {
        if self.sender.borrow().is_some() {
            std::future::pending::<()>().await;
        }
        let watch = async {
            let (_, revision) = self.etcd.get_prefix_at(ELECTION_KEY).await?;
            self.etcd.wait_for_delete(ELECTION_KEY, revision).await
        };
        if let Err(error) = watch.await {
            tracing::debug!("the watch of the election broke: {}", chain(&error));
            std::future::pending::<()>().await;
        }
    }

    async fn grant(&self) -> Result<Lease, EtcdError> {
        let asked = Instant::now();
        let id = self.etcd.grant_lease(self.candidate.lease).await?;
        Ok(Lease { id, valid_until: asked + self.candidate.lease })
    }

    /// Renews the lease, trying until shortly before it may have expired.
    async fn renew(&self, lease: &mut Lease) -> Result<(), EtcdError> {
        // Stops leading with some life of the lease left, so that no other leads already.
        let latest = lease.valid_until - self.candidate.lease / 8;
        loop {
            let asked = Instant::now();
            let attempt = tokio::time::timeout_at(latest, self.etcd.keep_lease(lease.id)).await;
            match attempt {
                Ok(Ok(())) => {
                    lease.valid_until = asked + self.candidate.lease;
                    return Ok(());
                }
                Ok(Err(error)) if Instant::now() + RETRY_PAUSE >= latest => {
                    self.resign_in_fear();
                    return Err(error);
                }
                Ok(Err(_)) => tokio::time::sleep(RETRY_PAUSE / 4).await,
                Err(_) => {
                    self.resign_in_fear();
                    return Err(EtcdError::timeout("renew the manager's lease"));
                }
            }
        }
    }

    fn resign_in_fear(&self) {
        if self.sender.send_replace(None).is_some() {
            tracing::warn!("the lease could not be renewed in time: no longer leading");
        }
    }

    /// What agents need to know of every manager, and what people ask of the cluster.
    async fn publish(&self, lease: &Lease) -> Result<(), EtcdError> {
        let node = format!("nodes/manager/{}", self.candidate.manager_id);
        if let Some(key) = &self.candidate.public_key {
            self.etcd.put_with_lease(&format!("{node}/public_key"), key, lease.id).await?;
        }
        self.etcd.put_with_lease(&node, "up", lease.id).await?;
        let status = self.etcd.get(STATUS_KEY).await?;
        if !matches!(status.as_deref(), Some("running" | "frozen")) {
            self.etcd.put(STATUS_KEY, "running").await?;
        }
        Ok(())
    }
}
