//! `demo`: the whole system, seen to work.

use std::time::Duration;

use anyhow::{Context, Result};

use backendai_tests::client::Venv;
use backendai_tests::progress::{Progress, say};
use backendai_tests::stack::Stack;
use backendai_tests::{Identities, Layout, StockClient};

/// Prints what only a program in a container of the wanted kind can know.
const PROGRAM: &str = r#"
import os, platform, sys
print("Hello from Python", platform.python_version(), "in a container")
print("  host name ", platform.node())
print("  session   ", os.environ.get("BACKENDAI_SESSION_ID", "?"))
print("  directory ", os.getcwd(), "as uid", os.getuid())
print("  sum of the first million numbers:", sum(range(1_000_001)))
"#;
/// The first run may have to pull the image.
const LIMIT: Duration = Duration::from_secs(300);

pub async fn run(layout: &Layout, keep: bool) -> Result<()> {
    let progress = Progress::shown();
    let ran_before = match Stack::find(layout)? {
        Some(mut stack) => stack.parts()?.iter().all(|part| part.pid.is_some()),
        None => false,
    };
    let mut stack = Stack::find_or_plan(layout)?;
    let result = show(layout, &mut stack, &progress).await;
    if keep || ran_before {
        say("The cluster goes on running; ./halfstack down ends it.");
    } else {
        // The demonstration's own failure is the one to report.
        let down = stack.down(false, &progress).await;
        if result.is_ok() {
            down?;
        }
    }
    result
}

async fn show(layout: &Layout, stack: &mut Stack, progress: &Progress) -> Result<()> {
    stack.up(progress).await?;
    let identities = Identities::load(layout)?;
    let venv = Venv::ensure(layout, progress).await?;
    let client = StockClient::new(&venv, &stack.plan.endpoint(), &identities.user1)?;
    let args = ["run", "--rm", "-c", PROGRAM, "python"];
    say("\n$ backend.ai run --rm -c \"…\" python");
    let output = client.run_with(&args, "", LIMIT).await.context("run the stock client")?;
    print!("{}", output.stdout);
    eprint!("{}", output.stderr);
    anyhow::ensure!(
        output.code == Some(0) && output.stdout.contains("500000500000"),
        "the program did not run: `backend.ai run` ended with {:?}",
        output.code
    );
    Ok(())
}
