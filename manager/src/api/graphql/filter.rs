//! The filter and order mini-languages of lists.
//!
//! ```text
//! expr  := '!' expr | term [('&'|'|') expr]
//! term  := '(' expr ')' | NAME op value
//! value := "text" | number | '[' [value (',' value)*] ']' | null | true | false
//! order := ['+'|'-'] NAME (',' ['+'|'-'] NAME)*
//! ```
//!
//! `&` and `|` bind alike and to the right, and `!` takes all that follows it: that is how
//! the product reads them, so users parenthesise.

use backendai_datastore::list_view::{Condition, Field, Kind, Op, Operand, Order};
use uuid::Uuid;

use crate::api::auth::date;

/// Terms one filter may have: far more than anybody writes, few enough for any stack.
const MAX_TERMS: usize = 200;

/// Reads a filter over these fields.
///
/// # Errors
/// It is not one, in words for the caller.
pub fn parse_filter(text: &str, fields: &'static [Field]) -> Result<Condition, String> {
    let failed = |message: String| format!("Query filter parsing error: {message}");
    let tokens = tokenize(text).map_err(failed)?;
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), fields, terms: 0 };
    let condition = parser.expression().map_err(|error| match error {
        Failure::Syntax(message) => failed(message),
        Failure::Field(name) => unknown_field(&name),
        Failure::Value(message) => message,
    })?;
    match parser.tokens.next() {
        None => Ok(condition),
        Some(token) => Err(failed(format!("unexpected {token:?} after the expression"))),
    }
}

/// Reads an order over these fields. Nothing is no order.
///
/// # Errors
/// It is not one, in words for the caller.
pub fn parse_order(text: &str, fields: &'static [Field]) -> Result<Order, String> {
    if text.trim().is_empty() {
        return Ok(Order::new());
    }
    text.split(',')
        .map(|part| {
            let part = part.trim();
            let (descends, name) = match part.strip_prefix('-') {
                Some(name) => (true, name),
                None => (false, part.strip_prefix('+').unwrap_or(part)),
            };
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !is_name {
                return Err(format!("Query ordering parsing error: {part:?} is not a field name"));
            }
            let field = fields.iter().find(|field| field.order && field.name == name);
            field.map(|field| (field, descends)).ok_or_else(|| unknown_field(name))
        })
        .collect()
}

fn unknown_field(name: &str) -> String {
    format!("('Unknown/unsupported field name', '{name}')")
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    Symbol(char),
    Op(Op),
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Null,
    Array(Vec<Literal>),
}

enum Failure {
    Syntax(String),
    Field(String),
    Value(String),
}

fn tokenize(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let (token, length) = match c {
            '"' => read_text(rest)?,
            '(' | ')' | '[' | ']' | ',' | '&' | '|' => (Token::Symbol(c), 1),
            '=' | '!' | '>' | '<' => match (rest.get(..2), c) {
                (Some("=="), _) => (Token::Op(Op::Eq), 2),
                (Some("!="), _) => (Token::Op(Op::Ne), 2),
                (Some(">="), _) => (Token::Op(Op::Ge), 2),
                (Some("<="), _) => (Token::Op(Op::Le), 2),
                (_, '>') => (Token::Op(Op::Gt), 1),
                (_, '<') => (Token::Op(Op::Lt), 1),
                (_, '!') => (Token::Symbol('!'), 1),
                _ => return Err("a single '=' (equality is '==')".into()),
            },
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => read_number(rest)?,
            c if c.is_ascii_alphabetic() || c == '_' => read_word(rest),
            other => return Err(format!("unexpected character {other:?}")),
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn read_text(rest: &str) -> Result<(Token, usize), String> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(value), at + 1)),
            '\\' => match chars.next() {
                Some((_, '"')) => value.push('"'),
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err("a text without its closing quote".into())
}

fn read_number(rest: &str) -> Result<(Token, usize), String> {
    let length = rest
        .char_indices()
        .find(|(at, c)| {
            let sign = matches!(c, '+' | '-')
                && (*at == 0 || matches!(rest.as_bytes()[at - 1], b'e' | b'E'));
            !(c.is_ascii_digit() || sign || matches!(c, '.' | 'e' | 'E'))
        })
        .map_or(rest.len(), |(at, _)| at);
    let text = &rest[..length];
    let token = match (text.parse(), text.parse::<f64>()) {
        (Ok(int), _) => Token::Int(int),
        (_, Ok(float)) if float.is_finite() => Token::Float(float),
        _ => return Err(format!("{text:?} is not a number")),
    };
    Ok((token, length))
}

