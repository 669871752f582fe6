//! How lists are printed.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
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

/// A bar or counter on standard error that shows how long work goes on; nothing where nobody
/// looks.
///
/// # Errors
/// The template is wrong.
pub(super) fn progress_bar(template: &str) -> Result<ProgressBar> {
    let bar = ProgressBar::new(0);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template(template).context("the progress bar's template")?;
    bar.set_style(style);
    Ok(bar)
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
