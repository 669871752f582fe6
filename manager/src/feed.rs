//! What happens to sessions, as it happens: `transitions`, read once for all who listen.
//!
//! Every manager follows the table ([`follow`]); a wake-up makes it look, and it reads only
//! what has settled (see [`backendai_datastore::transition_view`]), so that no listener
//! ever misses a transition or sees one twice or out of order. Listeners that keep up share
//! what was read; one that falls behind, or resumes from an older place, reads the
//! table itself until it has caught up, so memory does not grow with slow listeners.

use std::sync::Arc;
use std::time::Duration;

use backendai_datastore::Datastore;
use backendai_datastore::transition_view::{Horizon, TransitionView};
use backendai_service::Lifecycle;
use backendai_service::telemetry::chain;
use tokio::sync::watch;

use crate::app::SharedApp;
use crate::wake::Task;

/// Transitions read at once: a few hundred kilobytes.
const PAGE: i64 = 500;
/// First pause while transactions that were running at the look are still running.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Longest such pause. Only foreign transactions of the same server last that long.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Pause after a look that failed, and the longest time without a look should wake-ups of
/// other managers be lost.
const INTERVAL: Duration = Duration::from_secs(1);

/// The newest of what happened.
#[derive(Clone, Default)]
struct Latest {
    /// Up to here everything is known; `None` before the first look.
    settled: Option<i64>,
    /// `transitions` are those between this and `settled`.
    after: i64,
    transitions: Arc<[Arc<TransitionView>]>,
}

/// Tells listeners what happens. Cheap to clone.
#[derive(Clone, Default)]
pub struct Feed {
    latest: Arc<watch::Sender<Latest>>,
    /// As in `latest`, for those who only want to know that there is news.
    settled: Arc<watch::Sender<Option<i64>>>,
}

impl Feed {
    /// Listens from `after` on (a sequence number), or from now on. A process that has just
    /// started looks once before it knows what "now" is.
    pub async fn subscribe(&self, datastore: &Datastore, after: Option<i64>) -> Subscription {
        let mut receiver = self.latest.subscribe();
        let position = match after {
            Some(after) => after,
            None => first_settled(&mut receiver).await,
        };
        Subscription { receiver, datastore: datastore.clone(), position }
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.latest.receiver_count()
    }

    /// Up to which sequence number everything is known; `None` before the first look.
    pub fn settled(&self) -> Option<i64> {
        *self.settled.borrow()
    }

    /// Waits until something after this sequence number is known. Cancel-safe.
    pub async fn settled_beyond(&self, seq: i64) {
        let mut settled = self.settled.subscribe();
        // The sender is borrowed, so the wait cannot fail.
        let _ = settled.wait_for(|settled| settled.is_some_and(|settled| settled > seq)).await;
    }
}

async fn first_settled(receiver: &mut watch::Receiver<Latest>) -> i64 {
    let settled = receiver.wait_for(|latest| latest.settled.is_some()).await;
    match settled.ok().and_then(|latest| latest.settled) {
        Some(settled) => settled,
        // The process ends: nothing more will happen here.
        None => std::future::pending().await,
    }
}

/// One listener's place in the feed.
pub struct Subscription {
    receiver: watch::Receiver<Latest>,
    datastore: Datastore,
    /// Everything up to here was handed out.
    position: i64,
}

impl Subscription {
    /// What happened next: one transition or more, in order. Cancel-safe.
    ///
    /// # Errors
    /// PostgreSQL failed; nothing was skipped.
    pub async fn next(&mut self) -> backendai_datastore::Result<Vec<Arc<TransitionView>>> {
        loop {
            let position = self.position;
            let is_news =
                |latest: &Latest| latest.settled.is_some_and(|settled| settled > position);
            let latest = self.receiver.wait_for(is_news).await.map(|latest| latest.clone());
            let Ok(latest) = latest else {
                // The process ends: nothing more will happen here.
                std::future::pending().await
            };
            let Some(settled) = latest.settled else { continue };
            let (news, upto) = if latest.after <= position {
                let unseen = latest.transitions.iter().filter(|t| t.seq > position);
                (unseen.cloned().collect(), settled)
            } else {
                let db = self.datastore.autocommit().await?;
                page(&db, position, settled).await?
            };
            self.position = upto;
            if !news.is_empty() {
                return Ok(news);
            }
        }
    }
}

/// The next transitions after a place, and up to where that is all.
async fn page(
    db: &backendai_datastore::Transaction,
    after: i64,
    upto: i64,
) -> backendai_datastore::Result<(Vec<Arc<TransitionView>>, i64)> {
    let found = db.transitions_between(after, upto, PAGE).await?;
    let is_full = i64::try_from(found.len()).is_ok_and(|len| len == PAGE);
    let reached = found.last().filter(|_| is_full).map_or(upto, |last| last.seq);
    Ok((found.into_iter().map(Arc::new).collect(), reached))
}

/// Looks whenever something was appended, until the process stops. A vital task.
///
/// # Errors
/// None: a database that is away is tried again.
pub async fn follow(app: SharedApp, lifecycle: Lifecycle) -> Result<(), String> {
    let mut is_away = false;
    loop {
        let looked = tokio::select! {
            looked = look(&app.feed, &app.datastore) => looked,
            () = lifecycle.stopping() => return Ok(()),
        };
        match looked {
            Ok(()) => is_away = false,
            Err(error) if !std::mem::replace(&mut is_away, true) => {
                tracing::warn!(error = chain(&error), "events are not read; trying again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = app.wake.woken(Task::FollowTransitions), if !is_away => {}
            passed = lifecycle.sleep(INTERVAL) => if !passed { return Ok(()) },
        }
    }
}

/// Reads and tells everything up to what is there now.
async fn look(feed: &Feed, datastore: &Datastore) -> backendai_datastore::Result<()> {
    let known = feed.settled();
    let horizon = datastore.autocommit().await?.transitions_horizon(known).await?;
    let Some(horizon) = horizon else { return Ok(()) };
    until_settled(datastore, &horizon).await?;
    let Some(mut after) = known else {
        tell(feed, horizon.upto, horizon.upto, Vec::new());
        return Ok(());
    };
    while after < horizon.upto {
        // Without listeners there is nobody to read for.
        let (news, upto) = match feed.listeners() {
            0 => (Vec::new(), horizon.upto),
            _ => page(&datastore.autocommit().await?, after, horizon.upto).await?,
        };
        let known_from = if news.is_empty() { upto } else { after };
        tell(feed, known_from, upto, news);
        after = upto;
    }
    Ok(())
}

async fn until_settled(
    datastore: &Datastore,
    horizon: &Horizon,
) -> backendai_datastore::Result<()> {
    let mut pause = FIRST_PAUSE;
    while !datastore.autocommit().await?.transitions_settled(horizon).await? {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

fn tell(feed: &Feed, after: i64, settled: i64, news: Vec<Arc<TransitionView>>) {
    let transitions = news.into();
    feed.latest.send_replace(Latest { settled: Some(settled), after, transitions });
    feed.settled.send_replace(Some(settled));
}
