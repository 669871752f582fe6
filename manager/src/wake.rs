//! Wake-ups: they make things fast and carry no truth.
//!
//! A request writes what it wants and wakes the task that will do it; a task that changed a
//! session wakes whoever waits for it. Wake-ups reach this process at once and other
//! managers through Redis; a lost one costs only the time to the next periodic look.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use backendai_service::Lifecycle;
use backendai_service::redis::Redis;
use backendai_types::{BackgroundTaskId, SessionId};

/// A task that can be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Looks for room for PENDING sessions.
    ScheduleSessions,
    /// Has SCHEDULED and PREPARING kernels created.
    StartSessions,
    /// Has RESTARTING kernels restarted.
    RestartSessions,
    /// Has TERMINATING kernels destroyed.
    ReapSessions,
    /// Reads what was appended to `transitions`; runs in every manager.
    FollowTransitions,
    /// Removes folders that nobody wants any more.
    RemoveVfolders,
}

impl Task {
    const ALL: [Self; 6] = [
        Self::ScheduleSessions,
        Self::StartSessions,
        Self::ReapSessions,
        Self::FollowTransitions,
        Self::RestartSessions,
        Self::RemoveVfolders,
    ];

    /// The task's name in logs and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScheduleSessions => "schedule_sessions",
            Self::StartSessions => "start_sessions",
            Self::RestartSessions => "restart_sessions",
            Self::ReapSessions => "reap_sessions",
            Self::FollowTransitions => "follow_transitions",
            Self::RemoveVfolders => "remove_vfolders",
        }
    }
}

/// A thing that can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Session(SessionId),
    BackgroundTask(BackgroundTaskId),
}

impl std::fmt::Display for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Session(id) => write!(f, "session {id}"),
            Self::BackgroundTask(id) => write!(f, "background_task {id}"),
        }
    }
}

/// Wakes tasks and waiters, here and in other managers. Cheap to clone.
#[derive(Clone)]
pub struct Wake {
    inner: Arc<Inner>,
}

struct Inner {
    tasks: HashMap<Task, Arc<Notify>>,
    topics: Mutex<HashMap<Topic, Weak<watch::Sender<u64>>>>,
    remote: Option<tokio::sync::mpsc::Sender<String>>,
}

/// Bounds what waits for Redis; when it is full the wake-up is dropped, which is allowed.
const REMOTE_QUEUE: usize = 1024;
/// Name of the Redis channel.
const CHANNEL: &str = "wake";

impl Wake {
    /// Wake-ups within this process only.
    pub fn local() -> Self {
        Self::build(None)
    }

    /// Wake-ups that also travel through Redis.
    pub fn shared(redis: Redis, lifecycle: &Lifecycle) -> Self {
        let (sender, receiver) = tokio::sync::mpsc::channel(REMOTE_QUEUE);
        let wake = Self::build(Some(sender));
        lifecycle.spawn("wake_publish", publish(redis.clone(), receiver, lifecycle.clone()));
        lifecycle.spawn("wake_listen", listen(redis, wake.clone(), lifecycle.clone()));
        wake
    }

    fn build(remote: Option<tokio::sync::mpsc::Sender<String>>) -> Self {
        let tasks = Task::ALL.into_iter().map(|task| (task, Arc::default())).collect();
        Self { inner: Arc::new(Inner { tasks, topics: Mutex::default(), remote }) }
    }

    /// Wakes a task wherever it runs.
    pub fn task(&self, task: Task) {
        self.local_task(task);
        self.send(format!("task {}", task.name()));
    }

    /// Wakes whoever waits for a session.
    pub fn session(&self, session: SessionId) {
        self.topic(Topic::Session(session));
    }

    /// Wakes whoever watches a background task.
    pub fn background_task(&self, task: BackgroundTaskId) {
        self.topic(Topic::BackgroundTask(task));
    }

    /// Waits until a task is woken. A wake-up that came before the call counts. Cancel-safe.
    pub async fn woken(&self, task: Task) {
        self.inner.tasks[&task].notified().await;
    }

    /// Something that changes whenever the session is woken. Take it before reading the
    /// session's state, so that no change is missed.
    pub fn watch_session(&self, session: SessionId) -> Watch {
        self.watch(Topic::Session(session))
    }

    /// As [`Wake::watch_session`], for a background task.
    pub fn watch_background_task(&self, task: BackgroundTaskId) -> Watch {
        self.watch(Topic::BackgroundTask(task))
    }

