//! Puts an answer into the order in which it was asked.
//!
//! The executor resolves the fields of an object concurrently and stores each when it is
//! ready; clients of this API (the stock one prints tables from it) rely on the order of the
//! query. It also leaves out fields that failed, which are to be null.

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use async_graphql::{Name, PathSegment, ServerError, Value};

/// The response keys of a selection, in order, with those of their own selections.
#[derive(Debug, Default, PartialEq)]
pub struct Shape(Vec<(Name, Shape)>);

impl Shape {
    /// The shape of an operation's answer. `None` for documents with more than `budget`
    /// fields, which the executor refuses too, and for unknown operations.
    pub fn of(
        document: &ExecutableDocument,
        operation: Option<&str>,
        budget: usize,
    ) -> Option<Self> {
        let mut operations = document.operations.iter();
        let (_, operation) = match operation {
            Some(wanted) => {
                operations.find(|(name, _)| name.is_some_and(|name| name.as_str() == wanted))?
            }
            None => operations.next()?,
        };
        let mut shape = Self::default();
        let mut budget = budget;
        shape.collect(&operation.node.selection_set.node, document, &mut budget)?;
        Some(shape)
    }

    fn collect(
        &mut self,
        set: &SelectionSet,
        document: &ExecutableDocument,
        budget: &mut usize,
    ) -> Option<()> {
        for item in &set.items {
            *budget = budget.checked_sub(1)?;
            match &item.node {
                Selection::Field(field) => {
                    let key = &field.node.response_key().node;
                    let index = match self.0.iter().position(|(known, _)| known == key) {
                        Some(index) => index,
                        None => {
                            self.0.push((key.clone(), Self::default()));
                            self.0.len() - 1
                        }
                    };
                    self.0[index].1.collect(&field.node.selection_set.node, document, budget)?;
                }
                Selection::InlineFragment(fragment) => {
                    self.collect(&fragment.node.selection_set.node, document, budget)?;
                }
                Selection::FragmentSpread(spread) => {
                    // An unknown fragment is the executor's to refuse.
                    if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node)
                    {
                        self.collect(&fragment.node.selection_set.node, document, budget)?;
                    }
                }
            }
        }
        Some(())
    }

    /// Orders an answer.
    pub fn arrange(&self, value: &mut Value) {
        match value {
            Value::List(items) => items.iter_mut().for_each(|item| self.arrange(item)),
            Value::Object(fields) => {
                if !self.is_ordered(fields) {
                    let mut old = std::mem::take(fields);
                    for (key, _) in &self.0 {
                        if let Some(value) = old.shift_remove(key) {
                            fields.insert(key.clone(), value);
                        }
                    }
                    fields.extend(old);
                }
                for (key, shape) in self.0.iter().filter(|(_, shape)| !shape.0.is_empty()) {
                    if let Some(value) = fields.get_mut(key) {
                        shape.arrange(value);
                    }
                }
            }
            _ => {}
        }
    }

    fn is_ordered(&self, fields: &IndexMap<Name, Value>) -> bool {
        let mut wanted = self.0.iter();
        fields.keys().all(|key| wanted.any(|(known, _)| known == key))
    }
}

/// Makes the fields that failed null. Errors without a path are those of the whole query.
pub fn fill_failed(data: &mut Value, errors: &[ServerError]) {
    for error in errors {
        let Some((PathSegment::Field(last), parents)) = error.path.split_last() else { continue };
        if parents.is_empty() && *data == Value::Null {
            *data = Value::Object(IndexMap::new());
        }
        if let Some(Value::Object(fields)) = descend(data, parents) {
            fields.entry(Name::new(last)).or_insert(Value::Null);
        }
    }
}

fn descend<'a>(mut value: &'a mut Value, path: &[PathSegment]) -> Option<&'a mut Value> {
    for segment in path {
        value = match (segment, value) {
            (PathSegment::Field(name), Value::Object(fields)) => fields.get_mut(name.as_str())?,
            (PathSegment::Index(index), Value::List(items)) => items.get_mut(*index)?,
            _ => return None,
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::parser::parse_query;

    fn arranged(query: &str, json: &str) -> String {
        let document = parse_query(query).unwrap();
        let mut value: Value = serde_json::from_str(json).unwrap();
        Shape::of(&document, None, 100).unwrap().arrange(&mut value);
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn answers_follow_the_query() {
        assert_eq!(
            arranged("{ b a { y x: z } }", r#"{"a":[{"x":1,"y":2},null],"b":3}"#),
            r#"{"b":3,"a":[{"y":2,"x":1},null]}"#
        );
        assert_eq!(
            arranged(
                "{ ...F a { z } c } fragment F on Queries { b a { y } ... on Queries { d } }",
                r#"{"a":{"z":1,"y":2},"c":3,"d":4,"b":5}"#
            ),
            r#"{"b":5,"a":{"y":2,"z":1},"d":4,"c":3}"#
        );
    }

    #[test]
    fn fields_that_failed_are_null_where_they_were_asked() {
        let mut data: Value = serde_json::from_str(r#"{"a":[{"x":1},{}]}"#).unwrap();
        let failed =
            |path: Vec<PathSegment>| ServerError { path, ..ServerError::new("failed", None) };
        let field = |name: &str| PathSegment::Field(name.to_owned());
        fill_failed(
            &mut data,
            &[
                failed(vec![field("a"), PathSegment::Index(1), field("x")]),
                failed(vec![field("b")]),
            ],
        );
        assert_eq!(serde_json::to_string(&data).unwrap(), r#"{"a":[{"x":1},{"x":null}],"b":null}"#);

        let mut nothing = Value::Null;
        fill_failed(&mut nothing, &[failed(vec![])]);
        assert_eq!(nothing, Value::Null);
        fill_failed(&mut nothing, &[failed(vec![field("b")])]);
        assert_eq!(serde_json::to_string(&nothing).unwrap(), r#"{"b":null}"#);
    }

    #[test]
    fn documents_beyond_the_budget_have_no_shape() {
        let document = parse_query("{ a b c }").unwrap();
        assert!(Shape::of(&document, None, 3).is_some());
        assert!(Shape::of(&document, None, 2).is_none());
        let endless = parse_query("{ ...F } fragment F on Queries { a ...F }").unwrap();
        assert!(Shape::of(&endless, None, 100).is_none());
        let two = parse_query("query A { a } query B { b }").unwrap();
        assert_eq!(
            Shape::of(&two, Some("B"), 9),
            Some(Shape(vec![(Name::new("b"), Shape::default())]))
        );
        assert!(Shape::of(&two, Some("C"), 9).is_none());
    }
}
