//! Logs: one line per happening on standard error, as text or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Starts logging. `level` is a level name or a full filter; `RUST_LOG` overrides it.
/// Later calls do nothing, so that tests may call it freely.
pub fn init(level: &str, format: LogFormat) {
    let level = match level.to_ascii_uppercase().as_str() {
        "CRITICAL" => "error".to_owned(),
        "WARNING" => "warn".to_owned(),
        "NOTSET" => "trace".to_owned(),
        _ => level.to_ascii_lowercase(),
    };
    // Libraries below their warnings drown what the daemon itself has to say.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        let quiet = "h2=warn,hyper=warn,tonic=warn,tower=warn,bollard=info,tungstenite=warn,tokio_postgres=warn";
        EnvFilter::new(format!("{level},{quiet}"))
    });
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    let result = match format {
        LogFormat::Text => {
            use std::io::IsTerminal;
            builder.with_ansi(std::io::stderr().is_terminal()).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if result.is_err() {
        tracing::debug!("logging was set up before");
    }
}

/// The whole chain of an error's causes in one line: `create kernel: pull image: connection refused`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
