//! Kernel images, made on the spot because no registry can be assumed, and served by ours.
//!
//! They are made once for a machine and kept in the registry's store under the cache folder,
//! keyed by a hash of everything they are made of. Docker has them too, tagged for this
//! stack's registry, so that a first session does not wait for a pull.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::layout::Layout;
use crate::process::{is_root, lock, run};
use crate::progress::{Progress, Step};
use crate::servers::{Server, remove_dir};

mod rootfs;

/// Raised when the steps below change in a way the other ingredients do not show.
const RECIPE: u32 = 2;

/// One of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// Debian with python3 alone.
    Python,
    /// The same with ipykernel, numpy, matplotlib and a Jupyter server.
    PythonIpykernel,
    /// A static busybox.
    Busybox,
    /// One static program and nothing else.
    Scratch,
    /// The python image with compilers and interpreters, for programs in C.
    C,
    /// The same for C++,
    Cpp,
    /// Lua,
    Lua,
    /// and PHP.
    Php,
}

impl Image {
    /// All images; each after those it is made from.
    pub const ALL: [Self; 8] = [
        Self::Python,
        Self::PythonIpykernel,
        Self::Busybox,
        Self::Scratch,
        Self::C,
        Self::Cpp,
        Self::Lua,
        Self::Php,
    ];

    /// Its short name, also its alias in the example site.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::PythonIpykernel => "python-ipykernel",
            Self::Busybox => "busybox",
            Self::Scratch => "scratch",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Lua => "lua",
            Self::Php => "php",
        }
    }

    /// Its tag.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Python | Self::PythonIpykernel => "3.11-debian12",
            Self::Busybox => "1.35",
            Self::Scratch => "1",
            Self::C | Self::Cpp => "12-debian12",
            Self::Lua => "5.4-debian12",
            Self::Php => "8.2-debian12",
        }
    }

    /// Its full name in a registry `host:port`.
    pub fn reference(self, registry: &str) -> String {
        format!("{registry}/stable/{}:{}", self.name(), self.tag())
    }

    /// The name that keeps it in Docker, whatever port the registry has.
    fn local(self) -> String {
        format!("halfstack/{}:{}", self.name(), key())
    }

    fn dockerfile(self) -> &'static str {
        match self {
            Self::Python => include_str!("../images/python/Dockerfile"),
            Self::PythonIpykernel => include_str!("../images/python-ipykernel/Dockerfile"),
            Self::Busybox => include_str!("../images/busybox/Dockerfile"),
            Self::Scratch => include_str!("../images/scratch/Dockerfile"),
            Self::C => include_str!("../images/c/Dockerfile"),
            Self::Cpp | Self::Lua | Self::Php => include_str!("../images/language/Dockerfile"),
        }
    }

    /// The image it adds to.
    fn base(self) -> Option<Self> {
        match self {
            Self::Python | Self::Busybox | Self::Scratch => None,
            Self::PythonIpykernel | Self::C => Some(Self::Python),
            Self::Cpp | Self::Lua | Self::Php => Some(Self::C),
        }
    }

    /// The language's program, for images that add nothing but labels.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Cpp => Some("/usr/bin/g++"),
            Self::Lua => Some("/usr/bin/lua"),
            Self::Php => Some("/usr/bin/php"),
            _ => None,
        }
    }
}

/// Names what the images are made of.
fn key() -> String {
    let mut hash = Sha256::new();
    hash.update(RECIPE.to_le_bytes());
    hash.update(std::env::consts::ARCH);
    for ingredient in rootfs::ingredients() {
        hash.update(ingredient);
        hash.update("\n");
    }
    for image in Image::ALL {
        hash.update(image.dockerfile());
        hash.update(image.program().unwrap_or_default());
    }
    hex::encode(&hash.finalize()[..6])
}

/// Where the registries of this machine keep the images.
pub(crate) fn store(cache: &Path) -> PathBuf {
    cache.join("images").join(key()).join("registry")
}

