//! Validation of parameters: one object of named values in, typed values or the product's
//! messages per field out.
//!
//! ```text
//! let mut params = call.params()?;
//! let forced = params.optional(&["forced"], false, rules::lenient_bool);
//! let owner = params.optional(&["owner_access_key"], None, rules::null_or(rules::text));
//! params.finish()?;
//! ```
//!
//! A wrong value is noted and stands in for its type's default until [`Params::finish`]
//! refuses the whole; so all wrong fields are reported at once. Keys that no rule asked for
//! are refused, unless the route ignores them.

pub mod rules;

use serde_json::{Map, Value};

use super::problem::Problem;

/// What a rule says of a value: a typed value, or what is wrong with it (a text, or an
/// object of texts for nested values).
pub type Checked<T> = Result<T, Value>;

/// Named values that are being validated.
pub struct Params {
    input: Map<String, Value>,
    errors: Map<String, Value>,
}

impl Params {
    /// Validates these.
    pub fn new(input: Map<String, Value>) -> Self {
        Self { input, errors: Map::new() }
    }

    /// A value that must be there. `names` are its canonical name and aliases; the first
    /// that is present counts, the others are then ignored.
    pub fn required<T: Default>(
        &mut self,
        names: &[&str],
        rule: impl FnOnce(Value) -> Checked<T>,
    ) -> T {
        match self.take(names) {
            Some((name, value)) => self.check(name, value, rule).unwrap_or_default(),
            None => {
                let canonical = names.first().copied().unwrap_or_default();
                self.errors.insert(canonical.to_owned(), Value::from("is required"));
                T::default()
            }
        }
    }

    /// A value that is `default` when it is absent. An explicit null is not absent.
    pub fn optional<T>(
        &mut self,
        names: &[&str],
        default: T,
        rule: impl FnOnce(Value) -> Checked<T>,
    ) -> T {
        match self.take(names) {
            Some((name, value)) => self.check(name, value, rule).unwrap_or(default),
            None => default,
        }
    }

    /// Refuses what was wrong and what is left.
    ///
    /// # Errors
    /// One message per field.
    pub fn finish(self) -> Result<(), Problem> {
        self.into_result().map_err(Problem::invalid_fields)
    }

    /// As [`Params::finish`], for routes that accept other keys besides.
    ///
    /// # Errors
    /// One message per field.
    pub fn finish_ignoring_others(mut self) -> Result<(), Problem> {
        self.input.clear();
        self.finish()
    }

    /// As [`Params::finish_ignoring_others`], for values within others.
    ///
    /// # Errors
    /// One message per field.
    pub fn into_result_ignoring_others(mut self) -> Checked<()> {
        self.input.clear();
        self.into_result()
    }

    fn into_result(mut self) -> Checked<()> {
        for name in std::mem::take(&mut self.input).into_iter().map(|(name, _)| name) {
            let message = format!("{name} is not allowed key");
            self.errors.insert(name, Value::from(message));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Value::Object(self.errors)) }
    }

    fn take(&mut self, names: &[&str]) -> Option<(String, Value)> {
        let mut found = None;
        for name in names {
            if let Some(value) = self.input.shift_remove(*name) {
                found.get_or_insert_with(|| ((*name).to_owned(), value));
            }
        }
        found
    }

    fn check<T>(
        &mut self,
        name: String,
        value: Value,
        rule: impl FnOnce(Value) -> Checked<T>,
    ) -> Option<T> {
        match rule(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.errors.insert(name, error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn params(value: Value) -> Params {
        Params::new(value.as_object().unwrap().clone())
    }

    fn errors(params: Params) -> Value {
        params.into_result().unwrap_err()
    }

    #[test]
    fn a_missing_key_is_reported_under_its_canonical_name_and_a_wrong_one_under_its_own() {
        let mut input = params(json!({}));
        let _: String = input.required(&["session_name", "name"], rules::text);
        assert_eq!(errors(input), json!({"session_name": "is required"}));

        let mut input = params(json!({"name": ""}));
        let _: String = input.required(&["session_name", "name"], rules::text);
        assert_eq!(errors(input), json!({"name": "blank value is not allowed"}));
    }

    #[test]
    fn the_first_alias_counts_and_others_are_accepted() {
        let mut input = params(json!({"b": "2", "a": "1"}));
        assert_eq!(input.required(&["a", "b"], rules::text), "1");
        assert!(input.into_result().is_ok());
    }

    #[test]
    fn unknown_keys_are_refused_unless_ignored() {
        let input = params(json!({"x": 1}));
        assert_eq!(errors(input), json!({"x": "x is not allowed key"}));
        assert!(params(json!({"x": 1})).finish_ignoring_others().is_ok());
    }

    #[test]
    fn null_is_not_the_default() {
        let mut input = params(json!({"a": null}));
        assert_eq!(input.optional(&["a"], "d".to_owned(), rules::text), "d");
        assert_eq!(errors(input), json!({"a": "value is not a string"}));
    }
}
