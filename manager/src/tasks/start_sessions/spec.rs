//! What agents are told of a session and its kernels.

use std::collections::BTreeMap;

use backendai_datastore::start::{StartingImage, StartingKernel, StartingSession};
use backendai_rpc::agent_api::{
    AutoPull, ClusterHost, CreateKernels, Dotfile, ImageSpec, KernelSpec, MountSpec, SessionSpec,
    SshKeypair,
};
use backendai_types::VfolderPermission;
use serde_json::Value;

use crate::app::{App, dotfile};
use crate::shared_config;
use crate::ssh_key;
use crate::tasks::TaskError;

/// The request for some kernels of a session.
pub(in crate::tasks) async fn create_kernels(
    app: &App,
    session: &StartingSession,
    kernels: &[&StartingKernel],
) -> Result<CreateKernels, TaskError> {
    let auto_pull = match app.shared.auto_pull().await? {
        shared_config::AutoPull::Digest => AutoPull::Digest,
        shared_config::AutoPull::Tag => AutoPull::Tag,
        shared_config::AutoPull::None => AutoPull::None,
    };
    // A session without an image does not get here; an empty name would be refused.
    let image = match &session.image {
        Some(image) => image_spec(app, image).await?,
        None => ImageSpec {
            canonical: String::new(),
            architecture: String::new(),
            config_digest: String::new(),
            registry_url: None,
            registry_username: None,
            registry_password: None,
            labels: BTreeMap::new(),
        },
    };
    let environ = session_environ(session);
    let dotfiles: Vec<Dotfile> = dotfile::merge(session.dotfiles.clone())
        .into_iter()
        // Three octal digits, as the API takes them.
        .map(|file| Dotfile {
            mode: u32::from_str_radix(&file.perm, 8).unwrap_or(0o644) & 0o777,
            path: file.path,
            data: file.data,
        })
        .collect();
    let mounts: Vec<MountSpec> = session
        .vfolder_mounts
        .iter()
        .map(|mount| MountSpec {
            name: mount.name.clone(),
            host_path: mount.host_path.clone(),
            kernel_path: mount.kernel_path.clone(),
            read_only: mount.mount_perm == VfolderPermission::ReadOnly,
        })
        .collect();
    // Without keys of its owner's, a session is entered with its own.
    let ssh_keypair =
        keypair(&session.ssh_keypair.clone().unwrap_or_else(ssh_key::generate_for_kernels));
    Ok(CreateKernels {
        session: SessionSpec {
            session_id: session.id,
            name: session.name.clone(),
            session_type: session.session_type,
            cluster_mode: session.cluster_mode,
            hosts: session
                .kernels
                .iter()
                .map(|kernel| ClusterHost {
                    hostname: kernel.cluster_hostname.clone(),
                    role: kernel.cluster_role.clone(),
                })
                .collect(),
            cluster_ssh_keypair: session.cluster_ssh_keypair.as_ref().map(keypair),
        },
        kernels: kernels
            .iter()
            .map(|kernel| KernelSpec {
                kernel_id: kernel.id,
                cluster_role: kernel.cluster_role.clone(),
                cluster_idx: kernel.cluster_idx,
                local_rank: kernel.local_rank,
                hostname: kernel.cluster_hostname.clone(),
                image: image.clone(),
                auto_pull,
                slots: kernel.requested_slots.clone(),
                shmem: shmem(&kernel.resource_opts),
                environ: kernel_environ(&environ, kernel, &image),
                mounts: mounts.clone(),
                bootstrap_script: session.bootstrap_script.clone(),
                startup_command: session.startup_command.clone(),
                preopen_ports: match kernel.cluster_role.as_str() {
                    "main" => kernel.preopen_ports.clone(),
                    _ => Vec::new(),
                },
                ssh_keypair: Some(ssh_keypair.clone()),
                dotfiles: dotfiles.clone(),
            })
            .collect(),
    })
}

async fn image_spec(app: &App, image: &StartingImage) -> Result<ImageSpec, TaskError> {
    let registries = app.shared.registries().await?;
    let registry = registries.get(&image.registry).filter(|_| !image.is_local);
    Ok(ImageSpec {
        canonical: image.canonical.clone(),
        architecture: image.architecture.clone(),
        config_digest: image.config_digest.clone(),
        registry_url: registry.map(|registry| registry.url.clone()),
        registry_username: registry.and_then(|registry| registry.username.clone()),
        registry_password: registry
            .and_then(|registry| registry.password.as_ref())
            .map(|password| password.expose().to_owned()),
        labels: image.labels.clone(),
    })
}

fn keypair((public_key, private_key): &(String, String)) -> SshKeypair {
    SshKeypair { public_key: public_key.clone(), private_key: private_key.clone() }
}

/// Stored as text of digits; fixtures may have numbers.
fn shmem(options: &Value) -> u64 {
    match options.get("shmem") {
        Some(Value::String(text)) => {
            text.parse().map(|size: backendai_types::ByteCount| size.0).unwrap_or(0)
        }
        Some(value) => value.as_u64().unwrap_or(0),
        None => 0,
    }
}

/// Variables all kernels of a session share. The user's own cannot replace ours.
fn session_environ(session: &StartingSession) -> BTreeMap<String, String> {
    let hosts: Vec<&str> = session.kernels.iter().map(|k| k.cluster_hostname.as_str()).collect();
    let mut roles = BTreeMap::<&str, usize>::new();
    for kernel in &session.kernels {
        *roles.entry(&kernel.cluster_role).or_default() += 1;
    }
    let replicas: Vec<String> = roles.iter().map(|(role, n)| format!("{role}:{n}")).collect();
    let ports: Vec<String> = session
        .kernels
        .first()
        .map(|main| main.preopen_ports.iter().map(ToString::to_string).collect())
        .unwrap_or_default();
    let mut environ = session.environ.clone();
    environ.extend(
        [
            ("BACKENDAI_SESSION_ID", session.id.to_string()),
            ("BACKENDAI_SESSION_NAME", session.name.clone()),
            ("BACKENDAI_CLUSTER_SIZE", session.kernels.len().to_string()),
            ("BACKENDAI_CLUSTER_REPLICAS", replicas.join(",")),
            ("BACKENDAI_CLUSTER_HOSTS", hosts.join(",")),
            ("BACKENDAI_ACCESS_KEY", session.access_key.to_string()),
            ("BACKENDAI_PREOPEN_PORTS", ports.join(",")),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    environ
}

fn kernel_environ(
    session: &BTreeMap<String, String>,
    kernel: &StartingKernel,
    image: &ImageSpec,
) -> BTreeMap<String, String> {
    let service_ports = image.labels.get("ai.backend.service-ports");
    let mut environ = session.clone();
    environ.extend(
        [
            ("BACKENDAI_KERNEL_ID", kernel.id.to_string()),
            ("BACKENDAI_KERNEL_IMAGE", image.canonical.clone()),
            ("BACKENDAI_CLUSTER_ROLE", kernel.cluster_role.clone()),
            ("BACKENDAI_CLUSTER_IDX", kernel.cluster_idx.to_string()),
            ("BACKENDAI_CLUSTER_LOCAL_RANK", kernel.local_rank.to_string()),
            ("BACKENDAI_CLUSTER_HOST", kernel.cluster_hostname.clone()),
            // The product's spelling of "no label".
            ("BACKENDAI_SERVICE_PORTS", service_ports.cloned().unwrap_or_else(|| "None".into())),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    environ
}
