//! Keys that are accepted and ignored.

use serde::{Deserialize, Deserializer};

/// The value of a key that this agent accepts and ignores, whatever it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unused;

impl<'de> Deserialize<'de> for Unused {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}
