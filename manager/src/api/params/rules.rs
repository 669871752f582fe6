//! Rules for single values, with the product's messages.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Checked, Params};

fn refuse<T>(message: impl Into<String>) -> Checked<T> {
    Err(Value::from(message.into()))
}

/// A string that is not empty.
pub fn text(value: Value) -> Checked<String> {
    match value {
        Value::String(text) if text.is_empty() => refuse("blank value is not allowed"),
        Value::String(text) => Ok(text),
        _ => refuse("value is not a string"),
    }
}

/// A string, maybe empty.
pub fn any_text(value: Value) -> Checked<String> {
    match value {
        Value::String(text) => Ok(text),
        _ => refuse("value is not a string"),
    }
}

/// A session's name: 4 to 64 word characters, dots and dashes, with word characters at both
/// ends.
pub fn session_name(value: Value) -> Checked<String> {
    let name = text(value)?;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fits = (4..=64).contains(&name.len())
        && name.starts_with(word)
        && name.ends_with(word)
        && name.chars().all(|c| word(c) || c == '.' || c == '-');
    if fits { Ok(name) } else { refuse(r"does not match pattern ^(?=.{4,64}$)\w[\w.-]*\w$") }
}

/// An integer: also as an integral float, a boolean, or a numeric string.
pub fn int(value: Value) -> Checked<i64> {
    match value {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Ok(int),
            (None, Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => Ok(float as i64),
            _ => refuse("value is not int"),
        },
        Value::Bool(flag) => Ok(flag.into()),
        Value::String(text) => match text.trim().parse() {
            Ok(int) => Ok(int),
            Err(_) => refuse("value can't be converted to int"),
        },
        _ => refuse("value is not int"),
    }
}

/// An integer within bounds, both included.
pub fn int_within(low: i64, high: i64) -> impl Fn(Value) -> Checked<i64> {
    move |value| match int(value)? {
        int if int < low => refuse(format!("value is less than {low}")),
        int if int > high => refuse(format!("value is greater than {high}")),
        int => Ok(int),
    }
}

/// A boolean and nothing like one.
pub fn strict_bool(value: Value) -> Checked<bool> {
    value.as_bool().ok_or_else(|| Value::from("value should be True or False"))
}

/// A boolean in any of the spellings people use.
pub fn lenient_bool(value: Value) -> Checked<bool> {
    let text = match value {
        Value::Bool(flag) => return Ok(flag),
        Value::Null => return Ok(false),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.to_ascii_lowercase(),
        _ => return refuse("value can't be converted to Bool"),
    };
    match text.as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "n" | "no" | "off" | "0" | "none" => Ok(false),
        _ => refuse("value can't be converted to Bool"),
    }
}

/// A name of letters, digits, dots, dashes and underscores, with letters or digits at both
/// ends; a dot may precede it. At most 64 characters.
pub fn slug(value: Value) -> Checked<String> {
    let Value::String(text) = value else { return refuse("value must be a string") };
    let name = text.strip_prefix('.').unwrap_or(&text);
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = name.chars().all(inner)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    match (fits, text.len() <= 64) {
        (true, true) => Ok(text),
        (true, false) => refuse("String is longer than 64 characters"),
        (false, _) => refuse("value must be a valid slug."),
    }
}

/// A number of bytes: `512m`, `1.5g`…
pub fn size(value: Value) -> Checked<u64> {
    let parsed = match &value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse::<backendai_types::ByteCount>().ok().map(|n| n.bytes()),
        _ => None,
    };
    parsed.ok_or_else(|| Value::from("value is not a valid binary size"))
}

/// A member of an enumeration that the contract calls `name`.
pub fn member<T: Copy>(
    name: &'static str,
    members: &'static [T],
    spelling: fn(T) -> &'static str,
) -> impl Fn(Value) -> Checked<T> {
    move |value| {
        let text = value.as_str().unwrap_or_default();
        match members.iter().copied().find(|member| spelling(*member) == text) {
            Some(member) => Ok(member),
            None => refuse(format!("value is not a valid member of {name}")),
        }
    }
}

/// One of some words.
pub fn choice(words: &'static [&'static str]) -> impl Fn(Value) -> Checked<String> {
    move |value| match value {
        Value::String(text) if words.contains(&text.as_str()) => Ok(text),
        _ => refuse("value doesn't match any variant"),
    }
}

/// An id, with or without dashes.
pub fn uuid(value: Value) -> Checked<Uuid> {
    match value {
        Value::String(text) => match Uuid::parse_str(text.trim()) {
            Ok(id) => Ok(id),
            Err(_) => refuse("cannot convert value to UUID"),
        },
        _ => refuse("value must be string or bytes"),
    }
}

/// An absolute URL.
pub fn url(value: Value) -> Checked<String> {
    let url = text(value)?;
    let absolute = url.split_once("://").is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && rest.starts_with(|c: char| !"/?#".contains(c))
    });
    if absolute { Ok(url) } else { refuse("ValueError('URL should be absolute')") }
}

/// Null, or what another rule takes.
pub fn null_or<T>(
    rule: impl FnOnce(Value) -> Checked<T>,
) -> impl FnOnce(Value) -> Checked<Option<T>> {
    move |value| {
        if value.is_null() {
            return Ok(None);
        }
        rule(value).map(Some).map_err(|error| {
            let mut branches = Map::new();
            branches.insert("0".to_owned(), Value::from("value should be None"));
            branches.insert("1".to_owned(), error);
            Value::Object(branches)
        })
    }
}

