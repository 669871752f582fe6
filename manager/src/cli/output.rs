//! How lists are printed.

use std::io::Write;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OutputFormat {
    /// Tables and sentences.
    #[default]
    Console,
    /// One JSON document.
    Json,
}

/// Prints a table; an empty one shows its head alone.
pub(super) fn print_table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(head.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    say(format_args!("{}", table.trim_fmt()));
}

/// Prints a JSON document, indented as the product does.
///
/// # Errors
/// The value is not JSON.
pub(super) fn print_json(value: &Value) -> Result<()> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(value, &mut serializer)?;
    say(format_args!("{}", String::from_utf8_lossy(&text)));
    Ok(())
}

/// Prints a line of the command's result. A reader that has gone (`| head`) ends the
/// process quietly, as it does for other programs.
pub(super) fn say(text: std::fmt::Arguments<'_>) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}
