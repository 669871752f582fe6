//! Asking for a session.
//!
//! The order of the checks is the product's: with several things wrong, clients see the
//! same one. Nothing is reserved here; limits on what runs at once are the scheduler's.

mod place;
mod resources;
pub(in crate::app) mod starts_at;
mod wait;

use std::collections::BTreeMap;

use backendai_datastore::DatastoreError;
use backendai_datastore::image::ImageRow;
use backendai_datastore::policy::Owner;
use backendai_datastore::scaling_group::ScalingGroup;
use backendai_datastore::session::{LIVE_NAME_INDEX, NewKernel, NewSession, Session};
use backendai_types::{
    ClusterMode, GroupId, KernelId, ResourceSlots, SessionId, SessionStatus, SessionType, vfolder,
};

use super::{CreateSession, CreatedSession, lookup, reserved_name};
use crate::app::vfolder::VfolderError;
use crate::app::vfolder::mount::{self, SessionOwner};
use crate::app::{Error, Result, SharedApp, image};
use crate::context::RequestContext;
use crate::wake::Task;

/// How often the insert is tried when sessions of the same name come and go meanwhile.
const NAME_ATTEMPTS: u32 = 3;

/// Writes down that a session is wanted, wakes the scheduler, and waits as asked.
///
/// # Errors
/// See `rest-routes.md` §1.1: any wrong value, unknown name or exceeded limit.
pub async fn create(
    app: &SharedApp,
    context: &RequestContext,
    request: CreateSession,
) -> Result<CreatedSession> {
    reserved_name(&request.name)?;
    check_agent_list(context, &request)?;
    let owner = lookup::owner(app, context, request.owner_access_key.as_deref()).await?;
    let scope = place::scope(app, context, &owner, &request.domain, &request.group).await?;
    check_mount_map(&request.mount_map)?;
    let slot_types = app.shared.slot_types().await?;
    let asked = resources::parse(&request.resources, &slot_types)?;
    let registries = &scope.allowed_docker_registries;
    // At once, but judged in order.
    let (image, found) = futures::join!(
        image::resolve(app, &request.image, &request.architecture, registries),
        find(app, &owner, &scope, &request.name),
    );
    let image = image?;
    let (mut existing, scaling_groups) = found?;

    for _ in 0..NAME_ATTEMPTS {
        if let Some(existing) = existing.take() {
            return reuse(app, &request, &image, existing).await;
        }
        let found = Found { owner: &owner, scope: &scope, image: &image, groups: &scaling_groups };
        let new = prepare(app, &request, &found, &asked).await?;
        // Subscribed before it exists, so that nothing about it can be missed.
        let watch = app.wake.watch_session(new.id);
        match insert(app, context, &new).await {
            Ok(false) => {
                return Err(VfolderError::OperationFailed(
                    "A folder was deleted while the session was made.".into(),
                )
                .into());
            }
            Ok(true) => {
                tracing::info!(
                    session.id = %new.id,
                    request.id = context.request_id,
                    name = new.name,
                    "session enqueued"
                );
                app.wake.task(Task::ScheduleSessions);
                app.wake.task(Task::FollowTransitions);
                return wait::until_started(app, &request, new.id, watch).await;
            }
            // Somebody else was faster with this name: now it exists.
            Err(DatastoreError::Conflict { constraint, .. }) if constraint == LIVE_NAME_INDEX => {
                (existing, _) = find(app, &owner, &scope, &request.name).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::BadRequest(format!("The session name {} is in use.", request.name)))
}

/// Inserts a session; false if a folder it mounts is gone.
async fn insert(
    app: &SharedApp,
    context: &RequestContext,
    new: &NewSession,
) -> Result<bool, DatastoreError> {
    let actor = context.access_key.as_str();
    if new.vfolder_mounts.is_empty() {
        let tx = app.datastore.autocommit().await?;
        return tx.session_insert(new, actor).await.map(|()| true);
    }
    app.datastore
        .run_tx("session_create", |tx| async move {
            let mut ids: Vec<_> = new.vfolder_mounts.iter().map(|mount| mount.vfolder).collect();
            ids.sort_unstable();
            ids.dedup();
            if !tx.vfolders_hold(&ids).await? {
                return Ok(false);
            }
            tx.session_insert(new, actor).await?;
            tx.session_vfolders_insert(new.id, &new.vfolder_mounts).await?;
            Ok(true)
        })
        .await
}

fn check_agent_list(context: &RequestContext, request: &CreateSession) -> Result<()> {
    let Some(agents) = &request.agent_list else { return Ok(()) };
    if !context.is_superadmin() {
        return Err(Error::InsufficientPrivilege(
            "You are not allowed to manually assign agents for your session.".into(),
        ));
    }
    let wanted = match request.cluster_mode {
        ClusterMode::MultiNode => request.cluster_size as usize,
        ClusterMode::SingleNode => 1,
    };
    if agents.len() == wanted {
        return Ok(());
    }
    Err(Error::invalid(match request.cluster_mode {
        ClusterMode::MultiNode => {
            "For multi-node cluster sessions, the number of manually assigned agents must be \
             same to the cluster size."
        }
        ClusterMode::SingleNode => {
            "For non-cluster sessions and single-node cluster sessions, you may specify only one \
             manually assigned agent."
        }
    }))
}

fn check_mount_map(mount_map: &BTreeMap<String, String>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for alias in mount_map.values() {
        if !seen.insert(alias) {
            return Err(Error::invalid("Duplicate alias folder name exists."));
        }
        let name = alias.strip_prefix("/home/work/").unwrap_or(alias);
        if name.is_empty() {
            return Err(Error::invalid("Alias name cannot be empty."));
        }
        if name.split('/').any(|part| part == "..") {
            return Err(Error::invalid(format!("{alias} must not contain \"..\".")));
        }
        if vfolder::is_reserved(name) {
            return Err(Error::invalid(format!("{name} is reserved for internal path.")));
        }
        if mount_map.contains_key(name) {
            return Err(Error::invalid(
                "Alias name cannot be set to an existing folder name: ".to_owned() + name,
            ));
        }
    }
    Ok(())
}

/// The domain and group in which an owner's things are made, by `rest-auth.md` §8.
///
/// # Errors
/// One is unknown, or the owner may not use it.
pub async fn place(
    app: &SharedApp,
    context: &RequestContext,
    owner: &Owner,
    domain: &str,
    group: &str,
) -> Result<(String, GroupId)> {
    let scope = place::scope(app, context, owner, domain, group).await?;
    Ok((scope.domain, scope.group_id))
}

/// What the database knows of a request.
struct Found<'a> {
    owner: &'a Owner,
    scope: &'a place::Scope,
    image: &'a ImageRow,
    groups: &'a [ScalingGroup],
}

/// The live session of that name, if there is one, and the scaling groups that may be used.
async fn find(
    app: &SharedApp,
    owner: &Owner,
    scope: &place::Scope,
    name: &str,
) -> Result<(Option<Session>, Vec<ScalingGroup>)> {
    let tx = app.datastore.autocommit().await?;
    let (existing, groups) = futures::try_join!(
        tx.session_named(&owner.access_key, name),
        tx.scaling_groups_allowed(&scope.domain, scope.group_id, &owner.access_key),
    )?;
    Ok((existing, groups))
}

async fn reuse(
    app: &SharedApp,
    request: &CreateSession,
    image: &ImageRow,
    existing: Session,
) -> Result<CreatedSession> {
    if existing.image != image.name || !request.reuse_if_exists {
        return Err(Error::SessionExists { existing: existing.id });
    }
    let tx = app.datastore.autocommit().await?;
    let (status, kernel) =
        tx.session_progress(existing.id).await?.unwrap_or((existing.status, None));
    Ok(CreatedSession {
        session_id: existing.id,
        name: existing.name,
        status: status.to_string(),
        service_ports: kernel.map(|kernel| kernel.service_ports).unwrap_or_default(),
        created: false,
    })
}

/// Checks what is left and makes the rows.
async fn prepare(
    app: &SharedApp,
    request: &CreateSession,
    found: &Found<'_>,
    asked: &ResourceSlots,
) -> Result<NewSession> {
    let Found { owner, scope, image, groups } = *found;
    let startup_command = request.startup_command.clone().filter(|command| !command.is_empty());
    if request.session_type == SessionType::Batch && startup_command.is_none() {
        return Err(Error::invalid("Batch sessions must have a non-empty startup command."));
    }
    if request.session_type != SessionType::Batch && request.starts_at.is_some() {
        return Err(Error::invalid("Parameter starts_at should be used only for batch sessions"));
    }
    let starts_at = match &request.starts_at {
        Some(text) => Some(starts_at::parse(text, chrono::Utc::now())?),
        None => None,
    };
    let most = owner.max_containers_per_session;
    if i64::from(request.cluster_size) > i64::from(most) {
        return Err(Error::QuotaExceeded(format!(
            "You cannot create session with more than {most} containers."
        )));
    }
    let is_private = image.labels.get("ai.backend.role").is_some_and(|role| role == "SYSTEM");
    let scaling_group = place::scaling_group(groups, request, is_private)?;
    let session = SessionOwner { owner, domain: &scope.domain, group: scope.group_id };
    let vfolder_mounts = mount::resolve(app, session, &request.mounts, &request.mount_map).await?;
    let (slots, resource_opts) = resources::for_kernel(asked, &request.resource_opts, image)?;
    let dependencies = place::dependencies(app, owner, &request.dependencies).await?;
    let designated_agents = place::designated_agents(app, request.agent_list.as_deref()).await?;

    let mut environ = request.environ.clone();
    if owner.sudo_session_enabled {
        environ.insert("SUDO_SESSION_ENABLED".into(), "1".into());
    }
    let bootstrap_script = request
        .bootstrap_script
        .clone()
        .or_else(|| Some(owner.bootstrap_script.clone()))
        .filter(|script| !script.is_empty());
    let mut requested_slots = ResourceSlots::default();
    let kernels: Vec<NewKernel> = (0..request.cluster_size.max(1))
        .map(|rank| {
            requested_slots.add(&slots);
            // Bounded by the policy's number of containers.
            let rank = i32::try_from(rank).unwrap_or(i32::MAX);
            NewKernel {
                id: KernelId::random(),
                cluster_role: if rank == 0 { "main" } else { "sub" },
                cluster_idx: rank.max(1),
                local_rank: rank,
                requested_slots: slots.clone(),
                resource_opts: resource_opts.clone(),
                preopen_ports: request.preopen_ports.clone(),
            }
        })
        .collect();
    Ok(NewSession {
        id: SessionId::random(),
        name: request.name.clone(),
        session_type: request.session_type,
        cluster_mode: request.cluster_mode,
        domain_name: scope.domain.clone(),
        group_id: scope.group_id,
        user_id: owner.user_id,
        access_key: owner.access_key.clone(),
        scaling_group,
        image: image.name.clone(),
        architecture: image.architecture.clone(),
        registry: image.registry.clone(),
        tag: request.tag.clone(),
        requested_slots,
        environ,
        bootstrap_script,
        startup_command,
        callback_url: request.callback_url.clone(),
        cluster_ssh_keypair: (kernels.len() > 1).then(crate::ssh_key::generate_for_kernels),
        designated_agents,
        is_private,
        starts_at,
        dependencies,
        vfolder_mounts,
        kernels,
    })
}

/// The status name for a session that is still on its way.
fn pending(request: &CreateSession, session_id: SessionId, status: &str) -> CreatedSession {
    CreatedSession {
        session_id,
        name: request.name.clone(),
        status: status.to_owned(),
        service_ports: Vec::new(),
        created: true,
    }
}

/// Statuses in which there is still something to wait for.
const ON_ITS_WAY: &[SessionStatus] = &[
    SessionStatus::Pending,
    SessionStatus::Scheduled,
    SessionStatus::Preparing,
    SessionStatus::Pulling,
];
