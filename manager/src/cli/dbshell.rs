//! `dbshell`: PostgreSQL's own shell on the manager's database.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use super::Site;

#[derive(Debug, clap::Args)]
pub(super) struct Dbshell {
    /// Run psql in this container; `-` and absent run that of this host.
    #[arg(long, value_name = "ID")]
    psql_container: Option<String>,
    /// Show the help of psql.
    #[arg(long)]
    psql_help: bool,
    /// Arguments for psql.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Becomes psql.
pub(super) fn run(site: &Site, command: &Dbshell) -> Result<()> {
    let config = site.config()?.value.datastore()?;
    let container = command.psql_container.as_deref().filter(|id| *id != "-");
    let mut psql = match container {
        None => Command::new("psql"),
        Some(id) => {
            let mut docker = Command::new("docker");
            // Only the variable's name: its value would be seen in the list of processes.
            docker.args(["exec", "-i", "-t", "-e", "PGPASSWORD", id, "psql"]);
            docker
        }
    };
    psql.env("PGPASSWORD", &config.password);
    if command.psql_help {
        psql.arg("--help");
    } else {
        // In its container the server is at home.
        if container.is_none() {
            psql.args(["-h", &config.host, "-p", &config.port.to_string()]);
        }
        psql.args(["-U", &config.user, "-d", &config.name]).args(&command.arguments);
    }
    let program = psql.get_program().to_string_lossy().into_owned();
    let error = psql.exec();
    Err(error).with_context(|| format!("start {program} (Debian: apt install postgresql-client)"))
}
