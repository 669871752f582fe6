//! The signature over a request (`Authorization: BackendAI signMethod=…, credential=…`).
//!
//! The text signed has seven lines: method, raw request target, raw date header, host,
//! media type, API version, and the hash of the empty string (bodies are not signed in the
//! versions we speak). The key is derived from the secret by day and host.

use chrono::{DateTime, FixedOffset};
use hmac::{Hmac, KeyInit, Mac, SimpleHmac};
use sha2::Digest;

/// What `Authorization` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// `HMAC-SHA256`…
    pub sign_method: &'a str,
    /// Who claims to have signed.
    pub access_key: &'a str,
    /// Lower-case hexadecimal.
    pub signature: &'a str,
}

/// Why a request is not believed; the text is the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No scheme and parameters.
    #[error("Malformed authorization header")]
    MalformedHeader,
    /// Another scheme than ours.
    #[error("Invalid authorization type name")]
    UnknownScheme,
    /// `signMethod` or `credential` is missing or has the wrong form.
    #[error("Missing or malformed authorization parameters")]
    MalformedParameters,
    /// The method has no `-`.
    #[error("Invalid signature")]
    InvalidMethod,
    /// Another MAC than HMAC.
    #[error("Unsupported request signing method (MAC type)")]
    UnsupportedMac,
    /// A hash we do not have.
    #[error("Unsupported request signing method (hash type)")]
    UnsupportedHash,
    /// Signatures cover the version, so it must be there.
    #[error("API version missing in request headers")]
    NoVersion,
    /// The signature is another.
    #[error("Signature mismatch")]
    Mismatch,
}

/// Reads the header.
///
/// # Errors
/// It has another form.
pub fn parse(header: &str) -> Result<Claim<'_>, Refusal> {
    let (scheme, rest) = header.split_once(' ').ok_or(Refusal::MalformedHeader)?;
    if scheme != "BackendAI" && scheme != "Sorna" {
        return Err(Refusal::UnknownScheme);
    }
    let mut sign_method = None;
    let mut credential = None;
    for part in rest.split(',') {
        let (key, value) = part.split_once('=').ok_or(Refusal::MalformedParameters)?;
        match key.trim() {
            "signMethod" => sign_method = Some(value.trim()),
            "credential" => credential = Some(value.trim()),
            _ => {}
        }
    }
    let (Some(sign_method), Some(credential)) = (sign_method, credential) else {
        return Err(Refusal::MalformedParameters);
    };
    let (access_key, signature) = credential.split_once(':').ok_or(Refusal::MalformedParameters)?;
    Ok(Claim { sign_method, access_key, signature })
}

/// The parts of a request that are signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// As on the request line.
    pub method: &'a str,
    /// Path and query exactly as on the wire.
    pub target: &'a str,
    /// The date header exactly as on the wire.
    pub date_header: &'a [u8],
    /// The same, understood; its own zone decides which day it is.
    pub date: DateTime<FixedOffset>,
    /// The `Host` header.
    pub host: &'a [u8],
    /// The media type as it is signed, see [`media_type`].
    pub media_type: &'a str,
    /// Name of the header that carries the version, lower case.
    pub version_header: &'a str,
    /// The version header's value.
    pub version: &'a [u8],
}

/// The media type of a `Content-Type` header as it enters the signature.
pub fn media_type(header: Option<&[u8]>) -> String {
    let Some(header) = header else { return "application/octet-stream".to_owned() };
    let text = std::str::from_utf8(header).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut parts = essence.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(kind), Some(subtype), None) if !kind.is_empty() && !subtype.is_empty() => essence,
        _ => "text/plain".to_owned(),
    }
}

