//! `cargo xtask bench micro`: what the parts of a saga cost by themselves, in this process: to find it, to fill in its expressions, to
//! decide what comes next, to keep that. Criterion compares each with what it was the last time.

use anyhow::{Result, ensure};
use criterion::{BatchSize, Criterion, Throughput};
use qbox::config::load_saga;
use qbox::gateway::{Definition, Index};
use qbox::journal::durable::Settings;
use qbox::journal::{Durable, Journal, JournalError, plan_hash};
use qbox::saga::{
    AttemptEnd, Command, Event, Input, Outcome, Place, Plan, PlanHash, RequestHead, Saga, SagaId, Scope,
    StepId, Template, Timestamp, Trigger, sample_trigger,
};
use std::cell::Cell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

/// So many sagas on one host and port, of so many steps at once.
fn text(number: usize, steps: usize) -> String {
    let mut text = format!(
        "name = \"s{number}\"\n[trigger]\nmethod = \"POST\"\nurl = \"http://shop.default.svc:8080/shops/{{shop}}/o{number}\"\n"
    );
    for step in 0..steps {
        // A `String` takes all that is written to it.
        let _ = write!(
            text,
            "[[step]]\nname = \"b{step}\"\n\
             request = {{ method = \"PUT\", url = \"http://b{step}/x/${{saga.id}}\", \
             json = {{ shop = \"${{trigger.path.shop}}\", guest = \"${{trigger.json.guest}}\" }} }}\n\
             [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"http://b{step}/x/${{saga.id}}\" }}\n"
        );
    }
    text
}

fn plan(number: usize, steps: usize) -> Result<Arc<Plan>> {
    let read = load_saga(&text(number, steps), "bench.toml");
    let (plan, _) = read.map_err(|found| anyhow::anyhow!("{found:?}"))?;
    Ok(Arc::new(plan))
}

/// One saga's beginnings.
struct Started {
    plan: Arc<Plan>,
    hash: PlanHash,
    trigger: Trigger,
}

impl Started {
    fn new(steps: usize) -> Result<Self> {
        let plan = plan(0, steps)?;
        Ok(Self {
            hash: plan_hash(&plan)?,
            trigger: sample_trigger(&plan),
            plan,
        })
    }

    fn begin(&self, id: u128) -> (Saga, Vec<Event>) {
        let (plan, trigger) = (Arc::clone(&self.plan), self.trigger.clone());
        Saga::begin(SagaId(id), plan, self.hash, 7, trigger, at(0), usize::MAX)
    }

    /// All that happens to one that commits.
    fn whole(&self, id: u128) -> Vec<Vec<Event>> {
        let (mut saga, began) = self.begin(id);
        let mut all = vec![began];
        while let Some(outcome) = next(&saga) {
            all.push(saga.decide(Input::Outcome(outcome), at(1)));
        }
        all
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::default().after(std::time::Duration::from_millis(millis))
}

/// The next call's success.
fn next(saga: &Saga) -> Option<Outcome> {
    let call = saga.commands().into_iter().find_map(|command| match command {
        Command::Call(call) => Some(call),
        Command::Wake(_) | Command::Reply => None,
    })?;
    let response = saga.sample_success(call.step, call.direction)?;
    Some(Outcome {
        step: call.step,
        direction: call.direction,
        attempt: call.attempt,
        end: AttemptEnd::Answered(response),
    })
}

fn matching(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("matching");
    for count in [10, 1000] {
        let mut definitions = Vec::new();
        for number in 0..count {
            definitions.push(Definition::new(plan(number, 1)?)?);
        }
        let index = Index::new(&definitions);
        let target = format!("/shops/7/o{}", count / 2);
        group.bench_function(format!("among {count}"), |bench| {
            bench.iter(|| {
                let fields = [("Host", "shop.default.svc:8080"), ("Accept", "*/*")];
                let fields = fields.map(|(name, value)| (name, value.as_bytes()));
                let head = RequestHead::new(black_box("POST"), black_box(&target), fields.into_iter());
                head.is_some_and(|head| index.find(&head, b"").is_some())
            });
        });
    }
    Ok(())
}

fn expressions(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("expressions");
    let text = "x/${saga.id}/${trigger.path.shop}?guest=${trigger.json.guest}";
    let steps = ["b0".to_owned()];
    let scope = Scope {
        steps: &steps,
        place: Place::Request(StepId(0)),
    };
    group.bench_function("read", |bench| {
        bench.iter(|| Template::parse(black_box(text), &scope))
    });
    let started = Started::new(1)?;
    let (saga, _) = started.begin(1);
    group.bench_function("a request with four filled in", |bench| {
        bench.iter(|| saga.commands())
    });
    Ok(())
}

fn machine(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("machine");
    for steps in [4, 64] {
        let started = Started::new(steps)?;
        group.throughput(Throughput::Elements(steps as u64));
        group.bench_function(format!("{steps} steps begun"), |bench| {
            bench.iter(|| started.begin(1))
        });
        let events: Vec<Event> = started.whole(1).concat();
        group.bench_function(format!("{steps} steps replayed"), |bench| {
            bench.iter_batched(
                || events.clone(),
                |events| Saga::replay(Arc::clone(&started.plan), events),
                BatchSize::SmallInput,
            );
        });
    }
    Ok(())
}

fn journal(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("journal");
    // On the disk that the journal would be on, not in a /tmp that may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let settings = Settings {
        open: usize::MAX,
        ..Settings::default()
    };
    let journal = Durable::open(folder.path(), settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()?;
    let started = Started::new(4)?;
    journal.store_plan(started.hash, &started.plan)?;
    let ids = Cell::new(0);
    let whole = || {
        ids.set(ids.get() + 1);
        (SagaId(ids.get()), started.whole(ids.get()))
    };
    let keep = |(id, all): (SagaId, Vec<Vec<Event>>), synced: bool| {
        let mut first = 0;
        for events in all {
            let position = journal.append(id, first, &events)?;
            let ends = events
                .iter()
                .any(|event| matches!(event, Event::Committed { .. }));
            if synced && (first == 0 || ends) {
                runtime.block_on(journal.durable(position))?;
            }
            first += events.len() as u64;
        }
        Ok::<_, JournalError>(())
    };
    for (name, synced) in [("4 steps kept and synced twice", true), ("4 steps kept", false)] {
        group.bench_function(name, |bench| {
            bench.iter_batched(whole, |saga| keep(saga, synced), BatchSize::SmallInput);
        });
    }
    ensure!(journal.failure().is_none(), "{:?}", journal.failure());
    Ok(())
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    matching(&mut criterion)?;
    expressions(&mut criterion)?;
    machine(&mut criterion)?;
    journal(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
