//! Scalars, spelled on the wire as the product's clients expect.

use std::io;

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use backendai_types::ResourceSlots;
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

/// A string that holds JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonString(pub serde_json::Value);

/// ISO 8601 in UTC, with microseconds where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime(pub chrono::DateTime<chrono::Utc>);

/// An integer beyond 32 bits, which the product sends as a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BigInt(pub i64);

/// An id in lower case with hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid(pub uuid::Uuid);

impl JsonString {
    /// Amounts by slot.
    pub fn slots(slots: &ResourceSlots) -> Self {
        Self(serde_json::json!(slots))
    }

    /// An empty object, as the default of an argument.
    pub fn empty() -> Option<Self> {
        Some(Self::default())
    }
}

impl Default for JsonString {
    fn default() -> Self {
        Self(serde_json::json!({}))
    }
}

impl From<serde_json::Value> for JsonString {
    fn from(value: serde_json::Value) -> Self {
        Self(value)
    }
}

impl From<chrono::DateTime<chrono::Utc>> for DateTime {
    fn from(at: chrono::DateTime<chrono::Utc>) -> Self {
        Self(at)
    }
}

impl std::fmt::Display for DateTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format = match self.0.timestamp_subsec_micros() {
            0 => "%Y-%m-%dT%H:%M:%S+00:00",
            _ => "%Y-%m-%dT%H:%M:%S%.6f+00:00",
        };
        self.0.format(format).fmt(f)
    }
}

/// A string holding JSON.
#[Scalar(name = "JSONString")]
impl ScalarType for JsonString {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => serde_json::from_str(text)
                .map(Self)
                .map_err(|_| InputValueError::custom("Badly formed JSONString")),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(python_json(&self.0))
    }
}

/// ISO 8601.
#[Scalar(name = "DateTime")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => super::super::auth::date::parse(text)
                .map(|at| Self(at.to_utc()))
                .ok_or_else(|| InputValueError::custom("not a date in ISO 8601")),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

/// An integer that may exceed 32 bits; within ±(2^53−1).
#[Scalar(name = "BigInt")]
impl ScalarType for BigInt {
    fn parse(value: Value) -> InputValueResult<Self> {
        let number = match &value {
            Value::Number(number) => {
                number.as_i64().or_else(|| number.as_f64().map(|float| float as i64))
            }
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.map(Self).ok_or_else(|| InputValueError::expected_type(value))
    }

    fn to_value(&self) -> Value {
        match i32::try_from(self.0) {
            Ok(small) => Value::Number(small.into()),
            Err(_) => {
                serde_json::Number::from_f64(self.0 as f64).map_or(Value::Null, Value::Number)
            }
        }
    }
}

/// A UUID.
#[Scalar(name = "UUID")]
impl ScalarType for Uuid {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => uuid::Uuid::parse_str(text.trim())
                .map(Self)
                .map_err(|_| InputValueError::custom("badly formed hexadecimal UUID string")),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// JSON with `, ` and `: ` between, and nothing beyond ASCII.
pub fn python_json(value: &serde_json::Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    value.serialize(&mut serializer).expect("values are JSON, and a Vec takes every byte");
    String::from_utf8(bytes).expect("the formatter writes ASCII")
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if c.is_ascii() {
                writer.write_all(&[c as u8])?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wire(value: &impl ScalarType) -> String {
        serde_json::to_string(&value.to_value()).unwrap()
    }

    #[test]
    fn scalars_are_spelled_as_the_product_spells_them() {
        assert_eq!(
            wire(&JsonString(json!({"cpu": "1", "x": [1, null], "한\n": "😀"}))),
            r#""{\"cpu\": \"1\", \"x\": [1, null], \"\\ud55c\\n\": \"\\ud83d\\ude00\"}""#
        );
        assert_eq!(wire(&BigInt(149582945)), "149582945");
        assert_eq!(wire(&BigInt(1099511627776)), "1099511627776.0");
        let date = |text: &str| DateTime(text.parse().unwrap());
        assert_eq!(
            wire(&date("2026-11-21T04:03:15.117314Z")),
            r#""2026-11-21T04:03:15.117314+00:00""#
        );
        assert_eq!(wire(&date("2026-11-21T04:03:15Z")), r#""2026-11-21T04:03:15+00:00""#);
    }

    #[test]
    fn scalars_read_what_clients_send() {
        assert_eq!(BigInt::parse(Value::from("12")).ok(), Some(BigInt(12)));
        assert_eq!(BigInt::parse(Value::from(1i64 << 40)).ok(), Some(BigInt(1 << 40)));
        assert!(JsonString::parse(Value::from("{")).is_err());
        assert!(Uuid::parse(Value::from("6f4f04995c42484abe481f36123e2c71")).is_ok());
        assert!(Uuid::parse(Value::from(1)).is_err());
    }
}
