//! wrk(1), run in the load's pod on the second processor, and its report. Errors: it isn't there, or requests failed.

use crate::pod::Pod;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// A second.
    pub(super) rate: f64,
    /// All.
    pub(super) requests: f64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// The proxy's processor time for each request, microseconds; from elsewhere.
    pub(super) cpu: f64,
}

/// Loads `url`.
pub(super) fn run(load: &Pod, url: &str, connections: usize, seconds: u64) -> Result<Sample> {
    let limit = Duration::from_secs(seconds + 60);
    let mut command = load.command_for(limit, "taskset");
    command.args(["-c", "1", "wrk", "--threads=1", "--latency", "--timeout=10s"]);
    command.arg(format!("--connections={connections}"));
    command.arg(format!("--duration={seconds}s")).arg(url);
    let output = command.output().context("can't start wrk")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "wrk ended with {}: {text}",
        output.status
    );
    let bad = text
        .lines()
        .find(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    ensure!(bad.is_none(), "{text}");
    read(&text).with_context(|| format!("what wrk said can't be read: {text}"))
}

/// wrk's report.
fn read(text: &str) -> Option<Sample> {
    let after = |key: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(key))
            .map(str::trim)
    };
    Some(Sample {
        rate: after("Requests/sec:")?.parse().ok()?,
        requests: requests(text)?,
        p50: time(after("50%")?)?,
        p99: time(after("99%")?)?,
        cpu: 0.0,
    })
}

/// `65540 requests in 5.01s, 12.00MB read`.
fn requests(text: &str) -> Option<f64> {
    let (before, _) = text.split_once(" requests in ")?;
    before.split_whitespace().next_back()?.parse().ok()
}

/// `85.00us`, `1.25ms` or `2.00s`.
fn time(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match text.strip_prefix(digits)? {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(digits.parse::<f64>().ok()? * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_wrk_says() {
        let text = "Running 1s test\n  11086 requests in 1.00s, 1.00MB read\n  Latency Distribution\n     50%   85.00us\n     75%    1.00ms\n     99%    1.25ms\n\
                    Requests/sec:  11085.10\nTransfer/sec:      1.00MB\n";
        let sample = read(text).unwrap();
        assert!((sample.rate - 11_085.1).abs() < 0.01);
        assert!((sample.requests - 11_086.0).abs() < 0.01);
        assert_eq!(sample.p50, Duration::from_micros(85));
        assert_eq!(sample.p99, Duration::from_micros(1250));
        assert!(read("Requests/sec: x").is_none());
    }
}
