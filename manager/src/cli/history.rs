//! `clear-history`: forgetting sessions that ended long ago.

use anyhow::{Context, Result};
use chrono::{DateTime, Months, TimeDelta, Utc};
use indicatif::ProgressBar;
use serde_json::json;

use super::Site;
use super::output::{OutputFormat, print_json, progress_bar, say};

/// Sessions that are forgotten in one transaction.
const CHUNK: i64 = 500;

#[derive(Debug, clap::Args)]
pub(super) struct ClearHistory {
    /// How long sessions are remembered after their end: 1yr, 6mo, 30d, 12h.
    #[arg(short, long, default_value = "1yr", value_name = "DURATION")]
    retention: Retention,
    /// Give the space back to the disk; sessions cannot be used meanwhile.
    #[arg(short, long, default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    vacuum_full: bool,
}

/// A number of something back from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retention {
    Months(u32),
    Exactly(TimeDelta),
}

impl std::str::FromStr for Retention {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no length of time: write 1yr, 6mo, 2w, 30d, 12h or seconds");
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let seconds = |unit: i64| {
            let total = i64::from(number).checked_mul(unit).and_then(TimeDelta::try_seconds);
            total.map(Self::Exactly).ok_or_else(wrong)
        };
        match unit.trim() {
            "yr" | "y" | "year" | "years" => {
                number.checked_mul(12).map(Self::Months).ok_or_else(wrong)
            }
            "mo" | "month" | "months" => Ok(Self::Months(number)),
            "w" => seconds(604_800),
            "d" => seconds(86_400),
            "h" => seconds(3600),
            "m" => seconds(60),
            "" | "s" => seconds(1),
            _ => Err(wrong()),
        }
    }
}

impl Retention {
    /// The time this long ago; `None` if that is before all times.
    fn before(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Months(months) => now.checked_sub_months(Months::new(months)),
            Self::Exactly(time) => now.checked_sub_signed(time),
        }
    }
}

pub(super) async fn run(site: &Site, command: &ClearHistory) -> Result<()> {
    let before = command.retention.before(Utc::now()).context("that long ago there was no time")?;
    let datastore = site.current_datastore().await?;
    let bar: ProgressBar = progress_bar("{spinner} {pos} sessions forgotten")?;
    let (mut sessions, mut kernels) = (0, 0);
    loop {
        let gone = datastore.autocommit().await?.sessions_forget(before, CHUNK).await?;
        sessions += gone.0;
        kernels += gone.1;
        bar.set_position(u64::try_from(sessions).unwrap_or_default());
        if gone.0 == 0 {
            break;
        }
    }
    bar.finish_and_clear();
    datastore.autocommit().await?.vacuum(command.vacuum_full).await?;
    if site.output == OutputFormat::Json {
        return print_json(&json!({"before": before, "sessions": sessions, "kernels": kernels}));
    }
    say(format_args!(
        "Forgot {sessions} sessions with {kernels} kernels that ended before {}.",
        before.format("%Y-%m-%d %H:%M:%S%:z")
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Retention>();
        assert_eq!(read("1yr"), Ok(Retention::Months(12)));
        assert_eq!(read("6mo"), Ok(Retention::Months(6)));
        assert_eq!(read("90d"), Ok(Retention::Exactly(TimeDelta::days(90))));
        assert_eq!(read("5"), Ok(Retention::Exactly(TimeDelta::seconds(5))));
        for wrong in ["", "yr", "1x", "-1d", "4000000000yr"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