/// Checks that `signature` was made with `secret` over `signed`.
///
/// # Errors
/// It was not, or the method is not one we have.
pub fn verify(
    sign_method: &str,
    secret: &str,
    signed: &Signed<'_>,
    signature: &str,
) -> Result<(), Refusal> {
    let (mac, hash) = sign_method.split_once('-').ok_or(Refusal::InvalidMethod)?;
    if !mac.eq_ignore_ascii_case("hmac") {
        return Err(Refusal::UnsupportedMac);
    }
    type Check = fn(&str, &Signed<'_>, &str) -> Result<(), Refusal>;
    let check: Check = match hash.to_ascii_lowercase().as_str() {
        "sha256" => check::<Hmac<sha2::Sha256>, sha2::Sha256>,
        "sha1" => check::<Hmac<sha1::Sha1>, sha1::Sha1>,
        "sha224" => check::<Hmac<sha2::Sha224>, sha2::Sha224>,
        "sha384" => check::<Hmac<sha2::Sha384>, sha2::Sha384>,
        "sha512" => check::<Hmac<sha2::Sha512>, sha2::Sha512>,
        "md5" => check::<Hmac<md5::Md5>, md5::Md5>,
        "blake2b" => check::<SimpleHmac<blake2::Blake2b512>, blake2::Blake2b512>,
        "blake2s" => check::<SimpleHmac<blake2::Blake2s256>, blake2::Blake2s256>,
        "sha3_224" => check::<SimpleHmac<sha3::Sha3_224>, sha3::Sha3_224>,
        "sha3_256" => check::<SimpleHmac<sha3::Sha3_256>, sha3::Sha3_256>,
        "sha3_384" => check::<SimpleHmac<sha3::Sha3_384>, sha3::Sha3_384>,
        "sha3_512" => check::<SimpleHmac<sha3::Sha3_512>, sha3::Sha3_512>,
        _ => return Err(Refusal::UnsupportedHash),
    };
    check(secret, signed, signature)
}

fn check<M: Mac + KeyInit, D: Digest>(
    secret: &str,
    signed: &Signed<'_>,
    signature: &str,
) -> Result<(), Refusal> {
    // Lower case is part of the form; decoding alone would take both.
    if signature.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Refusal::Mismatch);
    }
    let given = hex::decode(signature).map_err(|_| Refusal::Mismatch)?;
    mac::<M, D>(secret, signed).verify_slice(&given).map_err(|_| Refusal::Mismatch)
}

/// The MAC over the request, not yet finished.
fn mac<M: Mac + KeyInit, D: Digest>(secret: &str, signed: &Signed<'_>) -> M {
    let keyed =
        |key: &[u8]| <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    let day = signed.date.format("%Y%m%d").to_string();
    let mut by_day = keyed(secret.as_bytes());
    by_day.update(day.as_bytes());
    let mut by_host = keyed(&by_day.finalize().into_bytes());
    by_host.update(signed.host);
    let mut mac = keyed(&by_host.finalize().into_bytes());
    let empty_hash = hex::encode(D::digest(b""));
    let lines: [&[&[u8]]; 7] = [
        &[signed.method.as_bytes()],
        &[signed.target.as_bytes()],
        &[signed.date_header],
        &[b"host:", signed.host],
        &[b"content-type:", signed.media_type.as_bytes()],
        &[signed.version_header.as_bytes(), b":", signed.version],
        &[empty_hash.as_bytes()],
    ];
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            mac.update(b"\n");
        }
        line.iter().for_each(|piece| mac.update(piece));
    }
    mac
}