fn read_word(rest: &str) -> (Token, usize) {
    let length =
        rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let word = &rest[..length];
    let token = match word {
        "contains" => Token::Op(Op::Contains),
        "in" => Token::Op(Op::In),
        "is" => Token::Op(Op::Is),
        "isnot" => Token::Op(Op::IsNot),
        "like" => Token::Op(Op::Like),
        "ilike" => Token::Op(Op::ILike),
        _ => Token::Name(word.to_owned()),
    };
    (token, length)
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    fields: &'static [Field],
    terms: usize,
}

impl Parser {
    fn expression(&mut self) -> Result<Condition, Failure> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(Failure::Syntax(format!("more than {MAX_TERMS} terms")));
        }
        if self.tokens.next_if_eq(&Token::Symbol('!')).is_some() {
            return Ok(Condition::Not(Box::new(self.expression()?)));
        }
        let left = self.term()?;
        if self.tokens.next_if_eq(&Token::Symbol('&')).is_some() {
            return Ok(Condition::And(Box::new(left), Box::new(self.expression()?)));
        }
        if self.tokens.next_if_eq(&Token::Symbol('|')).is_some() {
            return Ok(Condition::Or(Box::new(left), Box::new(self.expression()?)));
        }
        Ok(left)
    }

    fn term(&mut self) -> Result<Condition, Failure> {
        match self.tokens.next() {
            Some(Token::Symbol('(')) => {
                let inner = self.expression()?;
                self.expect(')')?;
                Ok(inner)
            }
            Some(Token::Name(name)) => {
                let Some(Token::Op(op)) = self.tokens.next() else {
                    return Err(Failure::Syntax(format!("an operator must follow {name}")));
                };
                let value = self.value()?;
                let field = self.fields.iter().find(|field| field.filter && field.name == name);
                let field = field.ok_or(Failure::Field(name))?;
                compare(field, op, value)
            }
            Some(token) => Err(Failure::Syntax(format!("unexpected {token:?}"))),
            None => Err(Failure::Syntax("unexpected end".into())),
        }
    }

    fn value(&mut self) -> Result<Literal, Failure> {
        match self.tokens.next() {
            Some(Token::Text(text)) => Ok(Literal::Text(text)),
            Some(Token::Int(int)) => Ok(Literal::Int(int)),
            Some(Token::Float(float)) => Ok(Literal::Float(float)),
            Some(Token::Name(word)) => match word.as_str() {
                "null" => Ok(Literal::Null),
                "true" => Ok(Literal::Bool(true)),
                "false" => Ok(Literal::Bool(false)),
                _ => Err(Failure::Syntax(format!("{word} is not a value (texts are quoted)"))),
            },
            Some(Token::Symbol('[')) => self.array(),
            Some(token) => Err(Failure::Syntax(format!("unexpected {token:?}"))),
            None => Err(Failure::Syntax("a value is missing".into())),
        }
    }

    /// What follows `[`. Arrays do not nest: no field has arrays for values.
    fn array(&mut self) -> Result<Literal, Failure> {
        let mut values = Vec::new();
        if self.tokens.next_if_eq(&Token::Symbol(']')).is_some() {
            return Ok(Literal::Array(values));
        }
        loop {
            if self.tokens.peek() == Some(&Token::Symbol('[')) {
                return Err(Failure::Syntax("an array within an array".into()));
            }
            values.push(self.value()?);
            match self.tokens.next() {
                Some(Token::Symbol(',')) => {}
                Some(Token::Symbol(']')) => return Ok(Literal::Array(values)),
                _ => return Err(Failure::Syntax("an array without its closing bracket".into())),
            }
        }
    }

    fn expect(&mut self, symbol: char) -> Result<(), Failure> {
        match self.tokens.next_if_eq(&Token::Symbol(symbol)) {
            Some(_) => Ok(()),
            None => Err(Failure::Syntax(format!("{symbol:?} is missing"))),
        }
    }
}

