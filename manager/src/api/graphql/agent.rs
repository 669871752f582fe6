//! `Agent` and its list.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result};
use backendai_datastore::agent_list_view::AgentView;
use backendai_datastore::kernel::{AgentAddr, Kernel};
use backendai_datastore::list_view::Page;
use backendai_rpc::agent_api::Hello;
use backendai_rpc::statistics::{Metric, NodeMetrics};
use backendai_types::{AgentId, ResourceSlots};
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::batch::SessionBatch;
use super::container::ComputeContainer;
use super::guard::{Asker, IntoGraphql};
use super::scalars::{DateTime, JsonString};
use crate::app::{SharedApp, statistics};

/// An agent.
pub struct Agent {
    row: AgentView,
    batch: Arc<AgentBatch>,
}

/// A page of agents.
pub struct AgentList {
    items: Vec<Agent>,
    total: i64,
}

/// The kernels of agents, and the batch of the sessions they belong to.
type Kernels = (HashMap<AgentId, Vec<Arc<Kernel>>>, Arc<SessionBatch>);

/// Agents shown together.
struct AgentBatch {
    app: SharedApp,
    ids: Vec<AgentId>,
    kernels: OnceCell<Kernels>,
    metrics: OnceCell<HashMap<AgentId, NodeMetrics>>,
}

impl AgentBatch {
    /// How busy an agent is; `None` where that is not known.
    async fn metrics(&self, agent: &AgentId) -> Option<&NodeMetrics> {
        let read = || statistics::nodes(&self.app.redis, &self.ids);
        self.metrics.get_or_init(read).await.get(agent)
    }

    async fn kernels(&self, agent: &AgentId) -> Result<(&[Arc<Kernel>], &Arc<SessionBatch>)> {
        let load = async {
            let db = self.app.datastore.autocommit().await?;
            let kernels: HashMap<AgentId, Vec<Arc<Kernel>>> = db
                .kernels_on_agents(&self.ids)
                .await?
                .into_iter()
                .map(|(id, kernels)| (id, kernels.into_iter().map(Arc::new).collect()))
                .collect();
            let mut sessions: Vec<_> = kernels.values().flatten().map(|k| k.session_id).collect();
            sessions.sort_unstable();
            sessions.dedup();
            let batch = SessionBatch::new(Arc::clone(&self.app), sessions);
            Ok::<_, backendai_datastore::DatastoreError>((kernels, batch))
        };
        let (kernels, batch) =
            self.kernels.get_or_try_init(|| load).await.map_err(IntoGraphql::into_graphql)?;
        Ok((kernels.get(agent).map_or(&[], Vec::as_slice), batch))
    }
}

impl Agent {
    /// Agents shown together.
    pub fn together(app: &SharedApp, rows: Vec<AgentView>) -> Vec<Self> {
        let ids = rows.iter().map(|row| row.id.clone()).collect();
        let batch = Arc::new(AgentBatch {
            app: Arc::clone(app),
            ids,
            kernels: OnceCell::new(),
            metrics: OnceCell::new(),
        });
        rows.into_iter().map(|row| Self { row, batch: Arc::clone(&batch) }).collect()
    }

    /// What is known of an agent that is alive.
    async fn metrics(&self) -> Option<&NodeMetrics> {
        if self.row.status != "ALIVE" {
            return None;
        }
        self.batch.metrics(&self.row.id).await
    }

    async fn metric(&self, name: &str) -> Option<Metric> {
        self.metrics().await?.node.get(name).copied()
    }

    async fn hardware(&self, asker: &Asker) -> Option<Value> {
        let addr = AgentAddr {
            id: self.row.id.clone(),
            addr: self.row.addr.clone(),
            public_key: self.row.public_key.clone(),
        };
        let client = asker.app.agents.client(&addr, Some(&asker.context.request_id));
        match client.hardware(&Hello {}).await {
            Ok(devices) => {
                let devices: Map<String, Value> = devices
                    .into_iter()
                    .map(|(device, health)| {
                        let view = json!({
                            "status": health.status,
                            "status_info": health.status_info,
                            "metadata": health.metadata,
                        });
                        (device, view)
                    })
                    .collect();
                Some(Value::Object(devices))
            }
            Err(error) => {
                tracing::debug!(agent.id = %self.row.id, %error, "an agent did not say how its hardware is");
                None
            }
        }
    }
}

impl AgentList {
    /// A page.
    pub fn new(app: &SharedApp, page: Page<AgentView>) -> Self {
        Self { items: Agent::together(app, page.items), total: page.total }
    }
}

/// A page of agents.
#[Object(rename_fields = "snake_case")]
impl AgentList {
    async fn items(&self) -> Vec<Option<&Agent>> {
        self.items.iter().map(Some).collect()
    }

    async fn total_count(&self) -> i32 {
        i32::try_from(self.total).unwrap_or(i32::MAX)
    }
}

fn float(slots: &ResourceSlots, slot: &str) -> Option<f64> {
    slots.amount(slot).to_f64()
}

