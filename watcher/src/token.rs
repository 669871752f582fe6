//! The secret that requests must bring.

use std::collections::BTreeSet;

use rand::RngExt;
use sha2::{Digest, Sha256};

/// Bits of a token that cannot be guessed.
pub const MIN_BITS: usize = 128;
/// Fewer different characters than this are a pattern and not chance: of 32 random hexadecimal
/// digits fewer than 8 are different once in ten million times.
const MIN_DISTINCT: usize = 8;

/// A token that is long enough.
#[derive(Clone)]
pub struct Token(String);

/// The token cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error(
        "there is no watcher token: make one with `backendai-watcher generate-token` and put it \
         into etcd: `backendai-manager etcd put config/watcher/token TOKEN`"
    )]
    Missing,
    /// It can be guessed.
    #[error(
        "the watcher token (config/watcher/token in etcd) has about {0} bits and must have at \
         least {MIN_BITS}: make a new one with `backendai-watcher generate-token`"
    )]
    Weak(usize),
}

impl Token {
    /// Accepts a token that cannot be guessed.
    ///
    /// # Errors
    /// There is none, or it is too short.
    pub fn new(text: Option<&str>) -> Result<Self, TokenError> {
        let text = text.map(str::trim).filter(|text| !text.is_empty());
        let text = text.ok_or(TokenError::Missing)?;
        let bits = bits(text);
        if bits < MIN_BITS {
            return Err(TokenError::Weak(bits));
        }
        Ok(Self(text.to_owned()))
    }

    /// A new one, of 256 bits.
    pub fn generate() -> Self {
        let bytes: [u8; 32] = rand::rng().random();
        Self(hex::encode(bytes))
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True for the same token. Takes as long for any that is not: both are hashed, so that
    /// neither length nor common beginning shows.
    pub fn is(&self, given: &[u8]) -> bool {
        let (own, given) = (Sha256::digest(self.0.as_bytes()), Sha256::digest(given));
        let differing = own.iter().zip(given.iter()).fold(0, |bits, (a, b)| bits | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// How many bits a token of these characters can hold at most.
fn bits(text: &str) -> usize {
    let distinct = text.chars().collect::<BTreeSet<_>>().len();
    let per_char = if distinct < MIN_DISTINCT {
        1
    } else if text.chars().all(|c| c.is_ascii_hexdigit()) {
        4
    } else {
        // Letters, digits and two more: what base64 carries.
        6
    };
    text.chars().count() * per_char
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_can_be_guessed_are_refused() {
        assert_eq!(Token::new(None).unwrap_err(), TokenError::Missing);
        assert_eq!(Token::new(Some("  ")).unwrap_err(), TokenError::Missing);
        assert!(matches!(Token::new(Some("insecure")), Err(TokenError::Weak(8))));
        assert!(matches!(Token::new(Some(&"a".repeat(100))), Err(TokenError::Weak(_))));
        assert!(matches!(Token::new(Some(&Token::generate().0[..31])), Err(TokenError::Weak(124))));
        assert!(Token::new(Some("0123456789abcdef0123456789abcdef")).is_ok());
        assert!(Token::new(Some("Zm9vYmFyYmF6cXV4Y29yZ2U")).is_ok());
    }

    #[test]
    fn only_the_same_token_is_accepted() {
        let token = Token::generate();
        assert!(Token::new(Some(token.expose())).is_ok());
        assert!(token.is(token.expose().as_bytes()));
        assert!(!token.is(b""));
        assert!(!token.is(&token.expose().as_bytes()[1..]));
        assert!(!format!("{token:?}").contains(token.expose()));
    }
}
