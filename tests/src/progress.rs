//! What a person waiting sees: a spinner on a terminal, plain lines elsewhere, always on
//! standard error so that standard output stays what was asked for.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Without a terminal, how often a long step says that it is still there.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);

/// pip and apt print lines of several thousand characters.
const PLAIN_WIDTH: usize = 100;

/// Where steps are shown.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Silent,
    Plain,
    Spinner,
}

impl Progress {
    /// For a person: a spinner if standard error is a terminal, lines otherwise.
    pub fn shown() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { style: if terminal { Style::Spinner } else { Style::Plain } }
    }

    /// For tests: nothing.
    pub fn silent() -> Self {
        Self { style: Style::Silent }
    }

    /// Begins a step. It counts as failed when dropped before [`Step::done`].
    pub fn step(&self, title: &str) -> Step {
        let bar = (self.style == Style::Spinner).then(|| {
            let bar = ProgressBar::new_spinner();
            let template = "{spinner} {prefix} {wide_msg:.dim}";
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.set_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let now = Instant::now();
        Step {
            title: title.to_owned(),
            style: self.style,
            begun: now,
            spoke: now,
            bar,
            finished: false,
        }
    }
}

/// One step that takes a while.
#[derive(Debug)]
pub struct Step {
    title: String,
    style: Style,
    begun: Instant,
    spoke: Instant,
    bar: Option<ProgressBar>,
    finished: bool,
}

impl Step {
    /// Says what it is at now.
    pub fn note(&mut self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        } else if self.style == Style::Plain && self.spoke.elapsed() >= PLAIN_INTERVAL {
            self.spoke = Instant::now();
            let (title, seconds) = (&self.title, self.begun.elapsed().as_secs());
            let text: String = text.chars().take(PLAIN_WIDTH).collect();
            say(&format!("  … {title} ({seconds} s): {text}"));
        }
    }

    /// Ends it well.
    pub fn done(mut self, detail: &str) {
        self.finished = true;
        self.end("✓", detail);
    }

    fn end(&mut self, mark: &str, detail: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.style == Style::Silent {
            return;
        }
        let (title, elapsed) = (&self.title, self.begun.elapsed());
        let colon = if detail.is_empty() { "" } else { ": " };
        say(&format!("{mark} {title}{colon}{detail} ({:.1} s)", elapsed.as_secs_f64()));
    }

    /// Runs a program, showing its lines as notes and keeping them in `log`.
    ///
    /// # Errors
    /// It cannot be started or fails; the message holds the end of the log.
    pub async fn run(&mut self, command: &mut tokio::process::Command, log: &Path) -> Result<()> {
        let words = format!("{:?}", command.as_std());
        if let Some(dir) = log.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(log)?;
        writeln!(file, "$ {words}")?;
        // One pipe for both streams keeps their lines in order.
        let (reader, writer) = std::io::pipe()?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {words}"))?;
        // The command keeps its own copies of the pipe's end; without them the end shows.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?;
        let mut lines = BufReader::new(reader).split(b'\n');
        while let Some(line) = lines.next_segment().await? {
            let line = String::from_utf8_lossy(&line);
            writeln!(file, "{line}")?;
            self.note(line.trim());
        }
        let status = child.wait().await?;
        anyhow::ensure!(
            status.success(),
            "{words} failed ({status}); the end of {}:\n{}",
            log.display(),
            crate::process::tail(log, 15)
        );
        Ok(())
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.end("✗", "");
        }
    }
}

/// Prints a line for a person.
pub fn say(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}
