//! Passwords as stored: new ones as argon2id, older ones as they came.
//!
//! Every function here takes tens to hundreds of milliseconds of a core, on purpose: call
//! them from a blocking thread, and not from many at once.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Sha256, Sha512};

/// Longest password that is looked at: hashing must not be a way to burn the server's time.
pub const MAX_LENGTH: usize = 1024;

/// Why a password could not be hashed or compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Longer than [`MAX_LENGTH`].
    #[error("the password is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// The stored hash has no form that is known.
    #[error("the stored password hash has an unknown form")]
    UnknownHash,
    /// The system has no randomness, or the stored parameters are absurd.
    #[error("the password cannot be hashed")]
    Failed,
}

/// Hashes a new password (argon2id, in PHC form, with a random salt).
///
/// # Errors
/// It is too long, or the system has no randomness.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    if password.len() > MAX_LENGTH {
        return Err(PasswordError::TooLong);
    }
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|_| PasswordError::Failed)
}

/// True when `stored` is a hash and not a password in plain text.
pub fn is_hash(stored: &str) -> bool {
    Scheme::of(stored).is_some()
}

/// True when the password belongs to the stored hash: argon2, bcrypt, or pbkdf2 with SHA-256
/// or SHA-512 (`$pbkdf2-sha256$rounds$salt$hash`, or with `i=rounds`).
///
/// # Errors
/// The stored hash cannot be read; this is not the user's fault.
pub fn verify(password: &str, stored: &str) -> Result<bool, PasswordError> {
    if password.len() > MAX_LENGTH {
        return Ok(false);
    }
    match Scheme::of(stored).ok_or(PasswordError::UnknownHash)? {
        Scheme::Argon2 => {
            let hash = PasswordHash::new(stored).map_err(|_| PasswordError::UnknownHash)?;
            Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        }
        Scheme::Bcrypt => bcrypt::verify(password, stored).map_err(|_| PasswordError::UnknownHash),
        Scheme::Pbkdf2Sha256 => verify_pbkdf2(password, stored, |password, salt, rounds, out| {
            pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, rounds, out);
        }),
        Scheme::Pbkdf2Sha512 => verify_pbkdf2(password, stored, |password, salt, rounds, out| {
            pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, rounds, out);
        }),
    }
}

#[derive(Clone, Copy)]
enum Scheme {
    Argon2,
    Bcrypt,
    Pbkdf2Sha256,
    Pbkdf2Sha512,
}

impl Scheme {
    fn of(stored: &str) -> Option<Self> {
        let (scheme, rest) = stored.strip_prefix('$')?.split_once('$')?;
        if rest.is_empty() {
            return None;
        }
        match scheme {
            "argon2id" | "argon2i" | "argon2d" => Some(Self::Argon2),
            "2a" | "2b" | "2x" | "2y" => Some(Self::Bcrypt),
            "pbkdf2-sha256" => Some(Self::Pbkdf2Sha256),
            "pbkdf2-sha512" => Some(Self::Pbkdf2Sha512),
            _ => None,
        }
    }
}

/// Most rounds that are computed; more is a corrupt row or an attack on the server's time.
const MAX_ROUNDS: u32 = 10_000_000;

fn verify_pbkdf2(
    password: &str,
    stored: &str,
    derive: impl Fn(&[u8], &[u8], u32, &mut [u8]),
) -> Result<bool, PasswordError> {
    let parts: Vec<&str> = stored.split('$').collect();
    let [_, _, parameters, salt, expected] = parts[..] else {
        return Err(PasswordError::UnknownHash);
    };
    let rounds = parameters
        .split(',')
        .find_map(|part| part.strip_prefix("i=").unwrap_or(part).parse().ok())
        .filter(|rounds| (1..=MAX_ROUNDS).contains(rounds))
        .ok_or(PasswordError::UnknownHash)?;
    // Some writers use `.` for `+`.
    let decode = |text: &str| {
        STANDARD_NO_PAD
            .decode(text.replace('.', "+").trim_end_matches('='))
            .map_err(|_| PasswordError::UnknownHash)
    };
    let (salt, expected) = (decode(salt)?, decode(expected)?);
    if !(16..=64).contains(&expected.len()) {
        return Err(PasswordError::UnknownHash);
    }
    let mut actual = vec![0; expected.len()];
    derive(password.as_bytes(), &salt, rounds, &mut actual);
    // No early end: the time must not tell how much of the hash was right.
    let difference = actual.iter().zip(&expected).fold(0, |sum, (a, b)| sum | (a ^ b));
    Ok(difference == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_hashes_verify_and_differ() {
        let one = hash("correct horse").unwrap();
        assert!(one.starts_with("$argon2id$"), "{one}");
        assert!(verify("correct horse", &one).unwrap());
        assert!(!verify("battery staple", &one).unwrap());
        assert_ne!(one, hash("correct horse").unwrap());
    }

    #[test]
    fn older_hashes_verify() {
        let bcrypt = bcrypt::hash("pw", 4).unwrap();
        assert!(verify("pw", &bcrypt).unwrap() && !verify("px", &bcrypt).unwrap());
        // From RFC 7914: PBKDF2-HMAC-SHA-256 (P="passwd", S="salt", c=1, dkLen=64).
        let expected = "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc\
                        49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783";
        let bytes: Vec<u8> = (0..expected.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&expected[at..at + 2], 16).unwrap())
            .collect();
        let hash = STANDARD_NO_PAD.encode(bytes);
        for stored in [
            format!("$pbkdf2-sha256$1$c2FsdA${hash}"),
            format!("$pbkdf2-sha256$i=1,l=64$c2FsdA${hash}"),
        ] {
            assert!(is_hash(&stored));
            assert!(verify("passwd", &stored).unwrap(), "{stored}");
            assert!(!verify("password", &stored).unwrap(), "{stored}");
        }
    }

    #[test]
    fn plain_text_is_no_hash() {
        for text in ["", "demo-5HGRNaFu9r", "$", "$money$", "$2b$"] {
            assert!(!is_hash(text), "{text}");
            assert_eq!(verify("x", text), Err(PasswordError::UnknownHash), "{text}");
        }
        assert_eq!(verify("x", "$pbkdf2-sha256$i=1$c2FsdA$"), Err(PasswordError::UnknownHash));
    }
}
