//! Errors that tell the operator where to look.

use std::path::{Path, PathBuf};

use toml_edit::Document;

/// A configuration that cannot be used. The text names file, line and key where there are any.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file was named and is not there.
    #[error("configuration file {} does not exist", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("read configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// `file:line:column`.
        place: String,
        /// What the parser says.
        message: String,
    },
    /// An unknown key, a wrong type, a missing value.
    #[error("{place}: {message}")]
    Value {
        /// `file:line:column`, or the variable that gave the value.
        place: String,
        /// What is wrong, with the key.
        message: String,
    },
    /// Values that contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// Parses the file once for its syntax, since the parser knows line and column.
pub(super) fn check_syntax(path: &Path) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    match text.parse::<Document<String>>() {
        Ok(_) => Ok(()),
        Err(error) => Err(ConfigError::Syntax {
            place: place(path, &text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        }),
    }
}

/// Turns figment's error, which knows the key, into one that knows the line too.
pub(super) fn explain(error: figment::Error, file: Option<&Path>, name: &str) -> ConfigError {
    let mut path = error.path.clone();
    let kind = error.kind.to_string();
    if let figment::error::Kind::UnknownField(field, _) = &error.kind
        && path.last() != Some(field)
    {
        path.push(field.clone());
    }
    let key = path.join(".");
    let source =
        error.metadata.as_ref().and_then(|m| m.source.as_ref()).and_then(|s| s.file_path());
    let place = match (source, &error.metadata) {
        (Some(path_of_file), _) => locate(path_of_file, &path),
        (None, Some(metadata)) if metadata.name.starts_with("environment") => {
            metadata.name.to_string()
        }
        _ => file.map_or_else(|| format!("{name}.toml"), |path| path.display().to_string()),
    };
    let mut message = if key.is_empty() { kind } else { format!("{key}: {kind}") };
    if let figment::error::Kind::UnknownField(field, known) = &error.kind
        && let Some(meant) = nearest(field, known)
    {
        message.push_str(&format!("; did you mean `{meant}`?"));
    }
    ConfigError::Value { place, message }
}

/// The known name that a misspelt one stands for, if it is near enough to be worth saying.
fn nearest<'a>(misspelt: &str, known: &[&'a str]) -> Option<&'a str> {
    let misspelt = misspelt.replace('_', "-");
    let (distance, name) =
        known.iter().map(|name| (edits(&misspelt, name), *name)).min_by_key(|(d, _)| *d)?;
    (distance <= misspelt.chars().count().div_ceil(3)).then_some(name)
}

/// How many letters must be added, dropped or changed to make one word the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// `file:line:column` of a key, or of the innermost of its tables that is there.
pub(super) fn locate(file: &Path, key: &[String]) -> String {
    let Ok(text) = std::fs::read_to_string(file) else { return file.display().to_string() };
    let Ok(document) = text.parse::<Document<String>>() else {
        return file.display().to_string();
    };
    let mut table: &dyn toml_edit::TableLike = document.as_table();
    let mut offset = 0;
    for part in key {
        let Some((found, item)) = table.get_key_value(part) else { break };
        if let Some(span) = found.span().or_else(|| item.span()) {
            offset = span.start;
        }
        match item.as_table_like() {
            Some(inner) => table = inner,
            None => break,
        }
    }
    place(file, &text, offset)
}

fn place(file: &Path, text: &str, offset: usize) -> String {
    let before = &text[..offset.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    format!("{}:{line}:{column}", file.display())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_misspelt_key_finds_the_one_meant() {
        let known = &["pool-size", "addr", "namespace"];
        assert_eq!(nearest("pol-size", known), Some("pool-size"));
        assert_eq!(nearest("pool_size", known), Some("pool-size"));
        assert_eq!(nearest("namspace", known), Some("namespace"));
        assert_eq!(nearest("entirely-else", known), None);
    }
}
