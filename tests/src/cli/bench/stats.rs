//! Figures for people.

use std::time::Duration;

/// The value below which this part of the values lies; zero for none.
pub fn quantile(values: &[Duration], part: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * part).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// Milliseconds with as many digits as mean something.
pub fn ms(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// `p50 / p99` of some durations.
pub fn spread(values: &[Duration]) -> String {
    format!("{} / {}", ms(quantile(values, 0.5)), ms(quantile(values, 0.99)))
}

/// How many times one duration holds another.
pub fn ratio(of: Duration, to: Duration) -> String {
    if to.is_zero() {
        "-".to_owned()
    } else {
        format!("{:.2}", of.as_secs_f64() / to.as_secs_f64())
    }
}
