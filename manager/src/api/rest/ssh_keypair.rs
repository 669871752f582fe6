//! `/auth/ssh-keypair`: the keys that open one's kernels.

use serde_json::json;
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::ssh_keypair::{self, Keypair};

/// `GET /auth/ssh-keypair`
pub async fn show(call: Call) -> Result<Response, Problem> {
    let public_key = ssh_keypair::public_key(&call.app, &*call.user()?).await?;
    Ok(ok(&json!({ "ssh_public_key": public_key })))
}

/// `PATCH /auth/ssh-keypair`: new ones.
pub async fn generate(call: Call) -> Result<Response, Problem> {
    let pair = ssh_keypair::generate(&call.app, &*call.user()?).await?;
    Ok(answer(&pair))
}

/// `POST /auth/ssh-keypair`: one's own.
pub async fn upload(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let public_key: String = params.required(&["pubkey"], rules::text);
    let private_key: String = params.required(&["privkey"], rules::text);
    params.finish()?;
    let pair = ssh_keypair::upload(&call.app, &*call.user()?, &public_key, &private_key).await?;
    Ok(answer(&pair))
}

fn answer(pair: &Keypair) -> Response {
    ok(&json!({ "ssh_public_key": pair.public_key, "ssh_private_key": pair.private_key }))
}
