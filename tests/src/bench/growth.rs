//! Whether a saga's cost grows: with the sagas that are in flight beside it, with its steps, with the definitions that are loaded. Each is a
//! ratio within one run. Errors: something fails, or is answered wrongly.

use super::files::{self, TRIPS, below};
use super::load::Kind;
use super::record::{Chart, Goal, Record, Series};
use super::shape::Shape;
use super::spread::Spread;
use super::stage::{Setup, Stage, System, Target};
use super::worker::Worker;
use super::{Options, page};
use crate::node::require_root;
use crate::poll::wait_for;
use crate::world::PORT;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Sagas in flight beside those that are measured.
const BESIDE: [usize; 4] = [0, 100, 1000, 10_000];
/// Of these so many wait for an answer: Qbox has no more than 4,096 calls in flight. The others wait for a lock that one of them holds.
const CALLING: usize = 3000;
/// So many are begun at once.
const BATCH: usize = 100;
/// Steps at once, to four services.
const STEPS: [usize; 5] = [4, 8, 16, 32, 64];
const SERVICES: usize = 4;
/// Definitions that are loaded.
const DEFINITIONS: [usize; 2] = [10, 1000];
/// How much more may be spent.
const FLAT: f64 = 1.1;
/// How long 10,000 sagas may take to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a saga costs.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    /// How long one takes beside no other that is measured, in microseconds: the median.
    time: f64,
    /// Qbox's processor time for each, in microseconds, with several clients.
    cpu: f64,
}

/// By what grows, the rounds' costs; of synced and unsynced sagas.
#[derive(Debug, Default)]
struct Grown(BTreeMap<(System, usize), Vec<Cost>>);

const SYSTEMS: [System; 2] = [System::Synced, System::Unsynced];

/// Measures, prints the tables, and puts them into docs/performance.md.
///
/// # Errors
/// No root, or something fails.
pub fn growth(options: &Options) -> Result<()> {
    require_root()?;
    let (mut text, mut record) = (String::new(), Record::default());
    let loaded = definitions(options)?;
    let (beside, held) = in_flight(options)?;
    beside.table(&mut text, "in flight beside it", &BESIDE, |cost, _| cost)?;
    writeln!(text, "Memory for each saga that is in flight: {held:.1} KiB.\n")?;
    let steps = steps(options)?;
    steps.table(&mut text, "steps; for each", &STEPS, Cost::each)?;
    loaded.table(&mut text, "definitions loaded", &DEFINITIONS, |cost, _| cost)?;
    writeln!(
        text,
        "Medians of {} rounds; time: the p50 of one client, CPU: Qbox's, for each saga (or step) of 16 clients (steps: of 4).",
        options.rounds
    )?;
    for (what, grown, points) in [
        (
            "a saga's time and CPU among 10,000 in flight, to alone",
            &beside,
            &BESIDE[..],
        ),
        ("a step's time and CPU of 64, to of 4", &steps, &STEPS[..]),
        (
            "a saga's time and CPU at 1,000 definitions, to 10",
            &loaded,
            &DEFINITIONS[..],
        ),
    ] {
        let whole = what.starts_with("a saga");
        let what = format!("{what} (synced: time · CPU · unsynced: time · CPU)");
        record.goals.push(Goal::most(
            &what,
            (FLAT, "×"),
            grown.ratios(points, |cost, point| if whole { cost } else { cost.each(point) }),
        ));
    }
    record.charts.push(beside.chart());
    page::publish("growth", &text, record, options.quick)
}

/// The same saga with few definitions loaded and with many.
fn definitions(options: &Options) -> Result<Grown> {
    let stage = |count: usize| {
        let one = |number| {
            let url = format!("http://{TRIPS}:{PORT}/other-{number}/{{trip}}");
            let steps = (0..SERVICES).map(|at| (below(at), "at-once".to_owned()));
            files::saga(&format!("other-{number}"), "disk", &url, steps)
        };
        Stage::set(&Setup {
            shapes: vec![Shape::ONE_TO_FOUR],
            // Two are those that are measured.
            sagas: (2..count).map(one).collect(),
            ..Setup::default()
        })
    };
    let stages = DEFINITIONS
        .iter()
        .map(|count| stage(*count))
        .collect::<Result<Vec<_>>>()?;
    let mut grown = Grown::default();
    for round in 0..=options.rounds {
        eprintln!("    definitions loaded: round {round} of {}", options.rounds);
        for system in SYSTEMS {
            let both = DEFINITIONS.iter().zip(&stages);
            let mut both: Vec<_> = both.collect();
            if round % 2 == 1 {
                both.reverse();
            }
            for (count, stage) in both {
                let cost = cost(stage, system, &system.target(Shape::ONE_TO_FOUR), 16, options)?;
                grown.add(round, system, *count, cost);
            }
        }
    }
    Ok(grown)
}

