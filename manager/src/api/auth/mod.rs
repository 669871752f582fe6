//! Who asks: the steps by which a request's signature makes it somebody's.
//!
//! Order matters, because each failure has its own answer: the date first (also for
//! unsigned requests), then the header's form, the keypair, the signature, the caller's
//! address. A request without `Authorization` is nobody's, which is not yet an error.

pub mod credential;
pub mod date;
pub mod signature;

use std::net::IpAddr;

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use warp::http::HeaderMap;
use warp::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};

use self::credential::{Credential, Credentials};
use self::signature::{Claim, Refusal, Signed};
use super::problem::Problem;
use super::version;

/// How far a request's date may be from ours, in either direction.
const MAX_SKEW: TimeDelta = TimeDelta::minutes(15);
/// Where a request may carry its date, the first that is there counting.
const DATE_HEADERS: [&str; 3] = ["date", "x-backendai-date", "x-sorna-date"];

/// What authentication needs to see of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// As on the request line, whatever `X-Method-Override` says.
    pub method: &'a str,
    /// Path and query exactly as on the wire.
    pub target: &'a str,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Address of the other end of the connection, if there is a connection.
    pub peer: Option<IpAddr>,
}

/// The keypair that signed the request; `None` if it is not signed.
///
/// # Errors
/// The date is off, the signature is wrong, or the caller may not call from its address.
pub async fn authenticate(
    credentials: &Credentials,
    head: &RequestHead<'_>,
    now: DateTime<Utc>,
) -> Result<Option<std::sync::Arc<Credential>>, Problem> {
    let (date_header, date) = request_date(head.headers, now)?;
    let Some(header) = head.headers.get(AUTHORIZATION) else { return Ok(None) };
    let header = header.to_str().map_err(|_| Refusal::MalformedHeader)?;
    let claim = signature::parse(header)?;
    let credential = credentials
        .get(claim.access_key)
        .await?
        .ok_or_else(|| Problem::auth_failed("Access key not found"))?;
    check_signature(&credential, &claim, head, date_header, date)?;
    check_client_address(&credential, head)?;
    if !credential.user_is_active {
        return Err(Problem::unauthorized());
    }
    Ok(Some(credential))
}

fn request_date(
    headers: &HeaderMap,
    now: DateTime<Utc>,
) -> Result<(&[u8], DateTime<FixedOffset>), Problem> {
    let out_of_sync = || Problem::invalid_auth("Date/time sync error");
    let header = DATE_HEADERS.iter().find_map(|name| headers.get(*name)).ok_or_else(out_of_sync)?;
    let date = header.to_str().ok().and_then(date::parse).ok_or_else(out_of_sync)?;
    let skew = date.signed_duration_since(now);
    if skew <= -MAX_SKEW || skew >= MAX_SKEW {
        return Err(out_of_sync());
    }
    Ok((header.as_bytes(), date))
}

fn check_signature(
    credential: &Credential,
    claim: &Claim<'_>,
    head: &RequestHead<'_>,
    date_header: &[u8],
    date: DateTime<FixedOffset>,
) -> Result<(), Problem> {
    let (version_header, version) = version::HEADERS
        .iter()
        .find_map(|name| head.headers.get(*name).map(|value| (*name, value)))
        .ok_or(Refusal::NoVersion)?;
    let media_type = signature::media_type(head.headers.get(CONTENT_TYPE).map(|v| v.as_bytes()));
    let signed = Signed {
        method: head.method,
        target: head.target,
        date_header,
        date,
        host: head.headers.get(HOST).map(|v| v.as_bytes()).unwrap_or_default(),
        media_type: &media_type,
        version_header,
        version: version.as_bytes(),
    };
    signature::verify(claim.sign_method, &credential.secret_key, &signed, claim.signature)?;
    Ok(())
}

fn check_client_address(credential: &Credential, head: &RequestHead<'_>) -> Result<(), Problem> {
    let Some(allowed) = &credential.allowed_networks else { return Ok(()) };
    let forwarded = head.headers.get("x-forwarded-for").map(|v| v.to_str().unwrap_or_default());
    let address = match (forwarded, head.peer) {
        (Some(text), _) => text
            .trim()
            .parse()
            .map_err(|_| Problem::invalid_auth(format!("{text} is invalid IP address value")))?,
        (None, Some(peer)) => peer,
        (None, None) => return Err(Problem::unauthorized()),
    };
    let address = address.to_canonical();
    if allowed.iter().any(|network| network.contains(&address)) {
        Ok(())
    } else {
        Err(Problem::auth_failed(format!("'{address}' is not allowed IP address")))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidMethod | Refusal::Mismatch => Self::auth_failed(refusal.to_string()),
            Refusal::MalformedHeader
            | Refusal::UnknownScheme
            | Refusal::MalformedParameters
            | Refusal::UnsupportedMac
            | Refusal::UnsupportedHash
            | Refusal::NoVersion => Self::invalid_auth(refusal.to_string()),
        }
    }
}
