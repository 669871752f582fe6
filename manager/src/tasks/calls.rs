//! Calls to agents that are under way, and when to make them again.
//!
//! Agents only note a command and report later what came of it; both may be lost. What was
//! told is therefore told again after a while, as long as the agent does not report that it
//! is about it. Telling it twice does no harm.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use backendai_rpc::call::CallError;
use backendai_types::{AgentId, KernelId, SessionId};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// When a kernel's agent is told again, should it not report what it was told. A few
/// heartbeats.
const REPEAT: Duration = Duration::from_secs(5);
/// When it is told again after it could not be reached.
const RETRY: Duration = Duration::from_secs(1);
/// Calls under way at once: enough for many agents, few enough that their answers do not
/// time out in our own queues.
const MAX_CALLS: usize = 256;

/// What a call was about.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub agent: AgentId,
    pub kernels: Vec<(KernelId, SessionId)>,
}

impl About {
    fn ids(&self) -> impl Iterator<Item = KernelId> {
        self.kernels.iter().map(|(kernel, _)| *kernel)
    }
}

/// Calls under way and kernels that have been told.
#[derive(Default)]
pub(super) struct Calls {
    running: JoinSet<(About, Result<(), CallError>)>,
    told: HashMap<KernelId, Told>,
}

#[derive(Clone, Copy)]
enum Told {
    /// The call is under way.
    Calling,
    /// The agent is to be told again at this time.
    Until(Instant),
}

impl Calls {
    /// Makes a call in the background.
    pub fn start(
        &mut self,
        about: About,
        call: impl Future<Output = Result<(), CallError>> + Send + 'static,
    ) {
        for kernel in about.ids() {
            self.told.insert(kernel, Told::Calling);
        }
        self.running.spawn(async move {
            let result = call.await;
            (about, result)
        });
    }

    /// True when no further call should be made before one has ended.
    pub fn is_full(&self) -> bool {
        self.running.len() >= MAX_CALLS
    }

    /// The next call that ends. Never resolves while none is under way. Cancel-safe.
    pub async fn ended(&mut self) -> (About, Result<(), CallError>) {
        loop {
            match self.running.join_next().await {
                Some(Ok((about, result))) => {
                    let pause = if result.is_ok() { REPEAT } else { RETRY };
                    let again = Instant::now() + pause;
                    for kernel in about.ids() {
                        self.told.insert(kernel, Told::Until(again));
                    }
                    return (about, result);
                }
                Some(Err(error)) => tracing::error!(%error, "a call to an agent broke off"),
                None => std::future::pending().await,
            }
        }
    }

    /// True when the kernel's agent has not been told by this leader, or so long ago that it
    /// should have reported by now.
    pub fn is_due(&self, kernel: KernelId) -> bool {
        match self.told.get(&kernel) {
            None => true,
            Some(Told::Calling) => false,
            Some(Told::Until(again)) => Instant::now() >= *again,
        }
    }

    /// Lets a kernel be told at once, as if it had never been: what is wanted of it is new.
    pub fn renew(&mut self, kernel: KernelId) {
        if let Some(Told::Until(_)) = self.told.get(&kernel) {
            self.told.remove(&kernel);
        }
    }

    /// Forgets kernels that are not among these any more.
    pub fn retain(&mut self, keep: impl Fn(KernelId) -> bool) {
        self.told.retain(|kernel, told| matches!(told, Told::Calling) || keep(*kernel));
    }
}