/// A saga whose service holds its answer; with a lock only one of them calls it.
fn held(name: &str, lock: &str) -> String {
    let url = format!("http://{TRIPS}:{PORT}/{name}/{{trip}}");
    // The last service below, which no saga that is measured calls.
    let steps = [(below(Shape::ONE_TO_FOUR.calls), "held".to_owned())];
    files::saga(name, "disk", &url, steps.into_iter())
        .replace("[trigger]", &format!("timeout = \"1h\"\n{lock}[trigger]"))
        .replace("[[step.compensate]]", "timeout = \"1h\"\n[[step.compensate]]")
}

/// The same saga beside more and more others that can't go on. Also the bytes of one of those, in KiB.
fn in_flight(options: &Options) -> Result<(Grown, f64)> {
    let stage = Stage::set(&Setup {
        shapes: vec![Shape::ONE_TO_FOUR],
        more_below: 1,
        sagas: vec![
            held("calling", ""),
            held("waiting", "lock = \"${trigger.path.trip}\"\n"),
        ],
        upstream: "concurrency = 20000\n",
        ..Setup::default()
    })?;
    let holder = |name: &str| {
        let path = format!("/{name}/7");
        Worker::start(stage.client("hold-open", &Target { hop: false, path })?)
    };
    let (mut grown, mut each) = (Grown::default(), Vec::new());
    for round in 0..=options.rounds {
        let (mut calling, mut waiting) = (holder("calling")?, holder("waiting")?);
        stage.services.hold(true);
        let before = stage.qbox.resident_bytes()?;
        let mut begun = 0;
        // The first round is for caches and connections.
        let points = if round == 0 { &BESIDE[..1] } else { &BESIDE[..] };
        for beside in points {
            while begun < *beside {
                let more = (*beside).min(begun + BATCH);
                let holder = if begun < CALLING {
                    &mut calling
                } else {
                    &mut waiting
                };
                holder.ask(&(more - begun).to_string())?;
                wait_for("the sagas to be in flight", PATIENCE, || {
                    let now = stage.metric("qbox_sagas_in_flight ")?;
                    Ok((now >= more as f64).then_some(()))
                })?;
                holder.ask("leave")?;
                begun = more;
            }
            eprintln!("    {beside} in flight: round {round} of {}", options.rounds);
            for system in SYSTEMS {
                let cost = cost(&stage, system, &system.target(Shape::ONE_TO_FOUR), 16, options)?;
                grown.add(round, system, *beside, cost);
            }
            let now = stage.metric("qbox_sagas_in_flight ")?;
            ensure!(now >= *beside as f64, "{now} of {beside} sagas are in flight");
        }
        if begun > 0 {
            let more = stage.qbox.resident_bytes()?.saturating_sub(before);
            each.push(more as f64 / 1024.0 / begun as f64);
        }
        stage.services.hold(false);
        wait_for("the sagas to end", PATIENCE, || {
            let now = stage.metric("qbox_sagas_in_flight ")?;
            Ok((now < 1.0).then_some(()))
        })?;
        calling.end()?;
        waiting.end()?;
    }
    Ok((grown, Spread::of(each).median))
}

/// Lines of standard input: how many triggers are to be sent, each over a connection of its own; and `leave`, when they have been read, and
/// the connections are to be broken. The sagas go on.
///
/// # Errors
/// A connection breaks.
pub fn hold_open(address: SocketAddr, host: &str, path: &str) -> Result<()> {
    let request = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
    let mut open = Vec::new();
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "leave" => open.clear(),
            count => {
                for _ in 0..count.parse()? {
                    let mut stream = TcpStream::connect(address)?;
                    // By a reset: else it would be kept for the answer.
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                    stream.write_all(request.as_bytes())?;
                    open.push(stream);
                }
            }
        }
        println!("done");
    }
    Ok(())
}

