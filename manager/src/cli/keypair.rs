//! `generate-api-keypair` and `generate-rpc-keypair`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use backendai_rpc::transport::curve::{CurveKeypair, has_curve};

use super::output::say;

/// The alphabet of access keys.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

#[derive(Debug, clap::Args)]
pub(super) struct RpcKeypair {
    /// Folder to write to; made if absent.
    dst_dir: PathBuf,
    /// Name of the pair: the files are NAME.key and NAME.key_secret.
    name: String,
}

pub(super) fn generate_api() {
    let (access_key, secret_key) = new_api_keypair();
    say(format_args!("Access Key: {access_key} ({} bytes)", access_key.len()));
    say(format_args!("Secret Key: {secret_key} ({} bytes)", secret_key.len()));
}

/// A random access key (`AKIA` and 16 base32 characters) and secret key (40 characters).
pub fn new_api_keypair() -> (String, String) {
    let letters = rand::random::<[u8; 16]>();
    let letters = letters.map(|byte| char::from(BASE32[usize::from(byte % 32)]));
    let access_key = format!("AKIA{}", String::from_iter(letters));
    let secret_key = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 30]>());
    (access_key, secret_key)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_keys_have_the_documented_form() {
        let (access_key, secret_key) = new_api_keypair();
        assert_eq!((access_key.len(), secret_key.len()), (20, 40));
        assert!(access_key.starts_with("AKIA"));
        assert!(access_key.bytes().skip(4).all(|c| BASE32.contains(&c)), "{access_key}");
        assert_ne!(new_api_keypair().0, access_key);
    }
}
