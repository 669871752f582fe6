//! Text with places for values, as the files of services have it: `{name}`, `{name[key]}`,
//! and `{{` and `}}` for braces.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What a place is filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// Several, by their numbers from 0.
    List(Vec<String>),
    /// Several, by their names.
    Map(BTreeMap<String, String>),
}

/// Values by their names.
pub type Values = BTreeMap<String, Value>;

/// Text with places.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place { name: String, key: Option<String> },
}

/// A template that is not in the language, or has a place for what does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("unbalanced brace in {0:?}")]
    Brace(String),
    /// Something else than `name` or `name[key]` between braces.
    #[error("{{{0}}} is neither {{name}} nor {{name[key]}}")]
    Place(String),
    /// No value of this name.
    #[error("there is no value {0}")]
    Missing(String),
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        let unbalanced = || TemplateError::Brace(text.clone());
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let brace = &rest[at..=at];
            if let Some(escaped) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = escaped;
                continue;
            }
            if brace == "}" {
                return Err(unbalanced());
            }
            let (place, after) = after.split_once('}').ok_or_else(unbalanced)?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(parse_place(place)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }
}

fn parse_place(place: &str) -> Result<Part, TemplateError> {
    let (name, key) = match place.split_once('[') {
        Some((name, key)) => (name, Some(key.strip_suffix(']').unwrap_or_default())),
        None => (place, None),
    };
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
    };
    if !is_name(name) || !key.is_none_or(is_name) {
        return Err(TemplateError::Place(place.to_owned()));
    }
    Ok(Part::Place { name: name.to_owned(), key: key.map(str::to_owned) })
}

impl Template {
    /// The text with every place filled.
    ///
    /// # Errors
    /// [`TemplateError::Missing`].
    pub fn fill(&self, values: &Values) -> Result<String, TemplateError> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Place { name, key } => {
                    let value = lookup(values, name, key.as_deref());
                    let missing = || match key {
                        Some(key) => TemplateError::Missing(format!("{name}[{key}]")),
                        None => TemplateError::Missing(name.clone()),
                    };
                    text.push_str(value.ok_or_else(missing)?);
                }
            }
        }
        Ok(text)
    }
}

/// A list or a map has no text of its own.
fn lookup<'a>(values: &'a Values, name: &str, key: Option<&str>) -> Option<&'a str> {
    match (values.get(name)?, key) {
        (Value::Text(text), None) => Some(text),
        (Value::List(items), Some(key)) => Some(items.get(key.parse::<usize>().ok()?)?),
        (Value::Map(items), Some(key)) => Some(items.get(key)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values::from([
            ("ports".into(), Value::List(vec!["8080".into(), "8081".into()])),
            ("runtime_path".into(), Value::Text("/usr/bin/python".into())),
            ("made".into(), Value::Map([("out".into(), "token\n".into())].into())),
        ])
    }

    fn fill(text: &str) -> Result<String, TemplateError> {
        Template::try_from(text.to_owned())?.fill(&values())
    }

    #[test]
    fn places_are_filled() {
        for (text, filled) in [
            ("", ""),
            ("plain", "plain"),
            ("{runtime_path}", "/usr/bin/python"),
            ("--ports={ports[0]},{ports[1]}", "--ports=8080,8081"),
            ("<{made[out]}>", "<token\n>"),
            ("{{a}} {{{ports[0]}}}", "{a} {8080}"),
        ] {
            assert_eq!(fill(text).as_deref(), Ok(filled), "{text}");
        }
    }

    #[test]
    fn what_is_not_in_the_language_is_refused() {
        for text in ["{", "}", "a{b", "{ports[0]"] {
            assert!(matches!(fill(text), Err(TemplateError::Brace(_))), "{text}");
        }
        for text in ["{}", "{a.b}", "{a!r}", "{a:>3}", "{a[}", "{[0]}", "{a[0][1]}"] {
            assert!(matches!(fill(text), Err(TemplateError::Place(_))), "{text}");
        }
        for text in ["{nothing}", "{ports}", "{ports[2]}", "{ports[x]}", "{made[err]}"] {
            assert!(matches!(fill(text), Err(TemplateError::Missing(_))), "{text}");
        }
    }
}
