//! What was measured, as tables in Markdown.

use super::{Sample, Way, cells};
use std::fmt::Write as _;
use std::time::Duration;

/// Both tables.
pub(super) fn markdown(ways: &[Way]) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write!(text, "Requests a second (p50, p99 in µs):\n\n| |");
    for (body, connections) in cells() {
        let _ = write!(text, " {}, {connections} |", body.0);
    }
    let _ = write!(text, " RAM idle, loaded |\n|---|");
    for _ in cells() {
        text.push_str("---|");
    }
    text.push_str("---|\n");
    for way in ways {
        let _ = write!(text, "| {} |", way.name);
        for samples in &way.samples {
            let sample = median(samples);
            let (p50, p99) = (sample.p50.as_micros(), sample.p99.as_micros());
            let _ = write!(text, " {:.0} ({p50}, {p99}) |", sample.requests);
        }
        let _ = match way.process {
            Some(_) => writeln!(text, " {:.1}, {:.1} MiB |", mib(way.idle), mib(way.loaded)),
            None => writeln!(text, " |"),
        };
    }
    added(ways, &mut text);
    text
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

fn median(samples: &[Sample]) -> Sample {
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let of = |value: fn(&Sample) -> f64| middle(samples.iter().map(value).collect());
    Sample {
        requests: of(|sample| sample.requests),
        p50: Duration::from_secs_f64(of(|sample| sample.p50.as_secs_f64())),
        p99: Duration::from_secs_f64(of(|sample| sample.p99.as_secs_f64())),
    }
}
