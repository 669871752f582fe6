//! `etcd`: the cluster's shared configuration.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use etcd_client::{Txn, TxnOp};
use serde_json::{Value, json};

use backendai_service::etcd::{Etcd, quote, unquote};

use super::Site;
use super::image::{self, DeprecatedImageCommand};
use super::output::{OutputFormat, print_json, say};
use crate::app::config_key::{clean, delete_subtree, flatten, tree};

/// Most operations etcd takes in one transaction unless configured otherwise.
const MAX_TXN_OPS: usize = 128;

#[derive(Debug, Subcommand)]
pub(super) enum EtcdCommand {
    /// Write one value.
    Put {
        /// Key, such as config/redis/addr.
        key: String,
        /// Value.
        value: String,
        #[command(flatten)]
        scope: ScopeOptions,
    },
    /// Write a tree of values below a key.
    PutJson {
        /// Key of the tree's root.
        key: String,
        /// File with a JSON object; `-` reads standard input. Names are quoted where they
        /// need it; the name "" is the key itself.
        file: PathBuf,
        #[command(flatten)]
        scope: ScopeOptions,
    },
    /// Print a value.
    Get {
        /// Key.
        key: String,
        /// Print everything below the key as JSON.
        #[arg(long)]
        prefix: bool,
        #[command(flatten)]
        scope: ScopeOptions,
    },
    /// Delete a value.
    Delete {
        /// Key.
        key: String,
        /// Delete everything below the key too.
        #[arg(long)]
        prefix: bool,
        #[command(flatten)]
        scope: ScopeOptions,
    },
    /// Move everything at and below a key to another key.
    MoveSubtree {
        /// The key now.
        src: String,
        /// The key then.
        dst: String,
        #[command(flatten)]
        scope: ScopeOptions,
    },
    /// Percent-encode a text, to be one component of a key.
    Quote {
        /// The text.
        value: String,
    },
    /// The reverse of quote.
    Unquote {
        /// The component.
        value: String,
    },
    /// Set the scaling groups of a storage's sftp sessions.
    SetStorageSftpScalingGroup {
        /// Name of the storage proxy.
        proxy: String,
        /// Names with commas between them.
        scaling_groups: String,
        #[command(flatten)]
        scope: ScopeOptions,
    },
    /// Remove the scaling groups of a storage's sftp sessions.
    RemoveStorageSftpScalingGroup {
        /// Name of the storage proxy.
        proxy: String,
        #[command(flatten)]
        scope: ScopeOptions,
    },
    /// Commands that are `image …` now.
    #[command(flatten)]
    Image(DeprecatedImageCommand),
}

/// Whose configuration is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Scope {
    /// What an agent sees: its own values before its scaling group's before everyone's. Only for reading.
    Merged,
    /// Everyone's.
    #[default]
    Global,
    /// A scaling group's.
    Sgroup,
    /// An agent's.
    Node,
}

#[derive(Debug, Args)]
pub(super) struct ScopeOptions {
    /// Whose configuration is meant.
    #[arg(short, long, value_enum, default_value_t, ignore_case = true)]
    scope: Scope,
    /// The scaling group of the scopes SGROUP and MERGED.
    #[arg(long, value_name = "NAME")]
    sgroup: Option<String>,
    /// The agent of the scopes NODE and MERGED.
    #[arg(long, value_name = "AGENT_ID")]
    node: Option<String>,
}

impl ScopeOptions {
    /// Prefixes to look at, the most specific first.
    fn prefixes(&self) -> Result<Vec<String>> {
        let sgroup = self.sgroup.as_ref().map(|name| format!("sgroup/{}/", quote(name)));
        let node = self.node.as_ref().map(|id| format!("nodes/agents/{}/", quote(id)));
        Ok(match self.scope {
            Scope::Merged => node.into_iter().chain(sgroup).chain([String::new()]).collect(),
            Scope::Global => vec![String::new()],
            Scope::Sgroup => {
                vec![sgroup.context("the scope SGROUP needs a name: add --sgroup NAME")?]
            }
            Scope::Node => vec![node.context("the scope NODE needs a name: add --node AGENT_ID")?],
        })
    }

    /// The one prefix to write to.
    fn prefix(&self) -> Result<String> {
        ensure!(
            self.scope != Scope::Merged,
            "the scope MERGED is only for reading: choose GLOBAL, SGROUP or NODE"
        );
        Ok(self.prefixes()?.remove(0))
    }

    /// The full key to write to.
    fn key(&self, key: &str) -> Result<String> {
        Ok(format!("{}{}", self.prefix()?, clean(key)))
    }
}