/// Sagas of more and more steps.
fn steps(options: &Options) -> Result<Grown> {
    let sagas = SYSTEMS.into_iter().flat_map(|system| {
        STEPS.map(|count| {
            let way = system.way();
            let url = format!("http://{TRIPS}:{PORT}/{way}/steps-{count}/{{trip}}");
            let steps = (0..count).map(|at| (below(at % SERVICES), "at-once".to_owned()));
            files::saga(&format!("{way}-steps-{count}"), way, &url, steps)
        })
    });
    let stage = Stage::set(&Setup {
        more_below: SERVICES,
        sagas: sagas.collect(),
        ..Setup::default()
    })?;
    let mut grown = Grown::default();
    for round in 0..=options.rounds {
        eprintln!("    steps: round {round} of {}", options.rounds);
        for system in SYSTEMS {
            for count in STEPS {
                let target = Target {
                    hop: false,
                    path: format!("/{}/steps-{count}/7", system.way()),
                };
                let cost = cost(&stage, system, &target, 4, options)?;
                grown.add(round, system, count, cost);
            }
        }
    }
    Ok(grown)
}

fn cost(stage: &Stage, system: System, target: &Target, clients: u32, options: &Options) -> Result<Cost> {
    let one = stage.load(target, Kind::Closed { clients: 1 }, options.span / 2)?;
    let before = stage.counts(system)?;
    let many = stage.load(target, Kind::Closed { clients }, options.span)?;
    let after = stage.counts(system)?;
    Ok(Cost {
        time: one.p50 * 1000.0,
        cpu: (after.cpu - before.cpu) / many.count as f64,
    })
}

impl Cost {
    fn each(self, count: usize) -> Self {
        Self {
            time: self.time / count as f64,
            cpu: self.cpu / count as f64,
        }
    }
}

const VALUES: [fn(&Cost) -> f64; 2] = [|cost| cost.time, |cost| cost.cpu];

impl Grown {
    /// What the first round shows is left out.
    fn add(&mut self, round: usize, system: System, point: usize, cost: Cost) {
        if round > 0 {
            self.0.entry((system, point)).or_default().push(cost);
        }
    }

    fn spread(&self, system: System, point: usize, value: impl Fn(&Cost) -> f64) -> Spread {
        Spread::of(self.0.get(&(system, point)).into_iter().flatten().map(value))
    }

    fn table(
        &self,
        text: &mut String,
        what: &str,
        points: &[usize],
        shown: impl Fn(Cost, usize) -> Cost,
    ) -> Result<()> {
        writeln!(
            text,
            "| {what} | synced: time, µs | CPU, µs | unsynced: time, µs | CPU, µs |\n|---|---|---|---|---|"
        )?;
        for point in points {
            write!(text, "| {point} |")?;
            for system in SYSTEMS {
                for value in VALUES {
                    let spread = self.spread(system, *point, |cost| value(&shown(*cost, *point)));
                    write!(text, " {} |", spread.cell(1))?;
                }
            }
            text.push('\n');
        }
        text.push('\n');
        Ok(())
    }

    /// The last point to the first.
    fn ratios(&self, points: &[usize], shown: impl Fn(Cost, usize) -> Cost) -> Vec<f64> {
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return Vec::new();
        };
        let at = |system, point, value: fn(&Cost) -> f64| {
            self.spread(system, point, |cost| value(&shown(*cost, point)))
                .median
        };
        let of = |system| VALUES.map(|value| at(system, *last, value) / at(system, *first, value));
        SYSTEMS.into_iter().flat_map(of).collect()
    }

    fn chart(&self) -> Chart {
        let series = SYSTEMS.map(|system| Series {
            name: system.name().to_owned(),
            values: BESIDE
                .map(|point| self.spread(system, point, |cost| cost.cpu).into())
                .to_vec(),
        });
        Chart {
            file: "performance-growth".to_owned(),
            title: "Qbox's CPU for a saga of four steps, µs, by the sagas that are in flight beside it"
                .to_owned(),
            groups: BESIDE.map(|point| point.to_string()).to_vec(),
            series: series.to_vec(),
        }
    }
}
