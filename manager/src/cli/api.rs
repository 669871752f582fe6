//! `api` and `gql`: what the API looks like, for programs that use it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;

use super::output::say;
use crate::api;

#[derive(Debug, Subcommand)]
pub(super) enum ApiCommand {
    /// Print the GraphQL schema.
    DumpGqlSchema(Output),
    /// Print the OpenAPI document of the REST API, as `/spec` answers it.
    DumpOpenapi(Output),
}

#[derive(Debug, Subcommand)]
pub(super) enum GqlCommand {
    /// Print the GraphQL schema; `api dump-gql-schema` is its name now.
    Show,
}

#[derive(Debug, clap::Args)]
pub(super) struct Output {
    /// File to write; `-` is standard output.
    #[arg(short, long, default_value = "-", value_name = "PATH")]
    output_file: PathBuf,
}

pub(super) fn run(command: &ApiCommand) -> Result<()> {
    match command {
        ApiCommand::DumpGqlSchema(output) => write(&output.output_file, &schema()),
        ApiCommand::DumpOpenapi(output) => {
            let text = serde_json::to_string_pretty(&api::openapi::document())?;
            write(&output.output_file, &text)
        }
    }
}

pub(super) fn gql(command: &GqlCommand) {
    let GqlCommand::Show = command;
    eprintln!("warning: `gql show` is deprecated, use `api dump-gql-schema`");
    say(format_args!("{}", schema().trim_end()));
}

fn schema() -> String {
    api::graphql::schema().sdl()
}

fn write(path: &Path, text: &str) -> Result<()> {
    if path == Path::new("-") {
        say(format_args!("{}", text.trim_end()));
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
