//! What must be known of a running container to serve its kernel: where it is in the
//! engine's networks, and its counters.

use std::sync::Arc;

use backendai_types::KernelId;

use super::registry::blocking;
use crate::core::{Core, chain};

/// Finds a kernel's container on this host, and begins to count it and to answer its
/// questions about itself. Where it cannot be found, whoever gathers statistics tries again.
pub async fn find(core: &Core, kernel: KernelId, container_id: &str) {
    let place = match core.backend.locate(container_id).await {
        Ok(Some(place)) => place,
        // It ended; whoever watches it will notice.
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(kernel.id = %kernel, "not found so far: {}", chain(&error));
            return;
        }
    };
    core.addresses.note(kernel, &place.addresses);
    let backend = Arc::clone(&core.backend);
    match blocking(move || backend.meter(&place)).await {
        Ok(meter) => core.statistics.track(kernel, meter),
        Err(error) => tracing::debug!(kernel.id = %kernel, %error, "no statistics so far"),
    }
}
