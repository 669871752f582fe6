//! Tells callback URLs what happens to their sessions.
//!
//! What is to be told is noted in `session_callbacks` together with the place up to which
//! `transitions` was read, so a restart neither loses nor repeats what was noted. Each
//! note is told at least once and at most a few times. Of one session only the oldest is
//! under way, so its receiver hears things in order; receivers share no more than
//! the room for requests, of which one host gets only a part.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use backendai_datastore::session_callback::DueCallback;
use backendai_service::telemetry::chain;
use backendai_types::SessionId;
use reqwest::redirect::Policy;
use serde_json::json;
use tokio::task::{JoinError, JoinSet};

use super::{Task, TaskError};
use crate::app::SharedApp;

/// What callbacks are told, without the prefix `session_` that the events have.
const EVENTS: &[&str] = &[
    "session_enqueued",
    "session_scheduled",
    "session_preparing",
    "session_started",
    "session_cancelled",
    "session_terminating",
    "session_terminated",
    "session_success",
    "session_failure",
];
/// How long a receiver may take, all in all.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often one note is told in vain before it is given up.
const MAX_ATTEMPTS: i32 = 5;
/// Pause after the first attempt; each further one is four times as long, so that the last
/// comes about a minute and a half after the first.
const FIRST_PAUSE_S: f64 = 1.0;
/// Requests at once.
const AT_ONCE: usize = 256;
/// Requests at once to one host: slow ones take no more than this of the room.
const PER_HOST: usize = 16;

pub(super) struct SessionCallbacks {
    app: SharedApp,
    /// `None` on a host without certificates of authorities.
    http: Option<reqwest::Client>,
    /// Everything up to here has been noted.
    noted: i64,
    telling: JoinSet<(DueCallback, Told)>,
    /// What came of requests and is not written down yet.
    told: Vec<(DueCallback, Told)>,
    /// What is under way, with the host that is told.
    busy: HashMap<SessionId, String>,
    interval: Duration,
}

/// What came of a request.
enum Told {
    Answered,
    InVain(String),
    /// Trying again would not help.
    Never(String),
}

impl SessionCallbacks {
    pub fn new(app: SharedApp) -> Self {
        // A redirect could lead anywhere, and the receiver has said where it wants to be told.
        let http = reqwest::Client::builder().redirect(Policy::none()).timeout(TIMEOUT).build();
        let http = http
            .inspect_err(|error| {
                tracing::error!(
                    "callback URLs cannot be told: {error}; install the certificates of \
                     authorities (ca-certificates) and restart the manager"
                );
            })
            .ok();
        let interval = Duration::from_secs_f64(app.config.tunables.task_interval_s);
        Self {
            app,
            http,
            noted: 0,
            telling: JoinSet::new(),
            told: Vec::new(),
            busy: HashMap::new(),
            interval: interval.min(Duration::from_secs(1)),
        }
    }

    fn heard(&mut self, ended: Result<(DueCallback, Told), JoinError>) {
        match ended {
            Ok(told) => self.told.push(told),
            Err(error) => tracing::error!(%error, "telling a callback URL broke off"),
        }
    }

    /// Notes what has happened since the last time.
    async fn note(&mut self) -> Result<(), TaskError> {
        let Some(upto) = self.app.feed.settled() else { return Ok(()) };
        if upto > self.noted {
            let db = self.app.datastore.autocommit().await?;
            db.session_callbacks_note(self.noted, upto, EVENTS).await?;
            self.noted = upto;
        }
        Ok(())
    }

    /// Begins to tell what is due, as far as there is room.
    async fn begin(&mut self) -> Result<(), TaskError> {
        let busy: Vec<SessionId> = self.busy.keys().copied().collect();
        let room = AT_ONCE.saturating_sub(busy.len());
        if room == 0 {
            return Ok(());
        }
        // More than there is room for: some may be for hosts that have their part.
        let limit = i64::try_from(room + AT_ONCE).unwrap_or(i64::MAX);
        let db = self.app.datastore.autocommit().await?;
        let due = db.session_callbacks_due(&busy, limit).await?;
        for callback in due {
            let host = host(&callback.url);
            let is_full = self.busy.values().filter(|busy| **busy == host).count() >= PER_HOST;
            if is_full || self.busy.len() >= AT_ONCE {
                continue;
            }
            self.busy.insert(callback.session_id, host);
            let http = self.http.clone();
            self.telling.spawn(async move {
                let told = tell(http.as_ref(), &callback).await;
                (callback, told)
            });
        }
        Ok(())
    }

    /// Writes down what came of requests.
    async fn end(&mut self) -> Result<(), TaskError> {
        while let Some((callback, told)) = self.told.last() {
            self.close(callback, told).await?;
            self.busy.remove(&callback.session_id);
            self.told.pop();
        }
        Ok(())
    }

    async fn close(&self, callback: &DueCallback, told: &Told) -> Result<(), TaskError> {
        let (session, attempts) = (callback.session_id, callback.attempts + 1);
        let db = self.app.datastore.autocommit().await?;
        match told {
            Told::Answered => db.session_callback_close(callback.seq).await?,
            Told::InVain(_) if attempts < MAX_ATTEMPTS => {
                let pause_s = FIRST_PAUSE_S * 4f64.powi(callback.attempts);
                db.session_callback_postpone(callback.seq, pause_s).await?;
            }
            Told::InVain(why) | Told::Never(why) => {
                tracing::warn!(
                    session.id = %session, event = callback.event, attempts,
                    "the session's callback URL is not told: {why}"
                );
                db.session_callback_close(callback.seq).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Task for SessionCallbacks {
    fn name(&self) -> &'static str {
        "session_callbacks"
    }

    async fn pass(&mut self) -> Result<(), TaskError> {
        while let Some(ended) = self.telling.try_join_next() {
            self.heard(ended);
        }
        self.end().await?;
        self.note().await?;
        self.begin().await
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = self.app.feed.settled_beyond(self.noted) => {}
            Some(ended) = self.telling.join_next() => self.heard(ended),
            () = tokio::time::sleep(self.interval) => {}
        }
    }
}

async fn tell(http: Option<&reqwest::Client>, callback: &DueCallback) -> Told {
    let Some(http) = http else {
        return Told::InVain("this host has no certificates of authorities".to_owned());
    };
    let event = callback.event.strip_prefix("session_").unwrap_or(&callback.event);
    let body = json!({
        "type": "session_lifecycle",
        "event": event,
        "session_id": callback.session_id,
        "when": callback.at.to_rfc3339(),
    });
    match http.post(&callback.url).json(&body).send().await {
        // The contract ignores what a receiver says; one that is broken may mend.
        Ok(reply) if reply.status().is_server_error() => {
            Told::InVain(format!("it answers {}", reply.status()))
        }
        Ok(_) => Told::Answered,
        Err(error) if error.is_builder() => Told::Never(chain(&error)),
        Err(error) => Told::InVain(chain(&error)),
    }
}

fn host(url: &str) -> String {
    let parsed = reqwest::Url::parse(url).ok();
    parsed.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}
