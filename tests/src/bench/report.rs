//! The table, for the terminal and for docs/performance.md: medians of the rounds, with the lowest and the highest.

use super::stage::System;
use super::{Found, Options, TOPOLOGIES, page};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Debug, Default)]
pub(super) struct Report(BTreeMap<(usize, System), Vec<Found>>);

/// A row: what it is called, what it shows, and in how many places.
type Row = (&'static str, fn(&Found) -> f64, usize);

const ROWS: [Row; 4] = [
    ("p50 at 10/s, ms", |found| found.p50, 2),
    ("p99 at 10/s, ms", |found| found.p99, 2),
    ("sagas/s with 16 clients", |found| found.rate, 0),
    ("CPU per saga there, µs", |found| found.cpu, 0),
];

impl Report {
    pub(super) fn add(&mut self, services: usize, system: System, found: Found) {
        self.0.entry((services, system)).or_default().push(found);
    }

    /// Prints it and puts it into the page, between its marks.
    pub(super) fn publish(&self, options: &Options) -> Result<()> {
        page::publish("sagas", &self.text(options)?)
    }

    fn text(&self, options: &Options) -> Result<String> {
        let mut text = String::new();
        for services in TOPOLOGIES {
            writeln!(
                text,
                "| 1 to {services} | the bound | Qbox, synced | to the bound | Qbox, unsynced | to the bound |\n|---|---|---|---|---|---|"
            )?;
            for (name, value, places) in ROWS {
                let [bound, synced, unsynced] =
                    System::ALL.map(|system| self.spread(services, system, value));
                let cell = |[low, half, high]: [f64; 3]| {
                    format!("{half:.places$} ({low:.places$} to {high:.places$})")
                };
                writeln!(
                    text,
                    "| {name} | {} | {} | {:.2}× | {} | {:.2}× |",
                    cell(bound),
                    cell(synced),
                    synced[1] / bound[1],
                    cell(unsynced),
                    unsynced[1] / bound[1],
                )?;
            }
            let syncs = |value| self.spread(services, System::Synced, value)[1];
            writeln!(
                text,
                "| syncs per saga, 1 client / 16 | | {:.2} / {:.2} | | | |\n",
                syncs(|found| found.syncs_at_1),
                syncs(|found| found.syncs_at_16),
            )?;
        }
        writeln!(
            text,
            "Medians of {} rounds in turns (and the lowest and the highest), {:.0?} for each measurement. {}.",
            options.rounds,
            options.span,
            page::machine()?
        )?;
        Ok(text)
    }

    /// Lowest, median and highest.
    fn spread(&self, services: usize, system: System, value: fn(&Found) -> f64) -> [f64; 3] {
        let found = self.0.get(&(services, system));
        let mut values: Vec<f64> = found.into_iter().flatten().map(value).collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or_default();
        [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
    }
}
