//! Kernel images, made on the spot because no registry can be assumed, and served by ours.
//!
//! They are made once for a machine and kept in the registry's store under the cache folder,
//! keyed by a hash of everything they are made of. Docker has them too, tagged for this
//! stack's registry, so that a first session does not wait for a pull.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::client::Venv;
use crate::layout::Layout;
use crate::process::{is_root, lock, run};
use crate::progress::{Progress, Step};
use crate::servers::{Server, remove_dir};

/// Packages of the `python-ipykernel` image, pinned so that the image is the same next year.
const PYPI: [&str; 3] = ["ipykernel==7.4.0", "numpy==2.4.6", "matplotlib==3.11.2"];
/// Interpreter of the python images: that of the Debian release below.
const PYTHON: &str = "3.11";
const DEBIAN: &str = "bookworm";
/// Debian packages beside debootstrap's smallest set.
const PACKAGES: &str = "python3,ca-certificates";
/// What nobody reads in a container: half of the files' size.
const TRIM: [&str; 10] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log",
];
/// Raised when the steps below change in a way the other ingredients do not show.
const RECIPE: u32 = 1;

/// One of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// Debian with python3 alone.
    Python,
    /// The same with ipykernel, numpy and matplotlib.
    PythonIpykernel,
    /// A static busybox.
    Busybox,
    /// One static program and nothing else.
    Scratch,
}

impl Image {
    /// All images; each after those it is made from.
    pub const ALL: [Self; 4] = [Self::Python, Self::PythonIpykernel, Self::Busybox, Self::Scratch];

    /// Its short name, also its alias in the example site.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::PythonIpykernel => "python-ipykernel",
            Self::Busybox => "busybox",
            Self::Scratch => "scratch",
        }
    }

    /// Its tag.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Python | Self::PythonIpykernel => "3.11-debian12",
            Self::Busybox => "1.35",
            Self::Scratch => "1",
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
        }
    }
}

const HELLO: &str = include_str!("../images/scratch/hello.rs");

/// Names what the images are made of.
fn key() -> String {
    let mut hash = Sha256::new();
    hash.update(RECIPE.to_le_bytes());
    hash.update([DEBIAN, PACKAGES, HELLO, std::env::consts::ARCH].join("\n"));
    hash.update(PYPI.join("\n"));
    hash.update(TRIM.join("\n"));
    for image in Image::ALL {
        hash.update(image.dockerfile());
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
        Image::Python => python_rootfs(&rootfs, step, log).await?,
        Image::PythonIpykernel => ipykernel_rootfs(layout, &rootfs, step, log).await?,
        Image::Busybox => busybox_rootfs(&rootfs).await?,
        Image::Scratch => scratch_rootfs(&work, &rootfs, step, log).await?,
    }
    step.note(&format!("building {}", image.name()));
    let context = work.join("context");
    std::fs::create_dir_all(&context)?;
    // Only root may read some files of a root file system; those of the others are ours.
    let mut tar = if image == Image::Python { as_root("tar") } else { Command::new("tar") };
    tar.arg("-C").arg(&rootfs).args(["--sort=name", "--numeric-owner", "--one-file-system"]);
    if image != Image::Python {
        tar.args(["--owner=0", "--group=0", "--mode=u+rwX,go+rX"]);
    }
    run(tar.arg("-cf").arg(context.join("rootfs.tar")).arg(".")).await?;
    std::fs::write(context.join("Dockerfile"), image.dockerfile())?;
    // The classic builder is everywhere, and puts labels where every registry scanner looks.
    let base = format!("BASE={}", Image::Python.local());
    let mut docker = Command::new("docker");
    docker.env("DOCKER_BUILDKIT", "0").args(["build", "-q", "-t", &image.local()]);
    if image == Image::PythonIpykernel {
        docker.args(["--build-arg", &base]);
    }
    step.run(docker.arg(&context), log).await?;
    clear(&work).await
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

async fn python_rootfs(rootfs: &Path, step: &mut Step, log: &Path) -> Result<()> {
    step.note("debootstrap");
    let mut debootstrap = as_root("debootstrap");
    debootstrap.arg("--variant=minbase").arg(format!("--include={PACKAGES}"));
    debootstrap.arg(DEBIAN).arg(rootfs);
    // A mirror near by, where the default one cannot be reached.
    debootstrap.args(std::env::var_os("HALFSTACK_DEBIAN_MIRROR"));
    step.run(&mut debootstrap, log).await.context("debootstrap (needs root and a mirror)")?;
    let mut rm = as_root("rm");
    rm.arg("-rf").args(TRIM.map(|path| rootfs.join(path)));
    run(&mut rm).await?;
    run(as_root("mkdir").arg("-p").arg(rootfs.join("var/log")).arg(rootfs.join("home/work")))
        .await?;
    Ok(())
}

async fn ipykernel_rootfs(
    layout: &Layout,
    rootfs: &Path,
    step: &mut Step,
    log: &Path,
) -> Result<()> {
    let venv = Venv::ensure(layout, &Progress::silent()).await?;
    let site = rootfs.join(format!("usr/local/lib/python{PYTHON}/dist-packages"));
    step.note("pip install");
    let mut pip = Command::new(venv.bin().join("python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-warn-conflicts"]);
    pip.args(["--only-binary=:all:", "--python-version", PYTHON, "--target"]).arg(&site).args(PYPI);
    step.run(&mut pip, log).await?;
    // Jupyter looks here for kernels; the one pip made names the interpreter of our venv.
    let share = rootfs.join("usr/local/share");
    std::fs::create_dir_all(&share)?;
    std::fs::rename(site.join("share/jupyter"), share.join("jupyter"))?;
    let spec = serde_json::json!({
        "argv": ["/usr/bin/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
    });
    let path = share.join("jupyter/kernels/python3/kernel.json");
    std::fs::write(path, serde_json::to_vec_pretty(&spec)?)?;
    run(Command::new("find").arg(&site).args([
        "-type",
        "d",
        "(",
        "-name",
        "tests",
        "-o",
        "-name",
        "sample_data",
        ")",
        "-prune",
        "-exec",
        "rm",
        "-rf",
        "{}",
        "+",
    ]))
    .await?;
    Ok(())
}

async fn busybox_rootfs(rootfs: &Path) -> Result<()> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("busybox-static is not installed: run ./halfstack up")?;
    for dir in ["bin", "etc", "home/work", "root", "usr/bin", "usr/sbin", "sbin", "var"] {
        std::fs::create_dir_all(rootfs.join(dir))?;
    }
    let tmp = rootfs.join("tmp");
    std::fs::create_dir_all(&tmp)?;
    std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o1777))?;
    let target = rootfs.join("bin/busybox");
    std::fs::copy(busybox, &target)?;
    for applet in run(Command::new(busybox).arg("--list")).await?.lines() {
        if applet != "busybox" {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))?;
        }
    }
    std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    std::fs::write(rootfs.join("etc/group"), "root:x:0:\n")?;
    Ok(())
}

async fn scratch_rootfs(work: &Path, rootfs: &Path, step: &mut Step, log: &Path) -> Result<()> {
    let source = work.join("hello.rs");
    std::fs::write(&source, HELLO)?;
    std::fs::create_dir_all(rootfs.join("bin"))?;
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=z"]);
    rustc.args(["-C", "panic=abort", "-C", "strip=symbols", "-o"]).arg(rootfs.join("bin/hello"));
    step.run(rustc.arg(&source), log).await
}
