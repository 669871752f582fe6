//! Second factors: one-time passwords from an authenticator (RFC 6238, SHA-1, 30 s, 6 digits).

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// Seconds for which a code counts.
const STEP: i64 = 30;
/// Steps before and after the current one whose codes are taken: clocks differ.
const TOLERANCE: i64 = 1;
/// The alphabet of keys (RFC 4648).
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A key to be put into an authenticator.
#[derive(Clone)]
pub struct Enrolment {
    /// The key in base32. Never logged.
    pub key: String,
    /// The same for a QR code. Never logged.
    pub uri: String,
}

/// Gives the caller a new key. It counts once a code made with it was shown.
///
/// # Errors
/// The caller has a second factor already.
pub async fn begin(app: &SharedApp, context: &RequestContext) -> Result<Enrolment> {
    let letters = rand::random::<[u8; 32]>().map(|byte| char::from(BASE32[usize::from(byte % 32)]));
    let key = String::from_iter(letters);
    if !app.datastore.autocommit().await?.totp_begin(context.user_id, &key).await? {
        return Err(Error::BadRequest(
            "Two-factor authentication is in use already; remove it first.".into(),
        ));
    }
    let account =
        percent_encoding::utf8_percent_encode(&context.email, percent_encoding::NON_ALPHANUMERIC);
    let uri = format!("otpauth://totp/Backend.AI:{account}?secret={key}&issuer=Backend.AI");
    Ok(Enrolment { key, uri })
}

/// Begins to ask for codes at the caller's logins, if this is one of the caller's key.
///
/// # Errors
/// It is none.
pub async fn activate(app: &SharedApp, context: &RequestContext, code: &str) -> Result<()> {
    let db = app.datastore.autocommit().await?;
    let key = db.totp_of(context.user_id).await?.key;
    if !key.is_some_and(|key| verify(&key, code, Utc::now())) {
        return Err(Error::BadRequest("Invalid TOTP code provided.".into()));
    }
    Ok(db.totp_activate(context.user_id).await?)
}

/// Asks for no codes any more at logins of the caller; a superadmin may name another user.
///
/// # Errors
/// The user named is another, and the caller no superadmin.
pub async fn remove(app: &SharedApp, context: &RequestContext, email: Option<&str>) -> Result<()> {
    let email = email.unwrap_or(&context.email);
    if email != context.email && !context.is_superadmin() {
        return Err(Error::Forbidden("Only superadmins remove it from others.".into()));
    }
    match app.datastore.autocommit().await?.totp_remove(email).await? {
        true => Ok(()),
        false => Err(Error::NotFound { object: "user", message: None }),
    }
}

/// The code of a key at some time; `None` if it is no key.
pub fn code(key: &str, at: DateTime<Utc>) -> Option<String> {
    Some(code_at(&decode(key)?, at.timestamp().div_euclid(STEP)))
}

/// Whether a code is made with a key about now.
pub fn verify(key: &str, code: &str, now: DateTime<Utc>) -> bool {
    let Some(key) = decode(key) else { return false };
    let step = now.timestamp().div_euclid(STEP);
    // All are compared, so that the time it takes tells nothing.
    (step - TOLERANCE..=step + TOLERANCE)
        .filter(|step| constant_time_eq(&code_at(&key, *step), code.trim()))
        .count()
        > 0
}

fn constant_time_eq(expected: &str, given: &str) -> bool {
    expected.len() == given.len()
        && expected.bytes().zip(given.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

fn code_at(key: &[u8], step: i64) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let at = usize::from(digest[19] & 0xf);
    let word = u32::from_be_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]);
    format!("{:06}", (word & 0x7fff_ffff) % 1_000_000)
}

fn decode(key: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(key.len() * 5 / 8);
    let (mut buffer, mut bits) = (0u32, 0);
    for letter in key.bytes().filter(|byte| *byte != b'=') {
        let value = BASE32.iter().position(|known| *known == letter.to_ascii_uppercase())?;
        buffer = buffer << 5 | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of RFC 6238, appendix B, cut to six digits.
    #[test]
    fn codes_are_those_of_the_standard() {
        let key = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        assert_eq!(decode(key).unwrap(), b"12345678901234567890");
        for (seconds, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")]
        {
            let now = DateTime::from_timestamp(seconds, 0).unwrap();
            assert!(verify(key, code, now), "{seconds}");
            assert!(verify(key, code, now + chrono::TimeDelta::seconds(29)), "{seconds}");
            assert!(!verify(key, code, now + chrono::TimeDelta::seconds(90)), "{seconds}");
        }
        assert!(!verify(key, "", DateTime::UNIX_EPOCH));
        assert!(!verify("not base32!", "000000", DateTime::UNIX_EPOCH));
    }
}
