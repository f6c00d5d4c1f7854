//! What was measured, as tables in Markdown.

use super::idle::IDLE;
use super::wrk::Sample;
use super::{Way, cells};
use crate::bench::spread;
use crate::process::Calls;
use std::fmt::Write as _;
use std::time::Duration;

/// The tables; with `measured`, those of rates and times too.
pub(super) fn markdown(ways: &[Way], measured: bool) -> String {
    let mut text = String::new();
    if measured {
        text.push_str("Requests a second (p50, p99 in µs):\n\n");
        table(&mut text, ways, |way, cell| {
            let sample = median(way.samples.get(cell)?);
            let (p50, p99) = (sample.p50.as_micros(), sample.p99.as_micros());
            Some(format!("{:.0} ({p50}, {p99})", sample.rate))
        });
        added(ways, &mut text);
        text.push_str("\nThe proxy's processor time for each request, µs:\n\n");
        let proxies = ways.iter().filter(|way| way.process.is_some());
        table(&mut text, proxies, |way, cell| {
            Some(format!("{:.1}", median(way.samples.get(cell)?).cpu))
        });
    }
    text.push_str("\nSystem calls for each request: reads, writes, waits, others:\n\n");
    let proxies = || ways.iter().filter(|way| way.process.is_some());
    table(&mut text, proxies(), |way, cell| {
        let calls = way.calls.get(cell)?;
        let Calls {
            reads,
            writes,
            waits,
            others,
        } = calls;
        Some(format!("{reads:.2} {writes:.2} {waits:.2} {others:.2}"))
    });
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "\nMemory in RAM:\n\n| | idle, MiB | most under load, MiB | for each of {IDLE} connections that wait, KiB |\n|---|---|---|---|"
    );
    for way in proxies() {
        let each = mib(way.waiting) * 1024.0 / f64::from(u16::try_from(IDLE).unwrap_or(u16::MAX));
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.1} | {each:.1} |",
            way.name,
            mib(way.idle),
            mib(way.loaded)
        );
    }
    text
}

/// A row for each way, a column for each load.
fn table<'a>(
    text: &mut String,
    ways: impl IntoIterator<Item = &'a Way>,
    cell: impl Fn(&Way, usize) -> Option<String>,
) {
    text.push_str("| |");
    for (body, connections) in cells() {
        let _ = write!(text, " {}, {connections} |", body.0);
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(cells().count()));
    text.push('\n');
    for way in ways {
        let _ = write!(text, "| {} |", way.name);
        for number in 0..cells().count() {
            let _ = write!(text, " {} |", cell(way, number).unwrap_or_default());
        }
        text.push('\n');
    }
}

/// What each way adds to the direct one's p50 at one connection, in the raw copy's terms.
fn added(ways: &[Way], text: &mut String) {
    let p50 = |name: &str, cell: usize| {
        let way = ways.iter().find(|way| way.name == name)?;
        way.samples.get(cell).map(|samples| median(samples).p50)
    };
    for (cell, (body, connections)) in cells()
        .enumerate()
        .filter(|(_, (_, connections))| *connections == 1)
    {
        let (Some(direct), Some(raw)) = (p50("direct", cell), p50("raw TCP copy", cell)) else {
            continue;
        };
        let _ = write!(text, "\nAdded p50, {}, {connections} connection:", body.0);
        for way in ways.iter().filter(|way| way.process.is_some()) {
            let more = p50(way.name, cell).unwrap_or_default().saturating_sub(direct);
            let share = more.as_secs_f64() / raw.saturating_sub(direct).as_secs_f64().max(1e-9);
            let _ = write!(text, " {} {} µs (×{share:.2});", way.name, more.as_micros());
        }
        text.push('\n');
    }
}

fn mib(bytes: u64) -> f64 {
    // Whole bytes up to 2^53 are exact.
    #[allow(clippy::cast_precision_loss)]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

pub(super) fn median(samples: &[Sample]) -> Sample {
    let of = |value: fn(&Sample) -> f64| spread::median(samples.iter().map(value));
    Sample {
        rate: of(|sample| sample.rate),
        requests: of(|sample| sample.requests),
        cpu: of(|sample| sample.cpu),
        p50: Duration::from_secs_f64(of(|sample| sample.p50.as_secs_f64())),
        p99: Duration::from_secs_f64(of(|sample| sample.p99.as_secs_f64())),
    }
}
