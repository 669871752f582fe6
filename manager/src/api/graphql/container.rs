//! `ComputeContainer`: a kernel.

use std::sync::Arc;

use async_graphql::{ID, Object, Result};
use backendai_datastore::kernel::Kernel;
use backendai_datastore::list_view::Page;
use backendai_types::ResourceSlots;

use super::batch::SessionBatch;
use super::scalars::{DateTime, JsonString, Uuid};
use crate::app::{SharedApp, statistics};

/// A kernel.
pub struct ComputeContainer {
    kernel: Arc<Kernel>,
    batch: Arc<SessionBatch>,
}

/// A page of kernels.
pub struct ComputeContainerList {
    items: Vec<ComputeContainer>,
    total: i64,
}

impl ComputeContainerList {
    /// A page.
    pub fn new(app: &SharedApp, page: Page<Kernel>) -> Self {
        Self { items: ComputeContainer::together(app, page.items), total: page.total }
    }
}

/// A page of kernels.
#[Object(rename_fields = "snake_case")]
impl ComputeContainerList {
    async fn items(&self) -> Vec<Option<&ComputeContainer>> {
        self.items.iter().map(Some).collect()
    }

    async fn total_count(&self) -> i32 {
        i32::try_from(self.total).unwrap_or(i32::MAX)
    }
}

impl ComputeContainer {
    /// Kernels shown together.
    pub fn together(app: &SharedApp, rows: Vec<Kernel>) -> Vec<Self> {
        let mut sessions: Vec<_> = rows.iter().map(|kernel| kernel.session_id).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let batch = SessionBatch::new(Arc::clone(app), sessions);
        rows.into_iter().map(|row| Self::of_session(Arc::new(row), &batch)).collect()
    }

    /// A kernel of a session of this batch.
    pub fn of_session(kernel: Arc<Kernel>, batch: &Arc<SessionBatch>) -> Self {
        Self { kernel, batch: Arc::clone(batch) }
    }

    /// What it uses now, or used last.
    async fn stat(&self) -> Result<Option<JsonString>> {
        let live = self.batch.metrics(self.kernel.id).await?.map(statistics::kernel_view);
        Ok(live.or_else(|| self.kernel.last_stat.clone()).map(Into::into))
    }
}

/// A kernel.
#[Object(rename_fields = "snake_case")]
impl ComputeContainer {
    async fn id(&self) -> Option<ID> {
        Some(self.kernel.id.to_string().into())
    }

    async fn idx(&self) -> Option<i32> {
        Some(self.kernel.cluster_idx)
    }

    async fn role(&self) -> Option<&str> {
        Some(&self.kernel.cluster_role)
    }

    async fn hostname(&self) -> Option<&str> {
        Some(&self.kernel.cluster_hostname)
    }

    async fn cluster_idx(&self) -> Option<i32> {
        Some(self.kernel.cluster_idx)
    }

    async fn local_rank(&self) -> Option<i32> {
        Some(self.kernel.local_rank)
    }

    async fn cluster_role(&self) -> Option<&str> {
        Some(&self.kernel.cluster_role)
    }

    async fn cluster_hostname(&self) -> Option<&str> {
        Some(&self.kernel.cluster_hostname)
    }

    async fn session_id(&self) -> Option<Uuid> {
        Some(Uuid(self.kernel.session_id.0))
    }

    async fn image(&self) -> Option<&str> {
        Some(&self.kernel.image)
    }

    async fn architecture(&self) -> Option<&str> {
        Some(&self.kernel.architecture)
    }

    async fn registry(&self) -> Option<&str> {
        Some(&self.kernel.registry)
    }

    async fn status(&self) -> Option<&str> {
        Some(self.kernel.status.as_str())
    }

    async fn status_changed(&self) -> Option<DateTime> {
        Some(self.kernel.status_changed.into())
    }

    async fn status_info(&self) -> Option<&str> {
        Some(self.kernel.status_info.as_deref().unwrap_or_default())
    }

    async fn status_data(&self) -> Option<JsonString> {
        Some(self.kernel.status_data.clone().into())
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(self.kernel.created_at.into())
    }

    async fn terminated_at(&self) -> Option<DateTime> {
        self.kernel.terminated_at.map(Into::into)
    }

    /// Its session says when it is to start.
    async fn starts_at(&self) -> Option<DateTime> {
        None
    }

    /// When its session was given a place.
    async fn scheduled_at(&self) -> Result<Option<DateTime>> {
        let history = self.batch.history(self.kernel.session_id).await?;
        let scheduled = history.iter().find(|(status, _)| status == "SCHEDULED");
        Ok(scheduled.map(|(_, at)| (*at).into()))
    }

    /// None is known to abuse anything.
    async fn abusing_report(&self) -> Option<JsonString> {
        None
    }

    async fn agent_addr(&self) -> Option<&str> {
        self.kernel.kernel_host.as_deref()
    }

    async fn agent(&self) -> Option<&str> {
        self.kernel.agent.as_ref().map(|agent| agent.as_str())
    }

    async fn container_id(&self) -> Option<&str> {
        self.kernel.container_id.as_deref()
    }

    async fn resource_opts(&self) -> Option<JsonString> {
        Some(self.kernel.resource_opts.clone().into())
    }

    async fn occupied_slots(&self) -> Result<Option<JsonString>> {
        let usage = self.batch.usage().await?;
        let nothing = ResourceSlots::default();
        Ok(Some(JsonString::slots(usage.get(&self.kernel.id).unwrap_or(&nothing))))
    }

    async fn live_stat(&self) -> Result<Option<JsonString>> {
        self.stat().await
    }

    async fn last_stat(&self) -> Result<Option<JsonString>> {
        self.stat().await
    }

    async fn preopen_ports(&self) -> Option<Vec<Option<i32>>> {
        let ports = &self.kernel.preopen_ports;
        (!ports.is_empty()).then(|| ports.iter().map(|port| Some(i32::from(*port))).collect())
    }
}
