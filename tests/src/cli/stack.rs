//! `up`, `down`, `status`, `logs`, `env`.

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use tokio::process::Command;

use backendai_tests::Layout;
use backendai_tests::cluster::Shared;
use backendai_tests::process::lock;
use backendai_tests::progress::{Progress, say};
use backendai_tests::stack::Stack;

/// Two `up` at once would start everything twice.
async fn exclusive(layout: &Layout) -> Result<std::fs::File> {
    std::fs::create_dir_all(&layout.state)?;
    lock(&layout.state.join("lock")).await
}

/// Starts what does not run.
pub async fn up(layout: &Layout) -> Result<()> {
    let _lock = exclusive(layout).await?;
    let mut stack = Stack::find_or_plan(layout)?;
    stack.up(&Progress::shown()).await?;
    say(&format!("\nThe API is at {}. In your shell, for the client:", stack.plan.endpoint()));
    println!("eval \"$(./halfstack env)\"");
    Ok(())
}

/// Stops everything of this clone.
pub async fn down(layout: &Layout, wipe: bool) -> Result<()> {
    let _lock = exclusive(layout).await?;
    Shared::end(layout).await?;
    match Stack::find(layout)? {
        Some(mut stack) => stack.down(wipe, &Progress::shown()).await,
        None => {
            say("nothing was started");
            Ok(())
        }
    }
}

/// Prints what runs; fails when something does not, for scripts.
pub fn status(layout: &Layout) -> Result<()> {
    let mut stack = existing(layout)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["PART", "PID", "ADDRESS", "LOG"]);
    let mut dead = Vec::new();
    for part in stack.parts()? {
        let pid = part.pid.map_or("-".to_owned(), |pid| pid.to_string());
        if part.pid.is_none() {
            dead.push(part.name.clone());
        }
        table.add_row([part.name, pid, part.addr, part.log.display().to_string()]);
    }
    println!("{table}");
    anyhow::ensure!(dead.is_empty(), "not running: {}", dead.join(", "));
    Ok(())
}

/// Shows the end of logs.
pub async fn logs(layout: &Layout, parts: &[String], follow: bool) -> Result<()> {
    let mut stack = existing(layout)?;
    let all = stack.parts()?;
    let names: Vec<&str> = all.iter().map(|part| part.name.as_str()).collect();
    for wanted in parts {
        // An agent's id is long; its beginning will do.
        anyhow::ensure!(
            names.iter().any(|name| matches(name, wanted)),
            "no part is called {wanted}: there are {}",
            names.join(", ")
        );
    }
    let files = all
        .iter()
        .filter(|part| parts.is_empty() || parts.iter().any(|wanted| matches(&part.name, wanted)))
        .map(|part| &part.log)
        .filter(|log| log.exists());
    let mut tail = Command::new("tail");
    tail.args(["-n", if parts.is_empty() { "20" } else { "1000" }]);
    if follow {
        tail.arg("-F");
    }
    let status = tail.args(files).status().await.context("start tail")?;
    anyhow::ensure!(status.success(), "tail failed ({status})");
    Ok(())
}

fn matches(name: &str, wanted: &str) -> bool {
    name == wanted || (wanted == "agent" && name.starts_with("i-"))
}

/// Prints shell exports.
pub async fn env(layout: &Layout) -> Result<()> {
    let stack = existing(layout)?;
    for (name, value) in stack.environment().await? {
        println!("export {name}='{}'", value.replace('\'', r"'\''"));
    }
    Ok(())
}

fn existing(layout: &Layout) -> Result<Stack> {
    Stack::find(layout)?.context("nothing was started yet: run ./halfstack up")
}
