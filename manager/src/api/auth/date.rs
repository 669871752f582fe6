//! Dates as clients write them: ISO 8601 in its many forms, and those of HTTP.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime};

/// Reads a date with time. Without a zone it is UTC. Named zones are those that clients are
/// known to send; others make the date unreadable rather than wrong.
pub fn parse(text: &str) -> Option<DateTime<FixedOffset>> {
    let text = text.trim();
    let iso = text.as_bytes().first().is_some_and(u8::is_ascii_digit)
        && text.as_bytes().get(..4).is_some_and(|year| year.iter().all(u8::is_ascii_digit));
    if iso { parse_iso(text) } else { parse_http(text) }
}

/// `2023-11-21T03:19:22.123456+00:00`, `20231121T031922Z`, `2023-11-21 03:19`, `2023-11-21`.
fn parse_iso(text: &str) -> Option<DateTime<FixedOffset>> {
    let (date, rest) = take_iso_date(text)?;
    let rest = rest.strip_prefix(['T', 't', ' ']).unwrap_or(rest);
    if rest.is_empty() {
        return finish(date.and_time(NaiveTime::MIN), 0);
    }
    let zone_at = rest
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.' | ',')))
        .unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    finish(date.and_time(parse_time(time)?), zone_seconds(zone)?)
}

fn take_iso_date(text: &str) -> Option<(NaiveDate, &str)> {
    if let Some(head) = text.get(..10)
        && let Ok(date) = NaiveDate::parse_from_str(head, "%Y-%m-%d")
    {
        return Some((date, &text[10..]));
    }
    let head = text.get(..8)?;
    let date = NaiveDate::parse_from_str(head, "%Y%m%d").ok()?;
    Some((date, &text[8..]))
}

/// `03:19:22.123456`, `03:19`, `031922`, `0319`.
fn parse_time(text: &str) -> Option<NaiveTime> {
    let (whole, fraction) = match text.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let number = |part: &str| (part.len() <= 2).then(|| part.parse::<u32>().ok()).flatten();
    let (hour, minute, second) = if whole.contains(':') {
        let mut parts = whole.split(':');
        let fields = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
        if parts.next().is_some() {
            return None;
        }
        fields
    } else {
        match whole.len() {
            6 => (&whole[..2], &whole[2..4], &whole[4..]),
            4 => (&whole[..2], &whole[2..], "0"),
            _ => return None,
        }
    };
    let micros = match fraction {
        None => 0,
        Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
            return None;
        }
        Some(digits) => format!("{digits:0<6}")[..6].parse().ok()?,
    };
    NaiveTime::from_hms_micro_opt(number(hour)?, number(minute)?, number(second)?, micros)
}

/// `Tue, 21 Nov 2023 03:19:22 GMT`, `Tuesday, 21-Nov-23 03:19:22 GMT`,
/// `Tue Nov 21 03:19:22 2023`.
fn parse_http(text: &str) -> Option<DateTime<FixedOffset>> {
    let mut day = None;
    let mut month = None;
    let mut year = None;
    let mut time = None;
    let mut zone = None;
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        let parts: Vec<&str> = word.split('-').collect();
        if word.contains(':') && time.is_none() {
            time = Some(parse_time(word)?);
        } else if time.is_some() && (year.is_some() || !word.bytes().all(|b| b.is_ascii_digit())) {
            if zone.replace(zone_seconds(word)?).is_some() {
                return None;
            }
        } else if let [d, m, y] = parts[..] {
            day = Some(d.parse::<u32>().ok()?);
            month = Some(month_number(m)?);
            year = Some(y);
        } else if let Some(number) = month_number(word) {
            month = Some(number);
        } else if word.bytes().all(|b| b.is_ascii_digit()) {
            match day {
                None => day = Some(word.parse().ok()?),
                Some(_) => year = Some(word),
            }
        } else if !is_weekday(word) {
            return None;
        }
    }
    let year = match year? {
        // RFC 850 years have two digits; the pivot is the usual one.
        two if two.len() == 2 => {
            let n: i32 = two.parse().ok()?;
            if n < 70 { 2000 + n } else { 1900 + n }
        }
        text => text.parse().ok()?,
    };
    finish(NaiveDate::from_ymd_opt(year, month?, day?)?.and_time(time?), zone.unwrap_or(0))
}

