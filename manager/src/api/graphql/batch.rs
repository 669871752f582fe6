//! What belongs to the sessions of one page, loaded for all of them at once.
//!
//! Every session of a page holds the same [`SessionBatch`]. The first field that needs the
//! kernels (or usage, history, dependencies) asks the database for the whole page; the
//! others find it there. So a list costs one query for each kind of thing, however long.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_graphql::Result;
use backendai_datastore::kernel::Kernel;
use backendai_datastore::session_list_view::SessionView;
use backendai_rpc::statistics::Metrics;
use backendai_types::{KernelId, ResourceSlots, SessionId};
use chrono::{DateTime, Utc};
use tokio::sync::OnceCell;

use super::guard::IntoGraphql;
use crate::app::session::commit;
use crate::app::{SharedApp, statistics};

type History = Vec<(String, DateTime<Utc>)>;
/// What sessions depend on, and those that are depended on.
type Dependencies = (HashMap<SessionId, Vec<SessionId>>, HashMap<SessionId, SessionView>);

/// Sessions shown together.
pub struct SessionBatch {
    app: SharedApp,
    ids: Vec<SessionId>,
    kernels: OnceCell<HashMap<SessionId, Vec<Arc<Kernel>>>>,
    usage: OnceCell<Arc<HashMap<KernelId, ResourceSlots>>>,
    metrics: OnceCell<HashMap<KernelId, Metrics>>,
    histories: OnceCell<HashMap<SessionId, History>>,
    dependencies: OnceCell<Dependencies>,
    committing: OnceCell<HashSet<String>>,
}

impl SessionBatch {
    /// Nothing is loaded yet.
    pub fn new(app: SharedApp, ids: Vec<SessionId>) -> Arc<Self> {
        Arc::new(Self {
            app,
            ids,
            kernels: OnceCell::new(),
            usage: OnceCell::new(),
            metrics: OnceCell::new(),
            histories: OnceCell::new(),
            dependencies: OnceCell::new(),
            committing: OnceCell::new(),
        })
    }

    /// What rules may use.
    pub fn app(&self) -> &SharedApp {
        &self.app
    }

    /// The kernels of one session, the main one first.
    pub async fn kernels(&self, session: SessionId) -> Result<&[Arc<Kernel>]> {
        Ok(self.all_kernels().await?.get(&session).map_or(&[], Vec::as_slice))
    }

    async fn all_kernels(&self) -> Result<&HashMap<SessionId, Vec<Arc<Kernel>>>> {
        let load = async {
            let db = self.app.datastore.autocommit().await?;
            let kernels = db.kernels_of_sessions(&self.ids).await?;
            Ok::<_, backendai_datastore::DatastoreError>(
                kernels
                    .into_iter()
                    .map(|(id, kernels)| (id, kernels.into_iter().map(Arc::new).collect()))
                    .collect(),
            )
        };
        self.kernels.get_or_try_init(|| load).await.map_err(IntoGraphql::into_graphql)
    }

    /// A kernel's live figures, where known.
    pub async fn metrics(&self, kernel: KernelId) -> Result<Option<&Metrics>> {
        let kernels = self.all_kernels().await?.values().flatten();
        let live: Vec<KernelId> =
            kernels.filter(|kernel| !kernel.status.is_terminal()).map(|kernel| kernel.id).collect();
        let read = || statistics::kernels(&self.app.redis, &live);
        Ok(self.metrics.get_or_init(read).await.get(&kernel))
    }

    /// What each kernel occupies; kernels that occupy nothing are left out.
    pub async fn usage(&self) -> Result<Arc<HashMap<KernelId, ResourceSlots>>> {
        let load = async {
            let db = self.app.datastore.autocommit().await?;
            db.kernel_usage_of_sessions(&self.ids).await.map(Arc::new)
        };
        self.usage.get_or_try_init(|| load).await.cloned().map_err(IntoGraphql::into_graphql)
    }

    /// When one session came to each of its statuses, in order of time.
    pub async fn history(&self, session: SessionId) -> Result<&[(String, DateTime<Utc>)]> {
        let load = async {
            let db = self.app.datastore.autocommit().await?;
            db.session_histories(&self.ids).await
        };
        let histories =
            self.histories.get_or_try_init(|| load).await.map_err(IntoGraphql::into_graphql)?;
        Ok(histories.get(&session).map_or(&[], Vec::as_slice))
    }

    /// Whether a kernel is being committed.
    pub async fn is_committing(&self, kernel: KernelId) -> Result<bool> {
        let kernels = self.all_kernels().await?.values().flatten();
        let kernels: Vec<String> = kernels.map(|kernel| kernel.id.to_string()).collect();
        let load = async {
            let db = self.app.datastore.autocommit().await?;
            db.background_task_subjects(commit::TASK, &kernels).await
        };
        let found =
            self.committing.get_or_try_init(|| load).await.map_err(IntoGraphql::into_graphql)?;
        Ok(found.contains(&kernel.to_string()))
    }

    /// What one session depends on.
    pub async fn dependencies(&self, session: SessionId) -> Result<Vec<SessionView>> {
        let load = async {
            let db = self.app.datastore.autocommit().await?;
            let edges = db.session_dependencies_of(&self.ids).await?;
            let ids: Vec<SessionId> = edges.values().flatten().copied().collect();
            let views = match ids.is_empty() {
                true => Vec::new(),
                false => db.session_views(&ids).await?,
            };
            let views = views.into_iter().map(|view| (view.id, view)).collect();
            Ok::<_, backendai_datastore::DatastoreError>((edges, views))
        };
        let (edges, views) =
            self.dependencies.get_or_try_init(|| load).await.map_err(IntoGraphql::into_graphql)?;
        let ids = edges.get(&session).map_or(&[][..], Vec::as_slice);
        Ok(ids.iter().filter_map(|id| views.get(id)).cloned().collect())
    }
}
