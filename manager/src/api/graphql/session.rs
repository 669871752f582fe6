//! `ComputeSession` and its list.

use std::sync::Arc;

use async_graphql::{ID, Object, Result};
use backendai_datastore::list_view::Page;
use backendai_datastore::session_list_view::SessionView;
use backendai_types::ResourceSlots;
use serde_json::{Map, Value, json};

use super::batch::SessionBatch;
use super::container::ComputeContainer;
use super::scalars::{BigInt, DateTime, JsonString, Uuid};
use crate::app::SharedApp;

/// A session.
pub struct ComputeSession {
    row: SessionView,
    batch: Arc<SessionBatch>,
}

/// A page of sessions.
pub struct ComputeSessionList {
    items: Vec<ComputeSession>,
    total: i64,
}

impl ComputeSession {
    /// Sessions shown together.
    pub fn together(app: &SharedApp, rows: Vec<SessionView>) -> Vec<Self> {
        let batch = SessionBatch::new(Arc::clone(app), rows.iter().map(|row| row.id).collect());
        rows.into_iter().map(|row| Self { row, batch: Arc::clone(&batch) }).collect()
    }

    async fn usage(&self) -> Result<ResourceSlots> {
        let usage = self.batch.usage().await?;
        let mut sum = ResourceSlots::default();
        for kernel in self.batch.kernels(self.row.id).await? {
            if let Some(slots) = usage.get(&kernel.id) {
                sum.add(slots);
            }
        }
        Ok(sum)
    }

    async fn slots_in_use(&self) -> Result<Option<JsonString>> {
        Ok(Some(JsonString::slots(&self.usage().await?)))
    }

    async fn agents(&self) -> Result<Vec<String>> {
        let kernels = self.batch.kernels(self.row.id).await?;
        let mut agents: Vec<String> =
            kernels.iter().filter_map(|kernel| Some(kernel.agent.as_ref()?.0.clone())).collect();
        agents.sort_unstable();
        agents.dedup();
        Ok(agents)
    }

    fn mount_names(&self) -> Vec<String> {
        let mounts = self.row.vfolder_mounts.as_array();
        mounts
            .into_iter()
            .flatten()
            .filter_map(|mount| Some(mount.get("name")?.as_str()?.to_owned()))
            .collect()
    }
}

impl ComputeSessionList {
    /// A page.
    pub fn new(app: &SharedApp, page: Page<SessionView>) -> Self {
        Self { items: ComputeSession::together(app, page.items), total: page.total }
    }
}

/// A page of sessions.
#[Object(rename_fields = "snake_case")]
impl ComputeSessionList {
    async fn items(&self) -> Vec<Option<&ComputeSession>> {
        self.items.iter().map(Some).collect()
    }

    async fn total_count(&self) -> i32 {
        i32::try_from(self.total).unwrap_or(i32::MAX)
    }
}