/// Gives the value the field's type.
fn compare(field: &'static Field, op: Op, value: Literal) -> Result<Condition, Failure> {
    let wrong = |what: &str| Failure::Value(format!("{}: {what}", field.name));
    let (op, operand) = match (op, value) {
        (Op::Contains | Op::Like | Op::ILike, Literal::Text(text)) => (op, Operand::Text(text)),
        (Op::Contains | Op::Like | Op::ILike, _) => return Err(wrong("expected a text")),
        (Op::In, Literal::Array(values)) => (op, convert_all(field, values)?),
        (Op::In, _) => return Err(wrong("expected an array")),
        (_, Literal::Array(_)) => return Err(wrong("an array goes with `in` only")),
        (Op::Is | Op::IsNot, Literal::Null) => (op, Operand::Null),
        (Op::Is | Op::IsNot, Literal::Bool(flag)) if field.kind == Kind::Bool => {
            (op, Operand::Bool(flag))
        }
        (Op::Is | Op::IsNot, _) => return Err(wrong("`is` goes with null, true and false only")),
        // SQL would make these neither true nor false.
        (Op::Eq, Literal::Null) => (Op::Is, Operand::Null),
        (Op::Ne, Literal::Null) => (Op::IsNot, Operand::Null),
        (_, Literal::Null) => return Err(wrong("null has no order")),
        (_, value) => (op, convert(field, value)?),
    };
    Ok(Condition::Compare(field, op, operand))
}

fn convert(field: &Field, value: Literal) -> Result<Operand, Failure> {
    let wrong = |what: &str| Failure::Value(format!("{}: {what}", field.name));
    match (field.kind, value) {
        (Kind::Text, Literal::Text(text)) => Ok(Operand::Text(text)),
        (Kind::Text, _) => Err(wrong("expected a text")),
        (Kind::Int, Literal::Int(int)) => Ok(Operand::Int(int)),
        (Kind::Int, Literal::Text(text)) => {
            text.parse().map(Operand::Int).map_err(|_| wrong("expected an integer"))
        }
        (Kind::Int, _) => Err(wrong("expected an integer")),
        (Kind::Bool, Literal::Bool(flag)) => Ok(Operand::Bool(flag)),
        (Kind::Bool, _) => Err(wrong("expected true or false")),
        (Kind::Date, Literal::Text(text)) => date::parse(&text)
            .map(|at| Operand::Date(at.to_utc()))
            .ok_or_else(|| wrong(&format!("{text:?} is not a date"))),
        (Kind::Date, _) => Err(wrong("expected a date as text")),
        (Kind::Uuid, Literal::Text(text)) => Uuid::parse_str(&text)
            .map(Operand::Uuid)
            .map_err(|_| wrong(&format!("{text:?} is not a UUID"))),
        (Kind::Uuid, _) => Err(wrong("expected a UUID as text")),
        (Kind::Enum(names), value) => {
            let text = if let Literal::Text(text) = &value { text.as_str() } else { "" };
            let found = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            found.map(|(_, stored)| Operand::Text((*stored).to_owned())).ok_or_else(|| {
                let all: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
                Failure::Value(format!("expected one of {}", all.join(", ")))
            })
        }
        (Kind::Opaque, _) => Err(Failure::Field(field.name.to_owned())),
    }
}

