//! What a session is, for those who ask.

use backendai_datastore::kernel::Kernel;
use backendai_datastore::session::Session;
use backendai_types::{KernelStatus, ResourceSlots};

use super::lookup;
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// A session with its main kernel.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The session.
    pub session: Session,
    /// Its main kernel.
    pub main_kernel: Kernel,
    /// What its kernels occupy now.
    pub occupied_slots: ResourceSlots,
}

impl SessionInfo {
    /// The main kernel's status, which the API shows in places as the session's.
    pub fn kernel_status(&self) -> KernelStatus {
        self.main_kernel.status
    }
}

/// A live session of the caller.
///
/// # Errors
/// No such session.
pub async fn info(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
) -> Result<SessionInfo> {
    let session = lookup::find_live(app, &context.access_key, reference).await?;
    let tx = app.datastore.autocommit().await?;
    let (kernels, occupied_slots) =
        futures::try_join!(tx.session_kernels(session.id), tx.session_usage(session.id))?;
    let main_kernel = kernels.into_iter().find(|kernel| kernel.cluster_role == "main");
    let Some(main_kernel) = main_kernel else {
        return Err(Error::NotFound { object: "main kernel", message: None });
    };
    Ok(SessionInfo { session, main_kernel, occupied_slots })
}
