//! When a batch session may start, as users write it.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use crate::app::{Error, Result};

/// Reads an ISO-8601 timestamp (UTC unless it says otherwise), or a distance from now:
/// `1d2h30min15s`, `2hours 15min`, bare seconds, with an optional sign.
pub(super) fn parse(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    let text = text.trim();
    absolute(text)
        .or_else(|| now.checked_add_signed(distance(text)?))
        .ok_or_else(|| Error::invalid(format!("{text:?} is not a valid date, time or duration")))
}

fn absolute(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.with_timezone(&Utc));
    }
    ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f%:z"]
        .iter()
        .find_map(|format| DateTime::parse_from_str(text, format).ok())
        .map(|at| at.with_timezone(&Utc))
        .or_else(|| {
            ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
                .iter()
                .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
                .map(|at| at.and_utc())
        })
}

/// A distance of time: `1d2h30min15s`, `90d`, bare seconds, with an optional sign.
pub(in crate::app) fn distance(text: &str) -> Option<TimeDelta> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    if let Ok(seconds) = rest.parse::<f64>() {
        return milliseconds(sign * seconds);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..number_end].parse().ok()?;
        let tail = rest[number_end..].trim_start();
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let unit = match &tail[..unit_end] {
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            _ => return None,
        };
        seconds += number * unit;
        rest = tail[unit_end..].trim_start();
    }
    milliseconds(sign * seconds)
}

fn milliseconds(seconds: f64) -> Option<TimeDelta> {
    // The cast saturates, and such distances are refused by the caller's addition.
    seconds.is_finite().then(|| TimeDelta::try_milliseconds((seconds * 1000.0) as i64))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_and_distances_are_understood() {
        let now = "2023-11-21T03:19:22Z".parse().unwrap();
        for (text, at) in [
            ("2023-11-22T00:00:00+09:00", "2023-11-21T15:00:00Z"),
            ("2023-11-22T00:00:00", "2023-11-22T00:00:00Z"),
            ("2023-11-22 00:00", "2023-11-22T00:00:00Z"),
            ("1d2h30min15s", "2023-11-22T05:49:37Z"),
            ("2hours 15min", "2023-11-21T05:34:22Z"),
            ("30", "2023-11-21T03:19:52Z"),
            ("-1m", "2023-11-21T03:18:22Z"),
        ] {
            let at: DateTime<Utc> = at.parse().unwrap();
            assert_eq!(parse(text, now).unwrap(), at, "{text}");
        }
        for text in ["", "soon", "-", "1 lightyear", "99999999999999999999d"] {
            assert!(parse(text, now).is_err(), "{text:?}");
        }
    }
}