/// Mebibytes, as this older field counts.
fn mebibytes(slots: &ResourceSlots) -> Option<i32> {
    i32::try_from(slots.mem_bytes() >> 20).ok()
}

fn gpus(slots: &ResourceSlots) -> Option<f64> {
    (slots.amount("cuda.device") + slots.amount("cuda.shares")).to_f64()
}

/// An agent.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl Agent {
    async fn id(&self) -> Option<ID> {
        Some(self.row.id.0.clone().into())
    }

    async fn status(&self) -> Option<&str> {
        Some(&self.row.status)
    }

    async fn status_changed(&self) -> Option<DateTime> {
        Some(self.row.status_changed.into())
    }

    async fn region(&self) -> Option<&str> {
        Some(&self.row.region)
    }

    async fn scaling_group(&self) -> Option<&str> {
        Some(&self.row.scaling_group)
    }

    async fn schedulable(&self) -> Option<bool> {
        Some(self.row.schedulable)
    }

    async fn available_slots(&self) -> Option<JsonString> {
        Some(JsonString::slots(&self.row.available_slots))
    }

    /// Every slot it offers, zero where nothing lies.
    async fn occupied_slots(&self) -> Option<JsonString> {
        let mut slots: ResourceSlots =
            self.row.available_slots.iter().map(|(slot, _)| (slot.clone(), 0.into())).collect();
        slots.add(&self.row.occupied_slots);
        Some(JsonString::slots(&slots))
    }

    async fn addr(&self) -> Option<&str> {
        Some(&self.row.addr)
    }

    async fn architecture(&self) -> Option<&str> {
        Some(&self.row.architecture)
    }

    async fn first_contact(&self) -> Option<DateTime> {
        Some(self.row.first_contact.into())
    }

    async fn lost_at(&self) -> Option<DateTime> {
        self.row.lost_at.map(Into::into)
    }

    async fn live_stat(&self) -> Option<JsonString> {
        Some(statistics::node_view(self.metrics().await?).into())
    }

    async fn version(&self) -> Option<&str> {
        Some(&self.row.version)
    }

    async fn compute_plugins(&self) -> Option<JsonString> {
        Some(self.row.compute_plugins.clone().into())
    }

    /// Asked of the agent itself; null unless it is alive and answers.
    async fn hardware_metadata(&self, ctx: &Context<'_>) -> Result<Option<JsonString>> {
        if self.row.status != "ALIVE" {
            return Ok(None);
        }
        let asker = super::guard::asker(ctx)?;
        Ok(self.hardware(asker).await.map(Into::into))
    }

    async fn auto_terminate_abusing_kernel(&self) -> Option<bool> {
        Some(self.row.auto_terminate_abusing_kernel)
    }

    async fn local_config(&self) -> Option<JsonString> {
        let flag = self.row.auto_terminate_abusing_kernel;
        Some(json!({ "agent": { "auto_terminate_abusing_kernel": flag } }).into())
    }

    async fn container_count(&self) -> Option<i32> {
        i32::try_from(self.row.container_count).ok()
    }

    async fn mem_slots(&self) -> Option<i32> {
        mebibytes(&self.row.available_slots)
    }

    async fn cpu_slots(&self) -> Option<f64> {
        float(&self.row.available_slots, "cpu")
    }

    async fn gpu_slots(&self) -> Option<f64> {
        gpus(&self.row.available_slots)
    }

    async fn tpu_slots(&self) -> Option<f64> {
        float(&self.row.available_slots, "tpu.device")
    }

    async fn used_mem_slots(&self) -> Option<i32> {
        mebibytes(&self.row.occupied_slots)
    }

    async fn used_cpu_slots(&self) -> Option<f64> {
        float(&self.row.occupied_slots, "cpu")
    }

    async fn used_gpu_slots(&self) -> Option<f64> {
        gpus(&self.row.occupied_slots)
    }

    async fn used_tpu_slots(&self) -> Option<f64> {
        float(&self.row.occupied_slots, "tpu.device")
    }

    /// Hundredths of all cores, to two decimals; clients cannot take null here.
    async fn cpu_cur_pct(&self) -> Option<f64> {
        let percent = self.metric("cpu_util").await.map_or(0.0, |cpu| cpu.percent());
        Some((percent * 100.0).round() / 100.0)
    }

    /// Clients cannot take null here.
    async fn mem_cur_bytes(&self) -> Option<f64> {
        Some(self.metric("mem").await.map_or(0.0, |mem| mem.current))
    }

    async fn compute_containers(
        &self,
        status: Option<String>,
    ) -> Result<Option<Vec<Option<ComputeContainer>>>> {
        let (kernels, batch) = self.batch.kernels(&self.row.id).await?;
        let containers = kernels
            .iter()
            .filter(|kernel| {
                status.as_ref().is_none_or(|s| s.eq_ignore_ascii_case(kernel.status.as_str()))
            })
            .map(|kernel| Some(ComputeContainer::of_session(Arc::clone(kernel), batch)))
            .collect();
        Ok(Some(containers))
    }
}
