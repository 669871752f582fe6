//! Byte counts as people write them: `512m`, `1.5g`, `10GiB`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// A number of bytes. Suffixes are binary (1024), whatever their spelling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

/// The text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("value is not a valid binary size")]
pub struct InvalidSize;

impl ByteCount {
    /// The count in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// The largest unit that keeps the number at or above one, at most two decimals: `32g`, `1.5g`.
    pub fn humanize(self) -> String {
        const UNITS: [(&str, u64); 6] = [
            ("e", 1 << 60),
            ("p", 1 << 50),
            ("t", 1 << 40),
            ("g", 1 << 30),
            ("m", 1 << 20),
            ("k", 1 << 10),
        ];
        for (suffix, unit) in UNITS {
            if self.0 >= unit {
                let text = format!("{:.2}", self.0 as f64 / unit as f64);
                return format!("{}{suffix}", text.trim_end_matches('0').trim_end_matches('.'));
            }
        }
        self.0.to_string()
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for ByteCount {
    type Err = InvalidSize;

    /// Accepts plain integers, `_` as separator, and k m g t p e with optional `b`, `ib`,
    /// `byte`, `bytes`, in any case.
    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let cleaned: String =
            text.trim().chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect();
        let split =
            cleaned.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(cleaned.len());
        let (number, unit) = cleaned.split_at(split);
        let mut unit = unit.trim();
        let mut shift = 0u32;
        if let Some(first) = unit.chars().next() {
            if let Some(exponent) = "kmgtpe".find(first) {
                shift = (exponent as u32 + 1) * 10;
                unit = &unit[1..];
            }
            if !matches!(unit, "" | "b" | "ib" | "byte" | "bytes" | "ibyte" | "ibytes") {
                return Err(InvalidSize);
            }
        }
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(Self).ok_or(InvalidSize);
        }
        let fraction: f64 = number.parse().map_err(|_| InvalidSize)?;
        let bytes = fraction * (1u64 << shift) as f64;
        if !bytes.is_finite() || bytes < 0.0 || bytes >= u64::MAX as f64 {
            return Err(InvalidSize);
        }
        Ok(Self(bytes as u64))
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteCount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes or a size such as \"512m\"")
            }
            fn visit_u64<E>(self, v: u64) -> Result<ByteCount, E> {
                Ok(ByteCount(v))
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<ByteCount, E> {
                u64::try_from(v).map(ByteCount).map_err(|_| E::custom(InvalidSize))
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<ByteCount, E> {
                v.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_print() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("10GiB", 10 << 30),
            ("1_000", 1000),
            ("2 kb", 2048),
        ] {
            assert_eq!(text.parse::<ByteCount>(), Ok(ByteCount(bytes)), "{text}");
        }
        for text in ["", "m", "1x", "1.2.3", "-1", "99999999999e"] {
            assert_eq!(text.parse::<ByteCount>(), Err(InvalidSize), "{text}");
        }
        assert_eq!(ByteCount(3 << 29).humanize(), "1.5g");
        assert_eq!(ByteCount(32 << 30).humanize(), "32g");
    }
}