/// A list whose elements another rule takes.
pub fn list<T>(rule: impl Fn(Value) -> Checked<T>) -> impl FnOnce(Value) -> Checked<Vec<T>> {
    move |value| {
        let Value::Array(elements) = value else { return refuse("value is not a list") };
        let mut values = Vec::with_capacity(elements.len());
        let mut errors = Map::new();
        for (index, element) in elements.into_iter().enumerate() {
            match rule(element) {
                Ok(value) => values.push(value),
                Err(error) => {
                    errors.insert(index.to_string(), error);
                }
            }
        }
        if errors.is_empty() { Ok(values) } else { Err(Value::Object(errors)) }
    }
}

/// An object whose values another rule takes.
pub fn map<T>(
    rule: impl Fn(Value) -> Checked<T>,
) -> impl FnOnce(Value) -> Checked<BTreeMap<String, T>> {
    move |value| {
        let mut values = BTreeMap::new();
        let mut errors = Map::new();
        for (key, element) in object(value)? {
            match rule(element) {
                Ok(value) => {
                    values.insert(key, value);
                }
                Err(error) => {
                    let nested = Map::from_iter([("value".to_owned(), error)]);
                    errors.insert(key, Value::Object(nested));
                }
            }
        }
        if errors.is_empty() { Ok(values) } else { Err(Value::Object(errors)) }
    }
}

/// Any object.
pub fn object(value: Value) -> Checked<Map<String, Value>> {
    match value {
        Value::Object(map) => Ok(map),
        _ => refuse("value is not a dict"),
    }
}

/// An object with rules of its own.
pub fn nested<T>(read: impl FnOnce(&mut Params) -> T) -> impl FnOnce(Value) -> Checked<T> {
    move |value| {
        let mut params = Params::new(object(value)?);
        let result = read(&mut params);
        params.into_result()?;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_are_converted_or_refused_with_the_products_words() {
        assert_eq!(int(json!("12")), Ok(12));
        assert_eq!(int(json!(3.0)), Ok(3));
        assert_eq!(int(json!(true)), Ok(1));
        assert_eq!(int(json!(1.5)), Err(json!("value is not int")));
        assert_eq!(int(json!("x")), Err(json!("value can't be converted to int")));
        assert_eq!(int_within(1, 3)(json!(0)), Err(json!("value is less than 1")));
        assert_eq!(int_within(1, 3)(json!(4)), Err(json!("value is greater than 3")));
        for yes in [json!("True"), json!("y"), json!(1), json!(true), json!("on")] {
            assert_eq!(lenient_bool(yes), Ok(true));
        }
        for no in [json!("NO"), json!(null), json!(0), json!("none")] {
            assert_eq!(lenient_bool(no), Ok(false));
        }
        for neither in [json!("f"), json!(""), json!([])] {
            assert_eq!(lenient_bool(neither), Err(json!("value can't be converted to Bool")));
        }
        assert!(uuid(json!("{6f4f0499-5c42-484a-be48-1f36123e2c71}")).is_ok());
        assert!(uuid(json!("6f4f04995c42484abe481f36123e2c71")).is_ok());
        assert_eq!(uuid(json!("x")), Err(json!("cannot convert value to UUID")));
        assert_eq!(uuid(json!(1)), Err(json!("value must be string or bytes")));
        assert!(url(json!("https://h/x")).is_ok());
        assert_eq!(url(json!("/x")), Err(json!("ValueError('URL should be absolute')")));
    }

    #[test]
    fn names_of_folders_are_slugs() {
        for good in ["a", "vf-1", ".local", "a.b_c", &"x".repeat(64)] {
            assert!(slug(json!(good)).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a-", "a/b", "한글", "a b", "..a", &"x".repeat(65)] {
            assert!(slug(json!(bad)).is_err(), "{bad}");
        }
        assert_eq!(size(json!("1k")), Ok(1024));
        assert_eq!(size(json!("x")), Err(json!("value is not a valid binary size")));
        assert_eq!(strict_bool(json!(1)), Err(json!("value should be True or False")));
    }

    #[test]
    fn session_names_have_four_to_sixty_four_characters() {
        for good in ["capB", "a.b-c_d", &"x".repeat(64)] {
            assert!(session_name(json!(good)).is_ok(), "{good}");
        }
        for bad in ["abc", &"x".repeat(65), "-abc", "abc-", "a b c", "한글이름"] {
            assert!(session_name(json!(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_nest_as_the_values_do() {
        assert_eq!(
            null_or(list(text))(json!(["a", 1, ""])),
            Err(json!({
                "0": "value should be None",
                "1": {"1": "value is not a string", "2": "blank value is not allowed"},
            }))
        );
        assert_eq!(
            map(text)(json!({"k": ""})),
            Err(json!({"k": {"value": "blank value is not allowed"}}))
        );
        let rule = nested(|params| params.optional(&["n"], 0, int));
        assert_eq!(
            rule(json!({"n": "x", "m": 1})),
            Err(json!({
                "n": "value can't be converted to int",
                "m": "m is not allowed key",
            }))
        );
    }
}
