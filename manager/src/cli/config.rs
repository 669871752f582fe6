//! `config`: the configuration file.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::json;

use super::Site;
use super::output::{OutputFormat, print_json, print_table, say};
use crate::config::{SCHEMA, load};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every value and where it comes from.
    Show,
    /// Check a file for unknown keys, wrong types and contradictions.
    Check {
        /// The file; the one the manager would use if absent.
        file: Option<PathBuf>,
    },
}

pub(super) fn run(site: &Site, command: ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Show => {
            let shown = site.config()?.show();
            if site.output == OutputFormat::Json {
                return print_json(&serde_json::to_value(shown)?);
            }
            let rows = shown.into_iter().map(|line| vec![line.key, line.value, line.origin]);
            print_table(&["key", "value", "from"], rows);
            Ok(())
        }
        ConfigCommand::Check { file } => {
            let loaded = load(file.as_deref().or(site.common.config.as_deref()))?;
            let Some(file) = &loaded.file else {
                let places: Vec<_> =
                    SCHEMA.search_path().iter().map(|path| path.display().to_string()).collect();
                bail!("there is no configuration file to check; looked for {}", places.join(", "));
            };
            if site.output == OutputFormat::Json {
                return print_json(&json!({"file": file, "ok": true, "ignored": loaded.ignored}));
            }
            for key in &loaded.ignored {
                say(format_args!("{key} has no meaning here and is ignored"));
            }
            say(format_args!("{}: ok", file.display()));
            Ok(())
        }
    }
}
