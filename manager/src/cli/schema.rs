//! `schema`: the database's tables.

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::json;

use super::Site;
use super::output::{OutputFormat, print_json, say};

#[derive(Debug, Subcommand)]
pub(super) enum SchemaCommand {
    /// Create the tables, or upgrade them to what this program needs. Harmless when done.
    Oneshot(Ignored),
    /// Print the versions of the database and of this program.
    Show(Ignored),
}

/// What older manuals give and this program does not need.
#[derive(Debug, clap::Args)]
pub(super) struct Ignored {
    /// Ignored: the migrations are in this program.
    #[arg(long, value_name = "PATH", hide = true)]
    alembic_config: Option<std::path::PathBuf>,
}

pub(super) async fn run(site: &Site, command: SchemaCommand) -> Result<()> {
    let datastore = site.datastore()?;
    match command {
        SchemaCommand::Oneshot(_) => {
            let applied = datastore.migrate().await.with_context(|| site.database_place())?;
            if site.output == OutputFormat::Json {
                return print_json(&json!({ "applied": applied }));
            }
            for migration in &applied {
                say(format_args!("Applied {migration}"));
            }
            if applied.is_empty() {
                say(format_args!("The schema is up to date."));
            }
            Ok(())
        }
        SchemaCommand::Show(_) => {
            let version =
                datastore.schema_version().await.with_context(|| site.database_place())?;
            let name = |(number, name): &(i32, String)| format!("V{number}__{name}");
            let current = version.current.as_ref().map(name);
            let head = name(&version.head);
            if site.output == OutputFormat::Json {
                return print_json(&json!({"current": current, "head": head}));
            }
            let current = current.unwrap_or_else(|| "none (empty)".into());
            say(format_args!("Current database revision: {current}"));
            say(format_args!("The head revision of available migrations: {head}"));
            Ok(())
        }
    }
}
