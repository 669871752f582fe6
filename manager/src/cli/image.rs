//! `image`: registries and the images users may run.

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use backendai_datastore::Datastore;
use backendai_datastore::image::ImageRow;

use super::Site;
use super::output::{OutputFormat, print_json, print_table, progress_bar, say};
use crate::app::image::{manage, resolve, scan};
use crate::shared_config::SharedConfig;

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// Read registries and record the images they have.
    Rescan {
        /// A registry, or an image with or without a tag; every registry if absent.
        registry_or_image: Option<String>,
        /// Read the images of this host's container engine instead.
        #[arg(long)]
        local: bool,
    },
    /// List the images.
    List {
        /// Print a table of names and digests.
        #[arg(short, long)]
        short: bool,
        /// Print only those an agent has, with the agents.
        #[arg(short, long)]
        installed: bool,
    },
    /// Print everything about an image.
    Inspect(ImageName),
    /// Give an image another name.
    Alias {
        /// The new name.
        alias: String,
        #[command(flatten)]
        target: ImageName,
    },
    /// Remove an alias.
    Dealias {
        /// The alias.
        alias: String,
    },
    /// Forget an image; the registry keeps it.
    Forget(ImageName),
    /// Set how much of a resource kernels of an image may have.
    SetResourceLimit(ResourceLimit),
}

/// The same below `etcd`, as older manuals have it.
#[derive(Debug, Subcommand)]
pub(super) enum DeprecatedImageCommand {
    /// Deprecated: `image list`.
    #[command(hide = true)]
    ListImages {
        /// Print a table of names and digests.
        #[arg(short, long)]
        short: bool,
        /// Print only those an agent has, with the agents.
        #[arg(short, long)]
        installed: bool,
    },
    /// Deprecated: `image inspect`.
    #[command(hide = true)]
    InspectImage(ImageName),
    /// Deprecated: `image forget`.
    #[command(hide = true)]
    ForgetImage(ImageName),
    /// Deprecated: `image set-resource-limit`.
    #[command(hide = true)]
    SetImageResourceLimit(ResourceLimit),
    /// Deprecated: `image rescan`.
    #[command(hide = true)]
    RescanImages {
        /// A registry or an image; every registry if absent.
        registry_or_image: Option<String>,
    },
    /// Deprecated: `image alias`.
    #[command(hide = true)]
    Alias {
        /// The new name.
        alias: String,
        #[command(flatten)]
        target: ImageName,
    },
    /// Deprecated: `image dealias`.
    #[command(hide = true)]
    Dealias {
        /// The alias.
        alias: String,
    },
}

