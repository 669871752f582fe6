//! Load by wrk, which takes little of the two cores it shares with what it measures.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::header::HeaderMap;
use tokio::process::Command;

use backendai_tests::process::run;

/// One request, repeated.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`…
    pub method: String,
    /// Full URL.
    pub url: String,
    /// Headers, the signature among them.
    pub headers: HeaderMap,
    /// Body, if there is one.
    pub body: Option<String>,
}

/// What wrk measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Answers a second.
    pub per_second: f64,
    /// Median latency.
    pub p50: Duration,
    /// Latency of all but one in a hundred.
    pub p99: Duration,
    /// Answers other than 2xx and 3xx, and socket errors.
    pub errors: u64,
}

/// Measures several times and returns the run with the median rate.
///
/// # Errors
/// wrk is not installed or prints something new.
pub async fn median(
    request: impl Fn() -> Request,
    connections: usize,
    seconds: u32,
    runs: usize,
) -> Result<Load> {
    let mut loads = Vec::new();
    for _ in 0..runs.max(1) {
        // Signed anew each time: a signature is good for a quarter of an hour.
        loads.push(once(&request(), connections, seconds).await?);
    }
    loads.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    Ok(loads[loads.len() / 2])
}

async fn once(request: &Request, connections: usize, seconds: u32) -> Result<Load> {
    // JSON strings are Lua strings for all that occurs here.
    let quote = |text: &str| serde_json::to_string(text);
    let mut script = format!("wrk.method = {}\n", quote(&request.method)?);
    for (name, value) in &request.headers {
        let (name, value) = (quote(name.as_str())?, quote(value.to_str()?)?);
        script += &format!("wrk.headers[{name}] = {value}\n");
    }
    if let Some(body) = &request.body {
        script += &format!("wrk.body = {}\n", quote(body)?);
    }
    let file = tempfile::Builder::new().suffix(".lua").tempfile()?;
    std::fs::write(file.path(), script)?;
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "--latency", "-c", &connections.to_string(), "-d", &format!("{seconds}s")]);
    parse(&run(wrk.arg("-s").arg(file.path()).arg(&request.url)).await?)
}

fn parse(printed: &str) -> Result<Load> {
    let field = |label: &str| {
        printed.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim)
    };
    let missing = |label: &'static str| move || format!("no {label} in wrk's output:\n{printed}");
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    let socket: u64 = field("Socket errors:")
        .map(|list| list.split(',').map(|part| number(part.split(' ').next_back())).sum())
        .unwrap_or(0);
    Ok(Load {
        per_second: field("Requests/sec:").with_context(missing("rate"))?.parse()?,
        p50: duration(field("50%").with_context(missing("p50"))?)?,
        p99: duration(field("99%").with_context(missing("p99"))?)?,
        errors: socket + number(field("Non-2xx or 3xx responses:")),
    })
}

fn duration(text: &str) -> Result<Duration> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).context("a duration without unit")?;
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => anyhow::bail!("{text} is no duration"),
    };
    Ok(Duration::from_secs_f64(number.parse::<f64>()? * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_wrk_is_read() {
        let load = parse(
            "Running 4s test @ http://127.0.0.1:1/\n\
             \x20 Latency Distribution\n\
             \x20    50%  812.00us\n     75%    1.10ms\n     90%    2.00ms\n     99%    1.20s\n\
             \x20 10 requests in 4.00s, 1.00MB read\n\
             \x20 Socket errors: connect 0, read 1, write 0, timeout 2\n\
             \x20 Non-2xx or 3xx responses: 4\n\
             Requests/sec:   2450.55\nTransfer/sec:      1.00MB\n",
        )
        .unwrap();
        assert_eq!(load.per_second, 2450.55);
        assert_eq!(load.p50, Duration::from_micros(812));
        assert_eq!(load.p99, Duration::from_millis(1200));
        assert_eq!(load.errors, 7);
    }
}
