//! `host-config` of the daemons' command lines.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::check::differences;
use super::files::{Place, files};
use super::{HostSettings, Role};

/// Settings of the host: print them as files, or compare them with this host.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "action", required = true, multiple = false)]
pub struct HostConfigAction {
    /// Print the units, kernel settings, limits, modules, boot parameters and a sample
    /// configuration, each under the name of its file.
    #[arg(long)]
    print: bool,
    /// Compare this host with them and say what differs; exit code 1 if anything does.
    #[arg(long)]
    check: bool,
    /// Write the files below this folder (`/` for this host). Configuration that is there is kept.
    #[arg(long, value_name = "ROOT")]
    write: Option<PathBuf>,
}

/// Options of `host-config`.
#[derive(Clone, Debug, clap::Args)]
pub struct HostConfigCommand {
    #[command(flatten)]
    action: HostConfigAction,
    /// What the host does; what this program is for if absent.
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// Folder of the daemons' programs.
    #[arg(long, default_value = "/usr/local/bin")]
    bin_dir: PathBuf,
}

impl HostConfigCommand {
    /// Runs the command; `own_role` is what the program is for.
    ///
    /// # Errors
    /// The host differs, or a file cannot be written.
    pub fn run(&self, own_role: Role) -> anyhow::Result<()> {
        let host = HostSettings::built_in();
        let role = self.role.unwrap_or(own_role);
        let config = PathBuf::from(&host.paths.config);
        let place = Place { bin: &self.bin_dir, config: &config };
        if self.action.check {
            return report(&host, role);
        }
        for file in files(&host, role, &place) {
            let Some(root) = &self.action.write else {
                println!("### {}\n{}", file.path.display(), file.text);
                continue;
            };
            let path = root.join(file.path.strip_prefix("/").unwrap_or(&file.path));
            if path.exists() && file.path.starts_with(&config) {
                println!("kept {}", path.display());
                continue;
            }
            let written = path
                .parent()
                .map_or(Ok(()), std::fs::create_dir_all)
                .and_then(|()| std::fs::write(&path, &file.text));
            written.with_context(|| format!("write {}", path.display()))?;
            println!("wrote {}", path.display());
        }
        Ok(())
    }
}

fn report(host: &HostSettings, role: Role) -> anyhow::Result<()> {
    let found = differences(host, role, Path::new("/"));
    for difference in &found {
        println!("{}: {}, should be {}", difference.what, difference.found, difference.wanted);
        println!("    {}", difference.remedy);
    }
    if found.is_empty() {
        println!("this host is set as it should be");
        return Ok(());
    }
    bail!("{} settings of this host differ", found.len());
}