impl From<DeprecatedImageCommand> for ImageCommand {
    fn from(command: DeprecatedImageCommand) -> Self {
        use DeprecatedImageCommand as Old;
        match command {
            Old::ListImages { short, installed } => Self::List { short, installed },
            Old::InspectImage(image) => Self::Inspect(image),
            Old::ForgetImage(image) => Self::Forget(image),
            Old::SetImageResourceLimit(limit) => Self::SetResourceLimit(limit),
            Old::RescanImages { registry_or_image } => {
                Self::Rescan { registry_or_image, local: false }
            }
            Old::Alias { alias, target } => Self::Alias { alias, target },
            Old::Dealias { alias } => Self::Dealias { alias },
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ResourceLimit {
    /// Canonical name or alias.
    image: String,
    /// Resource slot: cpu, mem, cuda.shares…
    slot: String,
    /// MIN:MAX; either side may be empty.
    range: String,
    /// Architecture.
    #[arg(default_value = DEFAULT_ARCHITECTURE)]
    architecture: String,
}

/// What an image of no stated architecture is.
const DEFAULT_ARCHITECTURE: &str = "x86_64";

#[derive(Debug, Args)]
pub(super) struct ImageName {
    /// Canonical name or alias.
    image: String,
    /// Architecture.
    #[arg(default_value = DEFAULT_ARCHITECTURE)]
    architecture: String,
}

impl ImageName {
    async fn find(&self, site: &Site, datastore: &Datastore) -> Result<ImageRow> {
        find(site, datastore, &self.image, &self.architecture).await
    }
}

async fn find(site: &Site, datastore: &Datastore, image: &str, arch: &str) -> Result<ImageRow> {
    let known = SharedConfig::new(site.etcd().await?).registry_names().await?;
    let found = resolve::find(datastore, &known, image, arch, |_| true).await;
    found.context("see `image list`; `image rescan` reads the registries anew")
}

pub(super) async fn run(site: &Site, command: ImageCommand) -> Result<()> {
    let datastore = site.current_datastore().await?;
    match command {
        ImageCommand::Rescan { registry_or_image, local } => {
            rescan(site, &datastore, registry_or_image.as_deref(), local).await
        }
        ImageCommand::List { short, installed } => list(site, &datastore, short, installed).await,
        ImageCommand::Inspect(image) => {
            let row = image.find(site, &datastore).await?;
            print_json(&manage::inspect(&datastore, &row).await?)
        }
        ImageCommand::Alias { alias, target } => {
            let row = target.find(site, &datastore).await?;
            manage::alias(&datastore, &alias, &row).await?;
            say(format_args!("{alias} -> {} ({})", row.name, row.architecture));
            Ok(())
        }
        ImageCommand::Dealias { alias } => Ok(manage::dealias(&datastore, &alias).await?),
        ImageCommand::Forget(image) => {
            let row = image.find(site, &datastore).await?;
            manage::forget(&datastore, &row).await?;
            say(format_args!("Forgot {} ({})", row.name, row.architecture));
            Ok(())
        }
        ImageCommand::SetResourceLimit(ResourceLimit { image, slot, range, architecture }) => {
            let row = find(site, &datastore, &image, &architecture).await?;
            let range = manage::set_resource_limit(&datastore, &row, &slot, &range).await?;
            let max = range.max.map_or("unlimited".to_owned(), |max| max.to_string());
            say(format_args!("{} {slot}: at least {}, at most {max}", row.name, range.min));
            Ok(())
        }
    }
}

async fn rescan(
    site: &Site,
    datastore: &Datastore,
    target: Option<&str>,
    local: bool,
) -> Result<()> {
    let shared = SharedConfig::new(site.etcd().await?);
    let (registries, target) = match local {
        true => scan::local_engine(target),
        false => {
            let registries = shared.registries().await?;
            let target = scan::Target::parse(target, &registries)?;
            (registries, target)
        }
    };
    let bar = progress_bar("{bar:30} {pos}/{len} {wide_msg}")?;
    let report = scan::scan(datastore, &registries, &target, |step| {
        bar.set_length(step.total as u64);
        bar.set_position(step.done as u64);
        bar.set_message(step.message);
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    if site.output == OutputFormat::Json {
        let pairs = |list: &[(String, String)], what: &str| -> Value {
            list.iter().map(|(name, why)| json!({what: name, "reason": why})).collect()
        };
        print_json(&json!({
            "added": report.added,
            "changed": report.changed,
            "same": report.same,
            "skipped": pairs(&report.skipped, "image"),
            "failed": pairs(&report.failed, "registry"),
        }))?;
    } else {
        for (image, reason) in &report.skipped {
            say(format_args!("Skipped {image} ({reason})"));
        }
        say(format_args!(
            "{} images: {} added, {} changed, {} as they were; {} skipped.",
            report.found(),
            report.added,
            report.changed,
            report.same,
            report.skipped.len()
        ));
    }
    if !report.failed.is_empty() {
        let failed = report.failed.iter().map(|(name, why)| format!("registry {name}: {why}"));
        bail!("{}", failed.collect::<Vec<_>>().join("\n"));
    }
    let single = matches!(target, scan::Target::Tag(_));
    ensure!(!single || report.found() > 0, "the image cannot be used");
    Ok(())
}

async fn list(site: &Site, datastore: &Datastore, short: bool, installed: bool) -> Result<()> {
    let tx = datastore.autocommit().await?;
    let holders = tx.image_holders().await?;
    let agents = |row: &ImageRow| holders.get(&row.name).cloned().unwrap_or_default();
    let mut rows = tx.images().await?;
    if installed {
        rows.retain(|row| holders.contains_key(&row.name));
    }
    if site.output == OutputFormat::Json {
        let images: Value = rows
            .iter()
            .map(|row| {
                json!({
                    "canonical_ref": row.name,
                    "architecture": row.architecture,
                    "digest": row.config_digest,
                    "size_bytes": row.size_bytes,
                    "installed_agents": agents(row),
                })
            })
            .collect();
        return print_json(&images);
    }
    if short {
        let rows = rows.into_iter().map(|row| vec![row.name, row.architecture, row.config_digest]);
        print_table(&["image", "architecture", "digest"], rows);
    } else if installed {
        let rows = rows.into_iter().map(|row| {
            let agents = agents(&row).join(", ");
            vec![row.name, row.architecture, agents]
        });
        print_table(&["image", "architecture", "agents"], rows);
    } else {
        for row in rows {
            say(format_args!("{} ({})", row.name, row.architecture));
        }
    }
    Ok(())
}
