//! A documented file of all keys, made from the sections' own source.
//!
//! The text of the comments is the fields' documentation and the values are the defaults,
//! so that the reference cannot differ from the program; a test of each daemon compares it
//! with the file in `docs/config/`.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Makes the reference. `source` is the Rust text that declares `root` and its sections, and
/// `defaults` the default configuration as TOML. Keys without a default are commented out.
///
/// # Errors
/// A struct of the configuration is not in the source, or a value is not TOML.
pub fn reference(source: &str, root: &str, defaults: &toml::Table) -> Result<String, String> {
    let structs = parse(source);
    let sections = structs.get(root).ok_or_else(|| format!("no struct {root} in the source"))?;
    let mut text = String::new();
    for section in sections {
        let fields = structs
            .get(section.kind.as_str())
            .ok_or_else(|| format!("no struct {} in the source", section.kind))?;
        comment(&mut text, &section.doc);
        writeln!(text, "[{}]", section.key).map_err(|e| e.to_string())?;
        let values = defaults.get(&section.key).and_then(toml::Value::as_table);
        for field in fields {
            comment(&mut text, &field.doc);
            match values.and_then(|values| values.get(&field.key)) {
                Some(value) => writeln!(text, "{} = {value}", field.key),
                None => writeln!(text, "# {} =", field.key),
            }
            .map_err(|e| e.to_string())?;
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    Ok(text)
}

fn comment(text: &mut String, doc: &[String]) {
    for line in doc {
        text.push_str("# ");
        text.push_str(line);
        text.push('\n');
    }
}

/// A field with its key in files, its type and its documentation.
struct Field {
    key: String,
    kind: String,
    doc: Vec<String>,
}

/// The public fields of all structs of rustfmt-ed source.
fn parse(source: &str) -> BTreeMap<String, Vec<Field>> {
    let mut structs = BTreeMap::<String, Vec<Field>>::new();
    let mut current = None;
    let mut doc = Vec::new();
    for line in source.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim().to_owned());
            continue;
        }
        if line.starts_with("#[") {
            continue;
        }
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|l| l.strip_suffix(" {")) {
            current = Some(name.to_owned());
            structs.entry(name.to_owned()).or_default();
        } else if line == "}" {
            current = None;
        } else if let Some(name) = &current
            && let Some((field, kind)) =
                line.strip_prefix("pub ").and_then(|rest| rest.split_once(": "))
        {
            structs.entry(name.clone()).or_default().push(Field {
                key: field.replace('_', "-"),
                kind: kind.trim_end_matches(',').to_owned(),
                doc: std::mem::take(&mut doc),
            });
        }
        doc.clear();
    }
    structs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_defaults_make_a_file() {
        let source = r#"
            /// Whole.
            pub struct Root {
                /// One section.
                pub first: First,
            }
            /// Not shown.
            #[derive(Clone)]
            pub struct First {
                /// How many.
                /// At least one.
                #[serde(default)]
                pub pool_size: usize,
                /// A file.
                pub path: Option<PathBuf>,
            }
        "#;
        let defaults = "[first]\npool-size = 8".parse().unwrap();
        let expected = "# One section.\n[first]\n# How many.\n# At least one.\npool-size = 8\n# A file.\n# path =\n";
        assert_eq!(reference(source, "Root", &defaults).unwrap(), expected);
        assert!(reference(source, "Other", &defaults).is_err());
    }
}