/// A session.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ComputeSession {
    async fn id(&self) -> Option<ID> {
        Some(self.row.id.to_string().into())
    }

    async fn session_id(&self) -> Option<Uuid> {
        Some(Uuid(self.row.id.0))
    }

    async fn main_kernel_id(&self) -> Option<Uuid> {
        self.row.main_kernel_id.map(|id| Uuid(id.0))
    }

    async fn main_kernel_role(&self) -> Option<&str> {
        Some("COMPUTE")
    }

    async fn tag(&self) -> Option<&str> {
        self.row.tag.as_deref()
    }

    async fn name(&self) -> Option<&str> {
        Some(&self.row.name)
    }

    #[graphql(name = "type")]
    async fn session_type(&self) -> Option<&str> {
        Some(&self.row.session_type)
    }

    async fn image(&self) -> Option<&str> {
        Some(&self.row.image)
    }

    async fn architecture(&self) -> Option<&str> {
        Some(&self.row.architecture)
    }

    async fn registry(&self) -> Option<&str> {
        self.row.registry.as_deref()
    }

    /// Templates of clusters are not kept with the session.
    async fn cluster_template(&self) -> Option<&str> {
        None
    }

    async fn cluster_mode(&self) -> Option<&str> {
        Some(&self.row.cluster_mode)
    }

    async fn cluster_size(&self) -> Option<i32> {
        Some(self.row.cluster_size)
    }

    async fn domain_name(&self) -> Option<&str> {
        Some(&self.row.domain_name)
    }

    async fn group_name(&self) -> Option<&str> {
        Some(&self.row.group_name)
    }

    async fn group_id(&self) -> Option<Uuid> {
        Some(Uuid(self.row.group_id.0))
    }

    async fn user_email(&self) -> Option<&str> {
        Some(&self.row.user_email)
    }

    async fn full_name(&self) -> Option<&str> {
        self.row.full_name.as_deref()
    }

    async fn user_id(&self) -> Option<Uuid> {
        Some(Uuid(self.row.user_id.0))
    }

    async fn access_key(&self) -> Option<&str> {
        Some(self.row.access_key.as_str())
    }

    async fn created_user_email(&self) -> Option<&str> {
        Some(&self.row.user_email)
    }

    async fn created_user_id(&self) -> Option<Uuid> {
        Some(Uuid(self.row.user_id.0))
    }

    async fn status(&self) -> Option<&str> {
        Some(self.row.status.as_str())
    }

    async fn status_changed(&self) -> Option<DateTime> {
        Some(self.row.status_changed.into())
    }

    async fn status_info(&self) -> Option<&str> {
        Some(self.row.status_info.as_deref().unwrap_or_default())
    }

    async fn status_data(&self) -> Option<JsonString> {
        Some(self.row.status_data.clone().into())
    }

    async fn status_history(&self) -> Result<Option<JsonString>> {
        let history = self.batch.history(self.row.id).await?;
        let map: Map<String, Value> = history
            .iter()
            .map(|(status, at)| (status.clone(), Value::from(DateTime(*at).to_string())))
            .collect();
        Ok(Some(Value::Object(map).into()))
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(self.row.created_at.into())
    }

    async fn terminated_at(&self) -> Option<DateTime> {
        self.row.terminated_at.map(Into::into)
    }

    async fn starts_at(&self) -> Option<DateTime> {
        self.row.starts_at.map(Into::into)
    }

    async fn scheduled_at(&self) -> Result<Option<DateTime>> {
        let history = self.batch.history(self.row.id).await?;
        let scheduled = history.iter().find(|(status, _)| status == "SCHEDULED");
        Ok(scheduled.map(|(_, at)| (*at).into()))
    }

    async fn startup_command(&self) -> Option<&str> {
        self.row.startup_command.as_deref()
    }

    async fn result(&self) -> Option<&str> {
        Some(&self.row.result)
    }

    /// `ongoing` while the session is made into an image or archive, else `ready`.
    async fn commit_status(&self) -> Result<Option<&str>> {
        let ongoing = match self.row.main_kernel_id {
            Some(kernel) => self.batch.is_committing(kernel).await?,
            None => false,
        };
        Ok(Some(if ongoing { "ongoing" } else { "ready" }))
    }

    /// Nothing is served for others.
    async fn inference_metrics(&self) -> Option<JsonString> {
        None
    }

    /// One entry per kernel; none is known to abuse anything.
    async fn abusing_reports(&self) -> Result<Option<Vec<Option<JsonString>>>> {
        let kernels = self.batch.kernels(self.row.id).await?;
        Ok(Some(kernels.iter().map(|_| None).collect()))
    }

    /// No idle checkers are configured.
    async fn idle_checks(&self) -> Option<JsonString> {
        Some(json!({}).into())
    }

    async fn agent_ids(&self) -> Result<Option<Vec<Option<String>>>> {
        Ok(Some(self.agents().await?.into_iter().map(Some).collect()))
    }

    #[graphql(name = "agents")]
    async fn agent_names(&self) -> Result<Option<Vec<Option<String>>>> {
        Ok(Some(self.agents().await?.into_iter().map(Some).collect()))
    }

    /// Those of each kernel, by its host name within the session.
    async fn resource_opts(&self) -> Result<Option<JsonString>> {
        let kernels = self.batch.kernels(self.row.id).await?;
        let opts: Map<String, Value> = kernels
            .iter()
            .map(|kernel| (kernel.cluster_hostname.clone(), kernel.resource_opts.clone()))
            .collect();
        Ok(Some(Value::Object(opts).into()))
    }

    async fn scaling_group(&self) -> Option<&str> {
        Some(&self.row.scaling_group)
    }

    async fn service_ports(&self) -> Result<Option<JsonString>> {
        let kernels = self.batch.kernels(self.row.id).await?;
        Ok(kernels.first().map(|main| json!(main.service_ports).into()))
    }

    async fn mounts(&self) -> Option<Vec<Option<String>>> {
        Some(self.mount_names().into_iter().map(Some).collect())
    }

    async fn vfolder_mounts(&self) -> Option<Vec<Option<String>>> {
        Some(self.mount_names().into_iter().map(Some).collect())
    }

    async fn occupying_slots(&self) -> Result<Option<JsonString>> {
        self.slots_in_use().await
    }

    /// What it occupies; of an ended session, what it was given.
    async fn occupied_slots(&self) -> Result<Option<JsonString>> {
        if !self.row.status.is_terminal() {
            return self.slots_in_use().await;
        }
        let mut sum = ResourceSlots::default();
        for kernel in self.batch.kernels(self.row.id).await? {
            sum.add(&kernel.requested_slots);
        }
        Ok(Some(JsonString::slots(&sum)))
    }

    async fn num_queries(&self) -> Option<BigInt> {
        Some(BigInt(self.row.num_queries))
    }

    async fn containers(&self) -> Result<Option<Vec<Option<ComputeContainer>>>> {
        let kernels = self.batch.kernels(self.row.id).await?;
        let containers = kernels
            .iter()
            .map(|kernel| Some(ComputeContainer::of_session(Arc::clone(kernel), &self.batch)))
            .collect();
        Ok(Some(containers))
    }

    async fn dependencies(&self) -> Result<Option<Vec<Option<ComputeSession>>>> {
        let rows = self.batch.dependencies(self.row.id).await?;
        Ok(Some(Self::together(self.batch.app(), rows).into_iter().map(Some).collect()))
    }
}
