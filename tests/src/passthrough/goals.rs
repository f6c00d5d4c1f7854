//! What passing through is held to: in each cell the best of the proxies that others wrote.

use super::table::median;
use super::wrk::Sample;
use super::{Way, cells};
use crate::bench::spread::Spread;
use crate::bench::{Chart, Goal, Record, Series};

/// Those that others wrote.
const OTHERS: [&str; 3] = ["nginx", "HAProxy", "Envoy"];

/// The goals, and the chart.
pub(super) fn of(ways: &[Way]) -> Record {
    let names: Vec<_> = cells()
        .map(|(body, connections)| format!("{} × {connections}", body.0))
        .collect();
    let samples = |name: &str, cell: usize| -> &[Sample] {
        let way = ways.iter().find(|way| way.name == name);
        way.and_then(|way| way.samples.get(cell))
            .map_or(&[], Vec::as_slice)
    };
    let rate = |name: &str, cell| median(samples(name, cell)).rate;
    let p50 = |name: &str, cell| median(samples(name, cell)).p50.as_secs_f64();
    let cells = 0..names.len();
    let rates = cells.clone().map(|cell| {
        let best = OTHERS
            .map(|name| rate(name, cell))
            .into_iter()
            .fold(0.0, f64::max);
        rate("Qbox", cell) / best
    });
    let halves = cells.clone().map(|cell| {
        let best = OTHERS
            .map(|name| p50(name, cell))
            .into_iter()
            .fold(f64::MAX, f64::min);
        p50("Qbox", cell) / best
    });
    let goals = vec![
        Goal::least(
            &format!(
                "requests/s that pass, to the best of nginx, HAProxy and Envoy ({})",
                names.join(" · ")
            ),
            (1.0, "×"),
            rates,
        ),
        Goal::most("p50 of those, to the best of them", (1.0, "×"), halves),
    ];
    let series = ways.iter().map(|way| Series {
        name: way.name.to_owned(),
        values: cells
            .clone()
            .map(|cell| Spread::of(samples(way.name, cell).iter().map(|sample| sample.rate / 1000.0)).into())
            .collect(),
    });
    let chart = Chart {
        file: "performance-passthrough".to_owned(),
        title: "thousands of requests a second that pass, one worker".to_owned(),
        groups: names,
        series: series.collect(),
    };
    Record {
        goals,
        charts: vec![chart],
        ..Record::default()
    }
}
