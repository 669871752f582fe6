//! `fixture`: rows from files.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;

use super::Site;
use super::output::say;

#[derive(Debug, Subcommand)]
pub(super) enum FixtureCommand {
    /// Load rows. Rows that exist already are left as they are.
    Populate {
        /// JSON files, loaded in this order.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

pub(super) async fn run(site: &Site, command: FixtureCommand) -> Result<()> {
    let FixtureCommand::Populate { files } = command;
    let datastore = site.current_datastore().await?;
    for file in &files {
        let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        say(format_args!("Populating fixture '{}' ...", file.display()));
        let report = datastore
            .populate(&text)
            .await
            .with_context(|| format!("populate {}", file.display()))?;
        for (table, counts) in &report.tables {
            say(format_args!("  {table}: {} of {} rows", counts.written, counts.given));
        }
        if report.tables.iter().any(|(_, counts)| counts.written < counts.given) {
            say(format_args!("Some rows were skipped, as they exist already."));
        }
        say(format_args!("Done"));
    }
    Ok(())
}
