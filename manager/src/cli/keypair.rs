//! `generate-api-keypair` and `generate-rpc-keypair`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use backendai_rpc::transport::curve::{CurveKeypair, has_curve};

use super::output::{OutputFormat, print_json, say};
use crate::app::keypair::new_api_keypair;

#[derive(Debug, clap::Args)]
pub(super) struct RpcKeypair {
    /// Folder to write to; made if absent.
    dst_dir: PathBuf,
    /// Name of the pair: the files are NAME.key and NAME.key_secret.
    name: String,
}

pub(super) fn generate_api(output: OutputFormat) -> Result<()> {
    let (access_key, secret_key) = new_api_keypair();
    if output == OutputFormat::Json {
        return print_json(&json!({ "access_key": access_key, "secret_key": secret_key }));
    }
    say(format_args!("Access Key: {access_key} ({} bytes)", access_key.len()));
    say(format_args!("Secret Key: {secret_key} ({} bytes)", secret_key.len()));
    Ok(())
}

pub(super) fn generate_rpc(command: &RpcKeypair) -> Result<()> {
    ensure!(has_curve(), "the libzmq on this machine has no CURVE: install one with libsodium");
    let RpcKeypair { dst_dir, name } = command;
    ensure!(!name.is_empty() && !name.contains('/'), "{name:?} cannot be the name of a file");
    std::fs::create_dir_all(dst_dir).with_context(|| format!("create {}", dst_dir.display()))?;
    for suffix in ["key", "key_secret"] {
        let path = dst_dir.join(format!("{name}.{suffix}"));
        if path.exists() {
            bail!(
                "{} exists already: replacing it would lock out whoever uses it; \
                 choose another name or remove it first",
                path.display()
            );
        }
    }
    let pair = CurveKeypair::generate();
    let (public, secret) = pair.write_certificates(dst_dir, name)?;
    say(format_args!("Public Key: {} (stored at {})", pair.public_key, public.display()));
    say(format_args!("Secret Key: {} (stored at {})", pair.secret_key(), secret.display()));
    Ok(())
}
