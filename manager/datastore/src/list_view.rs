//! Lists that callers filter and order as they like: what may be asked of a field, and how
//! that becomes SQL.
//!
//! A caller never writes SQL: it names fields of a [`Field`] table and compares them with
//! values, which travel as parameters. Conditions are checked when they are made, so that
//! rendering cannot fail.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

/// A field that a list can be filtered or ordered by.
#[derive(Debug)]
pub struct Field {
    /// Its name for callers.
    pub name: &'static str,
    /// What it is in SQL. For [`Shape::Array`] an expression of an array.
    pub sql: &'static str,
    /// Its type.
    pub kind: Kind,
    /// One value or several.
    pub shape: Shape,
    /// Whether it may be filtered by.
    pub filter: bool,
    /// Whether it may be ordered by.
    pub order: bool,
}

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// An integer.
    Int,
    /// A truth value.
    Bool,
    /// A point in time.
    Date,
    /// An id.
    Uuid,
    /// One of these names, stored as the second of each pair.
    Enum(&'static [(&'static str, &'static str)]),
    /// Anything: can only be ordered by.
    Opaque,
}

/// Whether a field has one value or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One.
    Single,
    /// Several: a comparison holds if it holds for one of them.
    Array,
}

impl Field {
    /// A field of one value that can be filtered and ordered by.
    pub const fn new(name: &'static str, sql: &'static str, kind: Kind) -> Self {
        Self { name, sql, kind, shape: Shape::Single, filter: true, order: true }
    }

    /// The same with several values.
    pub const fn array(self) -> Self {
        Self { shape: Shape::Array, ..self }
    }

    /// The same, for filters only.
    pub const fn filter_only(self) -> Self {
        Self { order: false, ..self }
    }

    /// The same, for orders only.
    pub const fn order_only(self) -> Self {
        Self { filter: false, ..self }
    }
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Contains a text.
    Contains,
    /// Is one of several values.
    In,
    /// Is null, true or false.
    Is,
    /// Is not null, true or false.
    IsNot,
    /// Matches a pattern with `%` and `_`.
    Like,
    /// The same, in any case of letters.
    ILike,
}

/// A value to compare with, of the field's type.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// Text; also the stored text of an enumeration.
    Text(String),
    /// An integer.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// A point in time.
    Date(DateTime<Utc>),
    /// An id.
    Uuid(Uuid),
    /// Null.
    Null,
    /// Several texts, of [`Op::In`].
    Texts(Vec<String>),
    /// Several integers, of [`Op::In`].
    Ints(Vec<i64>),
    /// Several dates, of [`Op::In`].
    Dates(Vec<DateTime<Utc>>),
    /// Several ids, of [`Op::In`].
    Uuids(Vec<Uuid>),
}

