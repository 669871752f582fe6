//! `test`: everything CI checks, in one command.

use anyhow::{Context, Result};
use tokio::process::Command;

use backendai_tests::Layout;
use backendai_tests::cluster::{PREPARED, Shared};
use backendai_tests::daemon::kernel_runner;
use backendai_tests::process::find_program;
use backendai_tests::progress::{Progress, say};

pub async fn run(layout: &Layout, nextest: &[String]) -> Result<()> {
    anyhow::ensure!(
        find_program(&["cargo-nextest"], &[]).is_some(),
        "cargo-nextest is not installed: run `cargo install --locked cargo-nextest`"
    );
    // What an earlier, killed run left would be in the way of its successor.
    Shared::end(layout).await?;
    let tested = async {
        // Images are fetched and packed, which leaves most of the processors to the compiler.
        let (checked, prepared) = tokio::join!(check(layout, nextest), prepare(layout));
        checked?;
        run_tests(layout, nextest, &prepared?).await
    };
    let tested = tested.await;
    let ended = Shared::end(layout).await.context("clean up after the tests");
    tested.and(ended)
}

/// Everything that needs no server, and the build.
async fn check(layout: &Layout, nextest: &[String]) -> Result<()> {
    if nextest.is_empty() {
        cargo(layout, &["fmt", "--all", "--check"]).await?;
        let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        cargo(layout, &clippy).await?;
        // It installs Nix and the linters, for which a test would be the wrong place.
        say("$ nix/check.sh");
        finish(layout, &mut Command::new(layout.root.join("nix/check.sh"))).await?;
        if find_program(&["cargo-deny"], &[]).is_some() {
            cargo(layout, &["deny", "--all-features", "check"]).await?;
        } else {
            say(
                "! cargo-deny is not installed: licences and banned crates (deny.toml) go unchecked",
            );
        }
    }
    cargo(layout, &["build", "--workspace", "--all-targets"]).await
}

/// Servers, client and images: minutes the first time, which a test has not.
async fn prepare(layout: &Layout) -> Result<Shared> {
    let shared = Shared::prepare(layout, &Progress::shown()).await?;
    backendai_tests::systemd::ensure_image(layout).await?;
    Ok(shared)
}

async fn run_tests(layout: &Layout, nextest: &[String], shared: &Shared) -> Result<()> {
    let runner = kernel_runner(layout).await?;
    let mut command = Command::new("cargo");
    command.args(["nextest", "run", "--workspace"]).args(nextest);
    command.env("HALFSTACK_KERNEL_RUNNER", runner).env(PREPARED, shared.id());
    finish(layout, &mut command).await?;
    if nextest.is_empty() {
        cargo(layout, &["test", "--workspace", "--doc", "--quiet"]).await?;
    }
    Ok(())
}

async fn cargo(layout: &Layout, args: &[&str]) -> Result<()> {
    say(&format!("$ cargo {}", args.join(" ")));
    finish(layout, Command::new("cargo").args(args)).await
}

async fn finish(layout: &Layout, command: &mut Command) -> Result<()> {
    let words = format!("{:?}", command.as_std());
    let command = command.current_dir(&layout.root).env("HALFSTACK_ROOT", &layout.root);
    let status = command.kill_on_drop(true).status().await.with_context(|| words.clone())?;
    anyhow::ensure!(status.success(), "{words} failed ({status})");
    Ok(())
}
