//! What the part of the sagas found: the tables, the goals and the charts. Medians of the rounds, with the lowest and the highest.

use super::record::{Chart, Goal, Record, Series};
use super::shape::Shape;
use super::spread::Spread;
use super::stage::System;
use super::{Found, Options, page};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Debug, Default)]
pub(super) struct Report(BTreeMap<(Shape, System), Vec<Found>>);

type Value = fn(&Found) -> f64;

/// A row: what it is called, what it shows, and in how many places.
type Row = (&'static str, Value, usize);

const ROWS: [Row; 4] = [
    ("p50 at 10/s, ms", |found| found.p50, 2),
    ("p99 at 10/s, ms", |found| found.p99, 2),
    ("sagas/s with 16 clients", |found| found.rate, 0),
    ("CPU per saga there, µs", |found| found.cpu, 0),
];

/// What the others take of the machine, for each saga.
const OTHERS: [Row; 2] = [
    ("the client's CPU per saga, µs", |found| found.client, 0),
    ("the services' CPU per saga, µs", |found| found.services, 0),
];

const P50: Value = |found| found.p50;
const RATE: Value = |found| found.rate;

impl Report {
    pub(super) fn add(&mut self, shape: Shape, system: System, found: Found) {
        self.0.entry((shape, system)).or_default().push(found);
    }

    /// Prints it and puts it into the page, between its marks.
    pub(super) fn publish(&self, options: &Options) -> Result<()> {
        let record = Record {
            goals: self.goals(),
            charts: self.charts(),
            ..Record::default()
        };
        page::publish("sagas", &self.text(options)?, record, options.quick)
    }

    fn text(&self, options: &Options) -> Result<String> {
        let mut text = String::new();
        for shape in Shape::ALL {
            self.table(&mut text, shape, ROWS.iter().chain(&OTHERS))?;
            let syncs = |value| self.spread(shape, System::Synced, value).median;
            writeln!(
                text,
                "| syncs per saga, 1 client / 16 | | {:.2} / {:.2} | | | |\n",
                syncs(|found| found.syncs_at_1),
                syncs(|found| found.syncs_at_16),
            )?;
        }
        self.table(&mut text, Shape::SLOW, ROWS.iter().take(2))?;
        writeln!(
            text,
            "\nMedians of {} rounds in turns (and the lowest and the highest), {:.0?} for each measurement at 10/s and half of that with 16 clients.",
            options.rounds, options.span,
        )?;
        Ok(text)
    }

    fn table<'a>(&self, text: &mut String, shape: Shape, rows: impl Iterator<Item = &'a Row>) -> Result<()> {
        writeln!(
            text,
            "| {shape} | the bound | Qbox, synced | to the bound | Qbox, unsynced | to the bound |\n|---|---|---|---|---|---|"
        )?;
        for (name, value, places) in rows {
            let [bound, synced, unsynced] = System::ALL.map(|system| self.spread(shape, system, *value));
            writeln!(
                text,
                "| {name} | {} | {} | {:.2}× | {} | {:.2}× |",
                bound.cell(*places),
                synced.cell(*places),
                synced.median / bound.median,
                unsynced.cell(*places),
                unsynced.median / bound.median,
            )?;
        }
        Ok(())
    }

    fn goals(&self) -> Vec<Goal> {
        let all = |system, value| Shape::ALL.map(|shape| self.ratio(shape, system, value));
        let syncs =
            |value: Value| [self.spread(Shape::ONE_TO_FOUR, System::Synced, value).median].into_iter();
        let slow = [System::Synced, System::Unsynced].map(|system| self.ratio(Shape::SLOW, system, P50));
        let cpu = [System::Synced, System::Unsynced]
            .map(|system| self.ratio(Shape::ONE_TO_FOUR, system, |found| found.cpu));
        let shapes = Shape::ALL.map(|shape| shape.to_string()).join(" · ");
        vec![
            Goal::most(
                &format!("p50 at 10/s to the bound, synced ({shapes})"),
                (1.5, "×"),
                all(System::Synced, P50),
            ),
            Goal::most("the same, unsynced", (1.15, "×"), all(System::Unsynced, P50)),
            Goal::least(
                "sagas/s with 16 clients to the bound, synced",
                (0.5, "×"),
                all(System::Synced, RATE),
            ),
            Goal::least("the same, unsynced", (0.75, "×"), all(System::Unsynced, RATE)),
            Goal::most(
                "CPU per saga to the bound, 1 to 4, synced · unsynced",
                (2.0, "×"),
                cpu,
            ),
            Goal::most(
                "syncs per saga, one client, 1 to 4",
                (2.0, ""),
                syncs(|found| found.syncs_at_1),
            ),
            Goal::most(
                "syncs per saga, 16 clients, 1 to 4",
                (0.3, ""),
                syncs(|found| found.syncs_at_16),
            ),
            Goal::most(
                "p50 at 10/s to the bound, services that take 10 ms, synced · unsynced",
                (1.05, "×"),
                slow,
            ),
        ]
    }

    fn charts(&self) -> Vec<Chart> {
        let chart = |file: &str, title: &str, value: Value| Chart {
            file: file.to_owned(),
            title: title.to_owned(),
            groups: Shape::ALL.map(|shape| shape.to_string()).to_vec(),
            series: System::ALL
                .map(|system| Series {
                    name: system.name().to_owned(),
                    values: Shape::ALL
                        .map(|shape| self.spread(shape, system, value).into())
                        .to_vec(),
                })
                .to_vec(),
        };
        vec![
            chart("performance-sagas-p50", "p50 of a saga at 10 a second, ms", P50),
            chart("performance-sagas-rate", "sagas a second with 16 clients", RATE),
        ]
    }

    fn ratio(&self, shape: Shape, system: System, value: Value) -> f64 {
        let of = |system| self.spread(shape, system, value).median;
        of(system) / of(System::Hop)
    }

    fn spread(&self, shape: Shape, system: System, value: Value) -> Spread {
        let found = self.0.get(&(shape, system));
        Spread::of(found.into_iter().flatten().map(value))
    }
}