pub(super) async fn run(site: &Site, command: EtcdCommand) -> Result<()> {
    match command {
        EtcdCommand::Put { key, value, scope } => {
            let key = scope.key(&key)?;
            ensure!(!key.is_empty(), "the key is empty");
            Ok(site.etcd().await?.put(&key, &value).await?)
        }
        EtcdCommand::PutJson { key, file, scope } => {
            let pairs = flatten(&scope.key(&key)?, &read_json(&file)?).map_err(Error::msg)?;
            let etcd = site.etcd().await?;
            for chunk in pairs.chunks(MAX_TXN_OPS) {
                etcd.put_all(chunk).await?;
            }
            Ok(())
        }
        EtcdCommand::Get { key, prefix: false, scope } => {
            let etcd = site.etcd().await?;
            for prefix in scope.prefixes()? {
                if let Some(value) = etcd.get(&format!("{prefix}{}", clean(&key))).await? {
                    match site.output {
                        OutputFormat::Console => say(format_args!("{value}")),
                        OutputFormat::Json => print_json(&Value::from(value))?,
                    }
                    return Ok(());
                }
            }
            bail!("there is no key {key:?}; see `etcd get --prefix` for what there is")
        }
        EtcdCommand::Get { key, prefix: true, scope } => {
            let etcd = site.etcd().await?;
            let mut merged = json!({});
            for prefix in scope.prefixes()? {
                let tree = tree(etcd.get_tree(&format!("{prefix}{}", clean(&key))).await?);
                // Names of a more specific scope hide those of a less specific one whole.
                for (name, value) in tree.as_object().into_iter().flatten() {
                    if merged.get(name).is_none() {
                        merged[name] = value.clone();
                    }
                }
            }
            print_json(&merged)
        }
        EtcdCommand::Delete { key, prefix: false, scope } => {
            if site.etcd().await?.delete(&scope.key(&key)?).await? {
                say(format_args!("Key '{key}' successfully deleted."));
                return Ok(());
            }
            bail!("No key found to delete: '{key}'")
        }
        EtcdCommand::Delete { key, prefix: true, scope } => {
            ensure!(!clean(&key).is_empty(), "the key is empty: this would delete everything");
            let etcd = site.etcd().await?;
            let operations = delete_subtree(&etcd, &scope.key(&key)?);
            etcd.transact(Txn::new().and_then(operations)).await?;
            say(format_args!("All keys starting with '{key}' successfully deleted."));
            Ok(())
        }
        EtcdCommand::MoveSubtree { src, dst, scope } => {
            let (src, dst) = (scope.key(&src)?, scope.key(&dst)?);
            move_subtree(&site.etcd().await?, &src, &dst).await
        }
        EtcdCommand::Quote { value } => {
            say(format_args!("{}", quote(&value)));
            Ok(())
        }
        EtcdCommand::Unquote { value } => {
            say(format_args!("{}", unquote(&value)));
            Ok(())
        }
        EtcdCommand::SetStorageSftpScalingGroup { proxy, scaling_groups, scope } => {
            let etcd = site.etcd().await?;
            let key = sftp_key(&etcd, &proxy, &scope).await?;
            let names: Vec<&str> =
                scaling_groups.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
            ensure!(!names.is_empty(), "no scaling group is named");
            Ok(etcd.put(&key, &names.join(",")).await?)
        }
        EtcdCommand::RemoveStorageSftpScalingGroup { proxy, scope } => {
            let etcd = site.etcd().await?;
            let key = sftp_key(&etcd, &proxy, &scope).await?;
            ensure!(etcd.delete(&key).await?, "the storage {proxy:?} has no sftp scaling groups");
            Ok(())
        }
        EtcdCommand::Image(command) => {
            eprintln!("warning: images have commands of their own, see `image --help`");
            image::run(site, command.into()).await
        }
    }
}

/// Key of the scaling groups of a storage's sftp sessions.
async fn sftp_key(etcd: &Etcd, proxy: &str, scope: &ScopeOptions) -> Result<String> {
    let known = etcd.get_tree("volumes/proxies").await?;
    let names: Vec<String> = known.children().map(|(name, _)| unquote(name)).collect();
    ensure!(
        names.iter().any(|name| name == proxy),
        "there is no storage {proxy:?} below volumes/proxies; there are: {}",
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    );
    scope.key(&format!("volumes/proxies/{}/sftp_scaling_groups", quote(proxy)))
}

fn read_json(file: &Path) -> Result<Value> {
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).context("read standard input")?;
    } else {
        text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    }
    serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", file.display()))
}

async fn move_subtree(etcd: &Etcd, src: &str, dst: &str) -> Result<()> {
    ensure!(!src.is_empty() && !dst.is_empty(), "a key is empty");
    let below = format!("{src}/");
    ensure!(
        src != dst && !dst.starts_with(&below),
        "'{dst}' lies within '{src}': it would be deleted with it"
    );
    let mut puts: Vec<(String, String)> = etcd
        .get_prefix(src)
        .await?
        .into_iter()
        .filter_map(|(key, value)| {
            let rest = key.strip_prefix(src)?;
            let inside = rest.is_empty() || rest.starts_with('/');
            inside.then(|| (format!("{dst}{rest}"), value))
        })
        .collect();
    ensure!(!puts.is_empty(), "there is nothing at '{src}'");
    let count = puts.len();
    let delete = delete_subtree(etcd, src);
    // What fits goes in one transaction with the deletion; nothing is lost in between, as
    // the old keys go last.
    let last = puts.split_off(count.saturating_sub(MAX_TXN_OPS - delete.len()));
    for chunk in puts.chunks(MAX_TXN_OPS) {
        etcd.put_all(chunk).await?;
    }
    let operations = last
        .iter()
        .map(|(key, value)| TxnOp::put(etcd.full_key(key), value.as_str(), None))
        .chain(delete);
    etcd.transact(Txn::new().and_then(operations.collect::<Vec<_>>())).await?;
    say(format_args!("Moved {count} keys from '{src}' to '{dst}'."));
    Ok(())
}