/// Signs as a client would; for tests and for programs that speak the API.
pub fn sign_sha256(secret: &str, signed: &Signed<'_>) -> String {
    hex::encode(mac::<Hmac<sha2::Sha256>, sha2::Sha256>(secret, signed).finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "ExampleSecretKey-0123456789abcdefghijklm";
    const DATE: &str = "2023-11-21T03:19:22.123456+00:00";

    fn signed<'a>(method: &'a str, target: &'a str, media_type: &'a str) -> Signed<'a> {
        Signed {
            method,
            target,
            date_header: DATE.as_bytes(),
            date: super::super::date::parse(DATE).unwrap(),
            host: b"127.0.0.1:8081",
            media_type,
            version_header: "x-backendai-version",
            version: b"v7.20230615",
        }
    }

    #[test]
    fn the_worked_examples_verify() {
        for (method, target, media, signature) in [
            (
                "GET",
                "/session/mysess?owner_access_key=AKIAOTHER",
                "text/plain",
                "522e05fba2d60c91606615468ad0478ae2c4e24cfacf2c6efc7bee3c21837f24",
            ),
            (
                "POST",
                "/session",
                "application/json",
                "9013e38215df6530307dd2ab8e36e5fcf958e3433cb46bfc5ac6219c003ec71b",
            ),
            (
                "POST",
                "/session/mysess/upload",
                "multipart/form-data",
                "944ec8519d112154be4ac0189a518f0f014556bfcf9006f0c6eeafd2946cf3d4",
            ),
            (
                "GET",
                "/stream/session/mysess/pty",
                "application/octet-stream",
                "f8451cf55247ac1956503143c614bc94382fcacabd5388e52ec2a6528672f231",
            ),
        ] {
            let request = signed(method, target, media);
            assert_eq!(sign_sha256(SECRET, &request), signature);
            assert_eq!(verify("HMAC-SHA256", SECRET, &request, signature), Ok(()));
            assert_eq!(verify("hmac-sha256", SECRET, &request, signature), Ok(()));
            let other = signed(method, "/other", media);
            assert_eq!(verify("HMAC-SHA256", SECRET, &other, signature), Err(Refusal::Mismatch));
            let upper = signature.to_uppercase();
            assert_eq!(verify("HMAC-SHA256", SECRET, &request, &upper), Err(Refusal::Mismatch));
            assert_eq!(verify("HMAC-SHA256", "x", &request, signature), Err(Refusal::Mismatch));
        }
    }

    /// Expected values computed with Python's `hmac` and `hashlib`.
    #[test]
    fn every_hash_agrees_with_python() {
        let request = signed("POST", "/session", "application/json");
        for (hash, signature) in include_str!("../golden/signatures.txt")
            .lines()
            .map(|line| line.split_once(' ').unwrap())
        {
            let method = format!("HMAC-{hash}");
            assert_eq!(verify(&method, SECRET, &request, signature), Ok(()), "{hash}");
        }
        assert_eq!(verify("HMAC-shake_128", SECRET, &request, ""), Err(Refusal::UnsupportedHash));
        assert_eq!(verify("CMAC-SHA256", SECRET, &request, ""), Err(Refusal::UnsupportedMac));
        assert_eq!(verify("HMACSHA256", SECRET, &request, ""), Err(Refusal::InvalidMethod));
    }

    #[test]
    fn headers_parse_or_are_refused_with_the_contracts_words() {
        assert_eq!(
            parse("BackendAI signMethod=HMAC-SHA256, credential=AK:00ff"),
            Ok(Claim { sign_method: "HMAC-SHA256", access_key: "AK", signature: "00ff" })
        );
        assert!(parse("Sorna credential=AK:00 , signMethod = x").is_ok());
        for (header, refusal) in [
            ("BackendAI", Refusal::MalformedHeader),
            ("Basic abc", Refusal::UnknownScheme),
            ("BackendAI signMethod=x", Refusal::MalformedParameters),
            ("BackendAI signMethod=x, credential=nocolon", Refusal::MalformedParameters),
            ("BackendAI signMethod=x, credential", Refusal::MalformedParameters),
        ] {
            assert_eq!(parse(header), Err(refusal), "{header}");
        }
    }

    #[test]
    fn media_types_are_stripped_and_defaulted() {
        for (header, expected) in [
            (None, "application/octet-stream"),
            (Some("Application/JSON; charset=utf-8"), "application/json"),
            (Some("multipart/form-data; boundary=x"), "multipart/form-data"),
            (Some("nonsense"), "text/plain"),
            (Some(""), "text/plain"),
        ] {
            assert_eq!(media_type(header.map(str::as_bytes)), expected);
        }
    }
}