/// Makes, pushes and tags what is missing.
///
/// # Errors
/// Docker cannot be reached, or a step fails; the message holds the end of its log.
pub async fn ensure(layout: &Layout, registry: &Server, progress: &Progress) -> Result<()> {
    let host = registry.addr();
    let log = layout.cache.join("images").join(key()).join("build.log");
    let lock_path = layout.cache.join("images").join(format!("{}.lock", key()));
    let mut step = progress.step("kernel images");
    let _lock = lock(&lock_path).await?;
    let mut made = Vec::new();
    for image in Image::ALL {
        let reference = image.reference(&host);
        if in_registry(&host, image).await? {
            if !in_docker(&reference).await? {
                if !in_docker(&image.local()).await? {
                    step.note(&format!("pulling {reference}"));
                    step.run(Command::new("docker").args(["pull", &reference]), &log).await?;
                    run(Command::new("docker").args(["tag", &reference, &image.local()])).await?;
                }
                run(Command::new("docker").args(["tag", &image.local(), &reference])).await?;
            }
            continue;
        }
        if !in_docker(&image.local()).await? {
            build(layout, image, &mut step, &log)
                .await
                .with_context(|| format!("make the {} image", image.name()))?;
        }
        run(Command::new("docker").args(["tag", &image.local(), &reference])).await?;
        step.note(&format!("pushing {}", image.name()));
        step.run(Command::new("docker").args(["push", &reference]), &log).await?;
        made.push(image.name());
    }
    step.done(&if made.is_empty() { "all there".to_owned() } else { made.join(", ") });
    Ok(())
}

/// Takes this stack's tags off the images; the images stay.
///
/// # Errors
/// Docker cannot be reached.
pub async fn untag(registry: &str) -> Result<()> {
    for image in Image::ALL {
        let reference = image.reference(registry);
        if in_docker(&reference).await? && in_docker(&image.local()).await? {
            run(Command::new("docker").args(["rmi", &reference])).await?;
        }
    }
    Ok(())
}

async fn in_registry(host: &str, image: Image) -> Result<bool> {
    let url = format!("http://{host}/v2/stable/{}/manifests/{}", image.name(), image.tag());
    let accept = "application/vnd.docker.distribution.manifest.v2+json";
    let reply = crate::http().head(url).header("Accept", accept).send().await?;
    Ok(reply.status().is_success())
}

async fn in_docker(reference: &str) -> Result<bool> {
    let mut command = Command::new("docker");
    command.args(["image", "inspect", "--format", "{{.Id}}", reference]).stdin(Stdio::null());
    let output = command.output().await.context("start docker")?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success() || error.contains("No such image"),
        "docker image inspect: {error}"
    );
    Ok(output.status.success())
}

async fn build(layout: &Layout, image: Image, step: &mut Step, log: &Path) -> Result<()> {
    let work = layout.cache.join("images").join(key()).join(format!("{}.work", image.name()));
    clear(&work).await?;
    let rootfs = work.join("rootfs");
    std::fs::create_dir_all(&rootfs)?;
    match image {
        Image::Python => rootfs::python(&rootfs, step, log).await?,
        Image::PythonIpykernel => rootfs::ipykernel(layout, &rootfs, step, log).await?,
        Image::Busybox => rootfs::busybox(&rootfs).await?,
        Image::Scratch => rootfs::scratch(&work, &rootfs, step, log).await?,
        Image::C => rootfs::languages(&Image::Python.local(), &work, &rootfs, step, log).await?,
        Image::Cpp | Image::Lua | Image::Php => {}
    }
    step.note(&format!("building {}", image.name()));
    let context = work.join("context");
    std::fs::create_dir_all(&context)?;
    if image.program().is_none() {
        pack(image, &rootfs, &context.join("rootfs.tar")).await?;
    }
    std::fs::write(context.join("Dockerfile"), image.dockerfile())?;
    // The classic builder is everywhere, and puts labels where every registry scanner looks.
    let mut docker = Command::new("docker");
    docker.env("DOCKER_BUILDKIT", "0").args(["build", "-q", "-t", &image.local()]);
    let mut tell = |name: &str, value: &str| {
        docker.args(["--build-arg", &format!("{name}={value}")]);
    };
    if let Some(base) = image.base() {
        tell("BASE", &base.local());
    }
    if let Some(program) = image.program() {
        tell("RUNTIME", image.name());
        tell("PROGRAM", program);
    }
    step.run(docker.arg(&context), log).await?;
    clear(&work).await
}

async fn pack(image: Image, rootfs: &Path, archive: &Path) -> Result<()> {
    // Only root may read some files of a root file system; those of the others are ours.
    let mut tar = if image == Image::Python { as_root("tar") } else { Command::new("tar") };
    tar.arg("-C").arg(rootfs).args(["--sort=name", "--numeric-owner", "--one-file-system"]);
    if image != Image::Python {
        tar.args(["--owner=0", "--group=0", "--mode=u+rwX,go+rX"]);
    }
    run(tar.arg("-cf").arg(archive).arg(".")).await?;
    Ok(())
}

/// Removes a work folder, whose files may be root's.
async fn clear(work: &Path) -> Result<()> {
    if work.exists() && !is_root() {
        run(as_root("rm").arg("-rf").arg(work)).await?;
    }
    remove_dir(work)
}

fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-n").arg(program);
    command
}