/// A condition on the rows of a list.
#[derive(Clone, Debug)]
pub enum Condition {
    /// A field compared with a value.
    Compare(&'static Field, Op, Operand),
    /// Not so.
    Not(Box<Self>),
    /// Both.
    And(Box<Self>, Box<Self>),
    /// At least one.
    Or(Box<Self>, Box<Self>),
}

/// The order of a list: fields, and whether each descends.
pub type Order = Vec<(&'static Field, bool)>;

/// Sizes of pages that clients usually ask for. They are written into the statement, whose
/// plan then fits a short page; other sizes are parameters, so that the statements kept
/// prepared stay few.
const USUAL_LIMITS: [i64; 6] = [1, 10, 20, 30, 50, 100];

/// What part of a list is wanted.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// Only rows that fulfil this.
    pub filter: Option<Condition>,
    /// In this order; empty is the list's own.
    pub order: Order,
    /// At most so many rows.
    pub limit: i64,
    /// After so many.
    pub offset: i64,
}

impl Slice {
    /// The first rows in the list's own order.
    pub fn first(limit: i64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// How many rows there are in all, where a page of `shown` rows tells it: it is not full,
    /// and it is not beyond the end.
    pub(crate) fn total_if_last(&self, shown: usize) -> Option<i64> {
        let shown = i64::try_from(shown).ok()?;
        let is_last = shown < self.limit && (shown > 0 || self.offset <= 0);
        is_last.then(|| self.offset.max(0) + shown)
    }

    /// True when the statement's text depends on what the caller wrote, so that it should
    /// not be kept prepared.
    pub(crate) fn is_custom(&self) -> bool {
        self.filter.is_some() || !self.order.is_empty()
    }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// How many rows there are in all that fulfil the filter.
    pub total: i64,
}

/// Gathers the text and the parameters of a statement.
#[derive(Default)]
pub(crate) struct Sql {
    pub(crate) text: String,
    params: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

impl Sql {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), params: Vec::new() }
    }

    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Adds a parameter and its place in the text.
    pub(crate) fn bind<T: ToSql + Sync + Send + 'static>(
        &mut self,
        value: T,
        kind: Type,
    ) -> &mut Self {
        self.params.push((Box::new(value), kind));
        // Writing to a String cannot fail.
        let _ = write!(self.text, "${}", self.params.len());
        self
    }

    pub(crate) fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.params.iter().map(|(value, _)| &**value as &(dyn ToSql + Sync)).collect()
    }

    pub(crate) fn typed(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.params
            .iter()
            .map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone()))
            .collect()
    }

    pub(crate) fn condition(&mut self, condition: &Condition) {
        match condition {
            Condition::Not(inner) => {
                self.push("NOT (");
                self.condition(inner);
                self.push(")");
            }
            Condition::And(left, right) => self.pair(left, "AND", right),
            Condition::Or(left, right) => self.pair(left, "OR", right),
            Condition::Compare(field, op, operand) => match field.shape {
                Shape::Single => self.compare(field.sql, *op, operand),
                Shape::Array => {
                    self.push("EXISTS (SELECT FROM unnest(")
                        .push(field.sql)
                        .push(") AS element WHERE ");
                    self.compare("element", *op, operand);
                    self.push(")");
                }
            },
        }
    }

    fn pair(&mut self, left: &Condition, word: &str, right: &Condition) {
        self.push("(");
        self.condition(left);
        self.push(" ").push(word).push(" ");
        self.condition(right);
        self.push(")");
    }

    fn compare(&mut self, sql: &str, op: Op, operand: &Operand) {
        let text = match op {
            Op::Eq => " = ",
            Op::Ne => " <> ",
            Op::Gt => " > ",
            Op::Ge => " >= ",
            Op::Lt => " < ",
            Op::Le => " <= ",
            Op::Is => " IS NOT DISTINCT FROM ",
            Op::IsNot => " IS DISTINCT FROM ",
            Op::Like => "::text LIKE ",
            Op::ILike => "::text ILIKE ",
            Op::In => " = ANY(",
            Op::Contains => {
                self.push("(").push(sql).push(")::text LIKE '%' || ");
                self.operand(operand);
                self.push(" || '%'");
                return;
            }
        };
        self.push("(").push(sql).push(")").push(text);
        self.operand(operand);
        if op == Op::In {
            self.push(")");
        }
    }

    fn operand(&mut self, operand: &Operand) {
        match operand.clone() {
            Operand::Text(value) => self.bind(value, Type::TEXT),
            Operand::Int(value) => self.bind(value, Type::INT8),
            Operand::Bool(value) => self.bind(value, Type::BOOL),
            Operand::Date(value) => self.bind(value, Type::TIMESTAMPTZ),
            Operand::Uuid(value) => self.bind(value, Type::UUID),
            Operand::Null => self.push("NULL"),
            Operand::Texts(values) => self.bind(values, Type::TEXT_ARRAY),
            Operand::Ints(values) => self.bind(values, Type::INT8_ARRAY),
            Operand::Dates(values) => self.bind(values, Type::TIMESTAMPTZ_ARRAY),
            Operand::Uuids(values) => self.bind(values, Type::UUID_ARRAY),
        };
    }

    /// `ORDER BY`, `LIMIT` and `OFFSET`; `default` is the list's own order, and `id` breaks
    /// ties, so that pages neither overlap nor leave out.
    pub(crate) fn slice(&mut self, slice: &Slice, default: &str, id: &str) {
        self.push(" ORDER BY ");
        if slice.order.is_empty() {
            self.push(default);
        } else {
            for (field, descends) in &slice.order {
                self.push(field.sql).push(if *descends { " DESC, " } else { ", " });
            }
            self.push(id);
        }
        let limit = slice.limit.max(0);
        match USUAL_LIMITS.contains(&limit) {
            true => self.push(&format!(" LIMIT {limit}")),
            false => self.push(" LIMIT ").bind(limit, Type::INT8),
        };
        if slice.offset > 0 {
            self.push(" OFFSET ").bind(slice.offset, Type::INT8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NAME: Field = Field::new("name", "s.name", Kind::Text);
    static AGENTS: Field = Field::new("agents", "s.agents", Kind::Text).array();

    #[test]
    fn values_travel_as_parameters() {
        let evil = "x' OR 1=1 --".to_owned();
        let condition = Condition::And(
            Box::new(Condition::Compare(&NAME, Op::Eq, Operand::Text(evil))),
            Box::new(Condition::Not(Box::new(Condition::Compare(
                &AGENTS,
                Op::Contains,
                Operand::Text("i-".into()),
            )))),
        );
        let mut sql = Sql::new("");
        sql.condition(&condition);
        assert_eq!(
            sql.text,
            "((s.name) = $1 AND NOT (EXISTS (SELECT FROM unnest(s.agents) AS element \
             WHERE (element)::text LIKE '%' || $2 || '%')))"
        );
        assert_eq!(sql.values().len(), 2);
    }

    #[test]
    fn an_order_ends_with_what_breaks_ties() {
        let slice = Slice { order: vec![(&NAME, true)], limit: 5, ..Slice::default() };
        let mut sql = Sql::new("");
        sql.slice(&slice, "s.id", "s.id");
        assert_eq!(sql.text, " ORDER BY s.name DESC, s.id LIMIT $1");
        let slice = Slice { limit: 20, offset: 40, ..Slice::default() };
        let mut sql = Sql::new("");
        sql.slice(&slice, "s.id", "s.id");
        assert_eq!(sql.text, " ORDER BY s.id LIMIT 20 OFFSET $1");
    }
}
