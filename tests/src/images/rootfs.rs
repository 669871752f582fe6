//! The files of the images.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use tokio::process::Command;

use super::as_root;
use crate::client::Venv;
use crate::layout::Layout;
use crate::process::run;
use crate::progress::{Progress, Step};

/// Packages of the `python-ipykernel` image, pinned so that the image is the same next year.
const PYPI: [&str; 4] =
    ["ipykernel==7.4.0", "numpy==2.4.6", "matplotlib==3.11.2", "notebook==7.6.5"];
/// Interpreter of the python images: that of the Debian release below.
const PYTHON: &str = "3.11";
const DEBIAN: &str = "bookworm";
/// Debian packages beside debootstrap's smallest set.
const PACKAGES: &str = "python3,ca-certificates,openssh-client";
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
/// The program of the `scratch` image.
const HELLO: &str = include_str!("../../images/scratch/hello.rs");
/// Debian packages of the images for other languages, beside those of the python image.
const LANGUAGES: &str = "g++,make,lua5.4,php-cli";
/// Of these packages, what nobody uses: for optimising while linking, and for sanitizers.
const UNUSED: [&str; 3] = ["lto1", "*lto-dump*", "lib[altu]*san*"];
/// Names that installing the packages would give.
const NAMES: [(&str, &str); 4] =
    [("cc", "gcc"), ("c++", "g++"), ("lua", "lua5.4"), ("php", "php8.2")];
/// Folders that are links to those of the same name in `usr`.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Names what the files depend on.
pub fn ingredients() -> impl Iterator<Item = &'static str> {
    let lists = PYPI.into_iter().chain(TRIM).chain(UNUSED);
    [DEBIAN, PACKAGES, HELLO, LANGUAGES].into_iter().chain(lists)
}

pub async fn python(rootfs: &Path, step: &mut Step, log: &Path) -> Result<()> {
    step.note("debootstrap");
    let mut debootstrap = as_root("debootstrap");
    debootstrap.arg("--variant=minbase").arg(format!("--include={PACKAGES}"));
    debootstrap.arg(DEBIAN).arg(rootfs).args(mirror());
    step.run(&mut debootstrap, log).await.context("debootstrap (needs root and a mirror)")?;
    let mut rm = as_root("rm");
    rm.arg("-rf").args(TRIM.map(|path| rootfs.join(path)));
    run(&mut rm).await?;
    run(as_root("mkdir").arg("-p").arg(rootfs.join("var/log")).arg(rootfs.join("home/work")))
        .await?;
    Ok(())
}

pub async fn ipykernel(layout: &Layout, rootfs: &Path, step: &mut Step, log: &Path) -> Result<()> {
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
    let etc = rootfs.join("usr/local/etc");
    std::fs::create_dir_all(&etc)?;
    std::fs::rename(site.join("etc/jupyter"), etc.join("jupyter"))?;
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

pub async fn busybox(rootfs: &Path) -> Result<()> {
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

pub async fn scratch(work: &Path, rootfs: &Path, step: &mut Step, log: &Path) -> Result<()> {
    let source = work.join("hello.rs");
    std::fs::write(&source, HELLO)?;
    std::fs::create_dir_all(rootfs.join("bin"))?;
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=z"]);
    rustc.args(["-C", "panic=abort", "-C", "strip=symbols", "-o"]).arg(rootfs.join("bin/hello"));
    step.run(rustc.arg(&source), log).await
}

/// A mirror near by, where the default one cannot be reached.
fn mirror() -> Option<std::ffi::OsString> {
    std::env::var_os("HALFSTACK_DEBIAN_MIRROR")
}

/// What the packages of [`LANGUAGES`] add to the image `base`. They are unpacked and not
/// installed, which takes a fraction of the time.
pub async fn languages(
    base: &str,
    work: &Path,
    rootfs: &Path,
    step: &mut Step,
    log: &Path,
) -> Result<()> {
    step.note("downloading compilers");
    let download = work.join("download");
    let mut debootstrap = as_root("debootstrap");
    debootstrap.args(["--download-only", "--variant=minbase"]);
    debootstrap.arg(format!("--include={PACKAGES},{LANGUAGES}"));
    debootstrap.arg(DEBIAN).arg(&download).args(mirror());
    step.run(&mut debootstrap, log).await.context("debootstrap (needs root and a mirror)")?;
    let mut query = Command::new("docker");
    query.args(["run", "--rm", "--entrypoint", "dpkg-query", base, "-W", "-f", "${Package}\n"]);
    let present = run(&mut query).await?;
    step.note("unpacking compilers");
    for entry in std::fs::read_dir(download.join("var/cache/apt/archives"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let package = name.split('_').next().unwrap_or_default();
        if name.ends_with(".deb") && !present.lines().any(|line| line == package) {
            run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(rootfs)).await?;
        }
    }
    for folder in MERGED.map(|name| rootfs.join(name)).iter().filter(|folder| folder.exists()) {
        let target = rootfs.join("usr");
        run(Command::new("cp").args(["-a", "--target-directory"]).arg(target).arg(folder)).await?;
        std::fs::remove_dir_all(folder)?;
    }
    run(Command::new("rm").arg("-rf").args(TRIM.map(|path| rootfs.join(path)))).await?;
    let mut find = Command::new("find");
    find.arg(rootfs).args(["(", "-name", UNUSED[0]]);
    find.args(UNUSED[1..].iter().flat_map(|name| ["-o", "-name", name])).args([")", "-delete"]);
    run(&mut find).await?;
    for (name, program) in NAMES {
        std::os::unix::fs::symlink(program, rootfs.join("usr/bin").join(name))?;
    }
    Ok(())
}