fn convert_all(field: &Field, values: Vec<Literal>) -> Result<Operand, Failure> {
    let mut texts = Vec::new();
    let mut ints = Vec::new();
    let mut dates = Vec::new();
    let mut uuids = Vec::new();
    for value in values {
        match convert(field, value)? {
            Operand::Text(text) => texts.push(text),
            Operand::Int(int) => ints.push(int),
            Operand::Date(date) => dates.push(date),
            Operand::Uuid(id) => uuids.push(id),
            _ => return Err(Failure::Value(format!("{}: `in` needs other values", field.name))),
        }
    }
    Ok(match field.kind {
        Kind::Int => Operand::Ints(ints),
        Kind::Date => Operand::Dates(dates),
        Kind::Uuid => Operand::Uuids(uuids),
        Kind::Text | Kind::Enum(_) | Kind::Bool | Kind::Opaque => Operand::Texts(texts),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use backendai_datastore::agent_list_view::AGENT_FIELDS;
    use backendai_datastore::session_list_view::SESSION_FIELDS;

    /// A condition in one line, as it was understood.
    fn show(condition: &Condition) -> String {
        match condition {
            Condition::Not(inner) => format!("!({})", show(inner)),
            Condition::And(left, right) => format!("({} & {})", show(left), show(right)),
            Condition::Or(left, right) => format!("({} | {})", show(left), show(right)),
            Condition::Compare(field, op, operand) => format!("{} {op:?} {operand:?}", field.name),
        }
    }

    fn read(text: &str) -> Result<String, String> {
        parse_filter(text, SESSION_FIELDS).map(|condition| show(&condition))
    }

    #[test]
    fn filters_are_read_as_the_product_reads_them() {
        for (text, understood) in [
            (r#"name == "a""#, r#"name Eq Text("a")"#),
            (r#"name=="a\"b\\n""#, r#"name Eq Text("a\"b\\\\n")"#),
            (
                r#"status == "running" & result in ["SUCCESS","failure"]"#,
                r#"(status Eq Text("RUNNING") & result In Texts(["SUCCESS", "FAILURE"]))"#,
            ),
            (
                r#"name == "a" & name == "b" | name == "c""#,
                r#"(name Eq Text("a") & (name Eq Text("b") | name Eq Text("c")))"#,
            ),
            (
                r#"(name == "a" & name == "b") | name == "c""#,
                r#"((name Eq Text("a") & name Eq Text("b")) | name Eq Text("c"))"#,
            ),
            (r#"!name == "a" & name == "b""#, r#"!((name Eq Text("a") & name Eq Text("b")))"#),
            ("full_name isnot null", "full_name IsNot Null"),
            ("starts_at == null", "starts_at Is Null"),
            ("cluster_size >= 2", "cluster_size Ge Int(2)"),
            ("cluster_size > -1", "cluster_size Gt Int(-1)"),
            (r#"cluster_mode == "SINGLE_NODE""#, r#"cluster_mode Eq Text("single-node")"#),
            (
                r#"created_at >= "2021-01-01" & created_at < "2023-01-01""#,
                "(created_at Ge Date(2021-01-01T00:00:00Z) & created_at Lt Date(2023-01-01T00:00:00Z))",
            ),
            (r#"user_email ilike "%@example.com""#, r#"user_email ILike Text("%@example.com")"#),
            (r#"image contains "python""#, r#"image Contains Text("python")"#),
            ("name in []", "name In Texts([])"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(understood), "{text}");
        }
        let agents = parse_filter("!(schedulable == true)", AGENT_FIELDS).unwrap();
        assert_eq!(show(&agents), "!(schedulable Eq Bool(true))");
    }

    #[test]
    fn what_is_no_filter_is_said_in_words() {
        for (text, words) in [
            ("", "Query filter parsing error: unexpected end"),
            (r#"name = "a""#, "Query filter parsing error: a single '='"),
            ("name == a", "Query filter parsing error: a is not a value"),
            (r#"name == "a"#, "Query filter parsing error: a text without"),
            (r#"name == "a") "#, "Query filter parsing error: unexpected Symbol(')')"),
            (r#"(name == "a""#, "Query filter parsing error: ')' is missing"),
            (r#"name == "a" name == "b""#, "Query filter parsing error: unexpected Name"),
            (r#"nope == "a""#, "('Unknown/unsupported field name', 'nope')"),
            (r#"status == "x""#, "expected one of PENDING, SCHEDULED"),
            (r#"created_at > "soon""#, r#"created_at: "soon" is not a date"#),
            (r#"id == "x""#, r#"id: "x" is not a UUID"#),
            ("name in 3", "name: expected an array"),
            ("name == [1]", "name: an array goes with `in` only"),
            ("name is 3", "name: `is` goes with"),
            ("name == ☃", "Query filter parsing error: unexpected character"),
        ] {
            let message = read(text).expect_err(text);
            assert!(message.starts_with(words), "{text}: {message}");
        }
        let deep = format!("{}name == 1{}", "(".repeat(5000), ")".repeat(5000));
        assert!(read(&deep).unwrap_err().contains("more than 200 terms"));
    }

    #[test]
    fn orders_are_read() {
        let order = parse_order("-created_at, +name,id", SESSION_FIELDS).unwrap();
        let shown: Vec<_> = order.iter().map(|(field, desc)| (field.name, *desc)).collect();
        assert_eq!(shown, [("created_at", true), ("name", false), ("id", false)]);
        assert!(parse_order(" ", SESSION_FIELDS).unwrap().is_empty());
        assert_eq!(
            parse_order("startup_command", SESSION_FIELDS).unwrap_err(),
            "('Unknown/unsupported field name', 'startup_command')"
        );
        assert!(parse_order("-", SESSION_FIELDS).unwrap_err().starts_with("Query ordering"));
    }
}
