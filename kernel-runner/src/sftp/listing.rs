//! Lines of a folder's listing, which clients show to people as they are: like `ls -l`,
//! with numbers for users and times in UTC.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use backendai_rpc::runner::files::mode_text;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: i64 = 24 * 3600;
/// Older files, and those of the future, are listed with their year.
const RECENT: i64 = 182 * DAY;

/// The line of one entry.
pub fn line(name: &OsStr, metadata: &Metadata) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut line = format!(
        "{} {:>4} {:<8} {:<8} {:>8} {} ",
        mode_text(metadata.mode()),
        metadata.nlink(),
        metadata.uid(),
        metadata.gid(),
        metadata.len(),
        time(metadata.mtime(), i64::try_from(now).unwrap_or(i64::MAX)),
    )
    .into_bytes();
    line.extend(name.as_bytes());
    line
}

fn time(seconds: i64, now: i64) -> String {
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Civil from days, counting years from March and eras of 400 years (Howard Hinnant).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let month = MONTHS[usize::try_from(month).unwrap_or_default()];
    if (now - RECENT..=now).contains(&seconds) {
        format!("{month} {day:>2} {:02}:{:02}", second / 3600, second / 60 % 60)
    } else {
        format!("{month} {day:>2} {year:>5}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_ls_does() {
        let now = 1_700_000_000;
        assert_eq!(time(now, now), "Nov 14 22:13");
        assert_eq!(time(now + 1, now), "Nov 14  2023");
        assert_eq!(time(0, now), "Jan  1  1970");
        assert_eq!(time(951_782_400, now), "Feb 29  2000");
        assert_eq!(time(-1, now), "Dec 31  1969");
    }
}