    fn watch(&self, topic: Topic) -> Watch {
        let mut topics = self.inner.topics.lock();
        topics.retain(|_, sender| sender.strong_count() > 0);
        let sender = match topics.get(&topic).and_then(Weak::upgrade) {
            Some(sender) => sender,
            None => {
                let sender = Arc::new(watch::Sender::new(0));
                topics.insert(topic, Arc::downgrade(&sender));
                sender
            }
        };
        Watch { receiver: sender.subscribe(), _sender: sender }
    }

    fn topic(&self, topic: Topic) {
        self.local_topic(topic);
        self.send(topic.to_string());
    }

    fn local_task(&self, task: Task) {
        self.inner.tasks[&task].notify_one();
    }

    fn local_topic(&self, topic: Topic) {
        let sender = self.inner.topics.lock().get(&topic).and_then(Weak::upgrade);
        if let Some(sender) = sender {
            sender.send_modify(|version| *version += 1);
        }
    }

    fn send(&self, message: String) {
        if let Some(remote) = &self.inner.remote
            && remote.try_send(message).is_err()
        {
            tracing::debug!("a wake-up for other managers was dropped");
        }
    }

    fn receive(&self, message: &str) {
        match message.split_once(' ') {
            Some(("task", name)) => {
                if let Some(task) = Task::ALL.into_iter().find(|task| task.name() == name) {
                    self.local_task(task);
                }
            }
            Some(("session", id)) => {
                if let Ok(id) = id.parse() {
                    self.local_topic(Topic::Session(id));
                }
            }
            Some(("background_task", id)) => {
                if let Ok(id) = id.parse() {
                    self.local_topic(Topic::BackgroundTask(id));
                }
            }
            _ => tracing::debug!(message, "unknown wake-up"),
        }
    }
}

/// Sees changes of one thing.
pub struct Watch {
    receiver: watch::Receiver<u64>,
    _sender: Arc<watch::Sender<u64>>,
}

impl Watch {
    /// Waits for the next wake-up since the last call (or since the watch was made). Cancel-safe.
    pub async fn changed(&mut self) {
        // The sender lives as long as the watch, so this cannot fail.
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn publish(
    redis: Redis,
    mut messages: tokio::sync::mpsc::Receiver<String>,
    lifecycle: Lifecycle,
) {
    let channel = redis.key(CHANNEL);
    let mut connection = redis.connection();
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            () = lifecycle.stopping() => None,
        };
        let Some(message) = message else { return };
        let sent: redis::RedisResult<i64> =
            redis::cmd("PUBLISH").arg(&channel).arg(message).query_async(&mut connection).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "a wake-up for other managers was lost");
        }
    }
}

async fn listen(redis: Redis, wake: Wake, lifecycle: Lifecycle) {
    use futures::StreamExt;
    let mut is_away = false;
    while !lifecycle.is_stopping() {
        let stopping = lifecycle.stop_token();
        let result: redis::RedisResult<()> = async {
            let mut pubsub = redis.listen().await?;
            pubsub.subscribe(redis.key(CHANNEL)).await?;
            if std::mem::take(&mut is_away) {
                tracing::info!("Redis is back");
            }
            let mut messages = pubsub.on_message();
            loop {
                tokio::select! {
                    message = messages.next() => match message {
                        Some(message) => wake.receive(&message.get_payload::<String>()?),
                        None => return Ok(()),
                    },
                    () = stopping.cancelled() => return Ok(()),
                }
            }
        }
        .await;
        if let Err(error) = result
            && !std::mem::replace(&mut is_away, true)
        {
            tracing::warn!(
                %error,
                "Redis does not answer (config/redis/* in etcd): no rate limits and no live \
                 statistics until it is back"
            );
        }
        // Redis is away: wake-ups are local meanwhile, and tasks look periodically.
        lifecycle.sleep(std::time::Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_between_watching_and_waiting_is_not_missed() {
        let wake = Wake::local();
        let id = SessionId::random();
        let mut watch = wake.watch_session(id);
        wake.session(id);
        watch.changed().await;
    }

    #[tokio::test]
    async fn a_task_woken_before_it_waits_does_not_wait() {
        let wake = Wake::local();
        wake.receive("task start_sessions");
        wake.woken(Task::StartSessions).await;
    }
}
