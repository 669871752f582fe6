//! The ssh keys that open a user's kernels.

use super::{Error, Result, SharedApp};
use crate::context::RequestContext;
use crate::ssh_key;

/// Both halves, each ended by a newline.
#[derive(Clone)]
pub struct Keypair {
    /// OpenSSH's form: one line.
    pub public_key: String,
    /// PEM. Never logged.
    pub private_key: String,
}

/// Longest key taken: twice an RSA key of 16384 bits.
const MAX_LENGTH: usize = 32 << 10;

/// The public key of the keypair that asks, if it has one.
///
/// # Errors
/// PostgreSQL is not available.
pub async fn public_key(app: &SharedApp, context: &RequestContext) -> Result<Option<String>> {
    Ok(app.datastore.autocommit().await?.ssh_public_key(&context.access_key).await?)
}

/// Gives the keypair that asks new keys. Kernels that run keep theirs.
///
/// # Errors
/// PostgreSQL is not available.
pub async fn generate(app: &SharedApp, context: &RequestContext) -> Result<Keypair> {
    let comment = format!("{}@backend.ai", context.access_key);
    let (public_key, private_key) = ssh_key::generate(&comment);
    store(app, context, &public_key, &private_key).await
}

/// Gives the keypair that asks keys of its owner's.
///
/// # Errors
/// They are no keys, or PostgreSQL is not available.
pub async fn upload(
    app: &SharedApp,
    context: &RequestContext,
    public_key: &str,
    private_key: &str,
) -> Result<Keypair> {
    check(public_key.trim_end(), private_key.trim_end())?;
    store(app, context, public_key, private_key).await
}

async fn store(
    app: &SharedApp,
    context: &RequestContext,
    public_key: &str,
    private_key: &str,
) -> Result<Keypair> {
    let pair = Keypair {
        public_key: format!("{}\n", public_key.trim_end()),
        private_key: format!("{}\n", private_key.trim_end()),
    };
    let db = app.datastore.autocommit().await?;
    db.set_ssh_keypair(&context.access_key, &pair.public_key, &pair.private_key).await?;
    Ok(pair)
}

/// The public key becomes a line of a file that decides who enters a kernel, so it must be
/// one line and a key. Which private key belongs to it is its owner's business.
fn check(public_key: &str, private_key: &str) -> Result<()> {
    let refuse = |message| Err(Error::invalid(message));
    if public_key.len() > MAX_LENGTH || private_key.len() > MAX_LENGTH {
        return refuse(format!("An SSH key has at most {MAX_LENGTH} characters."));
    }
    if !ssh_key::is_public_key(public_key) {
        return refuse("The SSH public key is not a line of OpenSSH's form.".to_owned());
    }
    if !private_key.starts_with("-----BEGIN ") || !private_key.ends_with(" PRIVATE KEY-----") {
        return refuse("The SSH private key is not in PEM form.".to_owned());
    }
    Ok(())
}
