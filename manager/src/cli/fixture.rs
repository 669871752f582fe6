//! `fixture`: rows from files.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::Site;
use super::output::{OutputFormat, print_json, say};

#[derive(Debug, Subcommand)]
pub(super) enum FixtureCommand {
    /// Load rows. Rows that exist already are left as they are.
    Populate {
        /// JSON files, loaded in this order.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Deprecated: fixtures are files, see sample-configs.
    #[command(hide = true)]
    List,
}

pub(super) async fn run(site: &Site, command: FixtureCommand) -> Result<()> {
    let FixtureCommand::Populate { files } = command else {
        eprintln!("warning: `fixture list` is deprecated: fixtures are files");
        return Ok(());
    };
    let datastore = site.current_datastore().await?;
    let is_json = site.output == OutputFormat::Json;
    let mut reports = Map::new();
    for file in &files {
        let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        if !is_json {
            say(format_args!("Populating fixture '{}' ...", file.display()));
        }
        let report = datastore
            .populate(&text)
            .await
            .with_context(|| format!("populate {}", file.display()))?;
        if is_json {
            let tables: Map<String, Value> = report
                .tables
                .iter()
                .map(|(table, counts)| {
                    (table.clone(), json!({ "given": counts.given, "written": counts.written }))
                })
                .collect();
            reports.insert(file.display().to_string(), tables.into());
            continue;
        }
        for (table, counts) in &report.tables {
            say(format_args!("  {table}: {} of {} rows", counts.written, counts.given));
        }
        if report.tables.iter().any(|(_, counts)| counts.written < counts.given) {
            say(format_args!("Some rows were skipped, as they exist already."));
        }
        say(format_args!("Done"));
    }
    if is_json {
        return print_json(&reports.into());
    }
    Ok(())
}
