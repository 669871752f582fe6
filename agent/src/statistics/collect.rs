//! Gathers the figures of all kernels from time to time and tells the leading manager.

use std::sync::Arc;
use std::time::Duration;

use backendai_rpc::manager_api::KernelPhase;
use backendai_rpc::statistics::{Packed, Statistics as Report};

use crate::core::Core;
use crate::kernel::place;
use crate::kernel::record::KernelState;
use crate::kernel::registry::blocking;
use crate::leader::ManagerLink;

/// Figures older than so many intervals are not worth showing.
const VALID_INTERVALS: u32 = 3;
/// What a busy host may be late.
const SLACK: Duration = Duration::from_secs(5);

/// Gathers and tells until the shutdown.
pub async fn collect(core: Arc<Core>, interval: Duration, link: ManagerLink) {
    let mut is_failing = false;
    while core.lifecycle.sleep(interval).await {
        find_missing(&core).await;
        core.statistics.keep(|id| core.registry.get(id).is_some());
        let Some(manager) = link.client() else { continue };
        let report = match gather(&core, interval).await {
            Ok(report) => report,
            Err(error) => {
                tracing::error!(%error, "gather statistics");
                continue;
            }
        };
        let told = tokio::select! {
            told = manager.statistics(&report) => told,
            () = core.lifecycle.stopping() => return,
        };
        match told {
            Ok(()) => is_failing = false,
            Err(error) if !std::mem::replace(&mut is_failing, true) => {
                tracing::warn!("tell statistics: {error}; trying on");
            }
            Err(_) => {}
        }
    }
}

async fn gather(core: &Arc<Core>, interval: Duration) -> std::io::Result<Report> {
    let gatherer = Arc::clone(core);
    blocking(move || {
        let node = gatherer.statistics.node(gatherer.backend.node_sample());
        let kernels = gatherer.statistics.kernels();
        Ok(Report {
            agent_id: gatherer.agent_id.clone(),
            valid_s: (interval * VALID_INTERVALS + SLACK).as_secs(),
            node: Packed::pack(&node),
            kernels: kernels.iter().map(|(id, metrics)| (*id, Packed::pack(metrics))).collect(),
        })
    })
    .await
}

/// Begins to count kernels that could not be found when they started.
async fn find_missing(core: &Core) {
    for kernel in core.registry.all() {
        if kernel.phase() != KernelPhase::Running || core.statistics.tracks(kernel.id) {
            continue;
        }
        if let KernelState::Running(running) = kernel.record().state {
            place::find(core, kernel.id, &running.container.id).await;
        }
    }
}