fn finish(local: NaiveDateTime, zone_seconds: i32) -> Option<DateTime<FixedOffset>> {
    local.and_local_timezone(FixedOffset::east_opt(zone_seconds)?).single()
}

fn month_number(word: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let word = word.to_ascii_lowercase();
    let position = MONTHS.iter().position(|m| word.len() >= 3 && m.starts_with(&word))?;
    Some(position as u32 + 1)
}

fn is_weekday(word: &str) -> bool {
    const DAYS: [&str; 7] =
        ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let word = word.to_ascii_lowercase();
    word.len() >= 3 && DAYS.iter().any(|day| day.starts_with(&word))
}

/// Seconds east of UTC: `Z`, `+0900`, `+09:00`, `-05`, or a name.
fn zone_seconds(zone: &str) -> Option<i32> {
    let zone = zone.trim();
    if let Some(rest) = zone.strip_prefix(['+', '-']) {
        let digits: String = rest.chars().filter(|c| *c != ':').collect();
        if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let hours: i32 = digits[..2].parse().ok()?;
        let minutes: i32 = if digits.len() == 4 { digits[2..].parse().ok()? } else { 0 };
        let seconds = hours * 3600 + minutes * 60;
        return Some(if zone.starts_with('-') { -seconds } else { seconds });
    }
    let hours = match zone.to_ascii_uppercase().as_str() {
        "" | "Z" | "UTC" | "GMT" | "WET" => 0,
        "CET" | "BST" | "WEST" => 1,
        "CEST" | "EET" => 2,
        "EEST" | "MSK" => 3,
        "KST" | "JST" => 9,
        "SGT" | "HKT" | "AWST" => 8,
        "AEST" => 10,
        "AEDT" => 11,
        "EST" | "CDT" => -5,
        "EDT" => -4,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        _ => return None,
    };
    Some(hours * 3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_the_forms_clients_use() {
        for (text, expected) in [
            ("2023-11-21T03:19:22.123456+00:00", "2023-11-21T03:19:22.123456+00:00"),
            ("2023-11-21T03:19:22+00:00", "2023-11-21T03:19:22+00:00"),
            ("2023-11-21T12:19:22+09:00", "2023-11-21T12:19:22+09:00"),
            ("2023-11-21T12:19:22+0900", "2023-11-21T12:19:22+09:00"),
            ("2023-11-21 12:19:22 KST", "2023-11-21T12:19:22+09:00"),
            ("2023-11-21T03:19:22", "2023-11-21T03:19:22+00:00"),
            ("20231121T031922Z", "2023-11-21T03:19:22+00:00"),
            ("2023-11-21", "2023-11-21T00:00:00+00:00"),
            ("Tue, 21 Nov 2023 03:19:22 GMT", "2023-11-21T03:19:22+00:00"),
            ("Tuesday, 21-Nov-23 03:19:22 GMT", "2023-11-21T03:19:22+00:00"),
            ("Tue Nov 21 03:19:22 2023", "2023-11-21T03:19:22+00:00"),
            ("Tue, 21 Nov 2023 12:19:22 +0900", "2023-11-21T12:19:22+09:00"),
            ("Mon, 20 Nov 2023 22:19:22 EST", "2023-11-20T22:19:22-05:00"),
        ] {
            assert_eq!(
                parse(text).map(|d| d.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, false)),
                Some(expected.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_date_is_none() {
        for text in [
            "",
            "now",
            "2023",
            "2023-13-01",
            "2023-11-21T25:00",
            "2023-11-21T03:19:22 XYZ",
            "Tue",
            "2023-11-21T",
            "2023-11-21T03:19:22.+00:00",
            "é",
            "２０２３-11-21",
        ] {
            // "2023-11-21T" is a date with a dangling T: harmless, read as midnight.
            let expected = text == "2023-11-21T";
            assert_eq!(parse(text).is_some(), expected, "{text:?}");
        }
    }
}
