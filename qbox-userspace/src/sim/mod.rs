//! Every way a saga can go, walked: `cargo xtask sim`, and in a bounded form with the other tests.
//!
//! For every plan ([`plans`]) all that can happen happens ([`world`]): each outcome of each attempt, in any order of
//! arrival; what was given up takes effect later, or never; moments pass; an operator decides; sagas begin for its steps; the saga above
//! undoes it; Qbox dies, and the journal has lost
//! any part of what nobody waited for. How many of these a run may hold is bounded ([`world::Budget`]); when nothing bad is left
//! the world is kind, and every saga must end. The promise ([`laws`]) is checked at each sending, in each state and at each end,
//! against what really happened at the services ([`service`]).
//!
//! The machine under test is the real one. The rest is a model: of the runner (send, wait for the journal, send the rest, reply), of a
//! journal whose end can be lost, event by event, and of services that do what docs/guarantees.md asks of them.
//!
//! What it can't find: what lies in values (expressions, bodies, `max_elapsed`), in plans of more steps, in more misfortunes at once
//! than a run may hold, in the true runner and journal. For these there are property tests, and suites with the real binary.
//!
//! That it can find something was tried by breaking the machine by hand. The bounded walk finds each of these: a pivot's intent, or a
//! compensation's, or the saga's first that doesn't wait for the journal; an unknown outcome taken as refused; siblings in flight not
//! waited for; a probe not asked; a compensation's key without its round; a lost tail taken for the whole history; compensations
//! out of order; a late success not undone again, or not waited for; a step's last answer taken for what all its attempts say.
//!
//! Known states are not walked again ([`walk`]). Moments count by their order alone. Knows the saga room, and config and
//! journal for reading plans; is no part of the binary.

mod laws;
mod plans;
mod report;
mod service;
mod walk;
mod world;

use plans::Scene;
use report::Sum;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use world::Budget;

/// Plans of that many steps, and what may happen to them.
#[derive(Clone, Copy, PartialEq)]
struct Leg {
    steps: usize,
    budget: Budget,
    /// How far from the plainest the plans may be; see `Draft::special`.
    special: usize,
}

const fn leg(steps: usize, faults: u8, crashes: u8, decisions: u8, special: usize) -> Leg {
    Leg {
        steps,
        budget: Budget {
            faults,
            crashes,
            decisions,
            nested: 0,
            revoked: 0,
        },
        special,
    }
}

/// The same, where so many sagas may begin for its steps, and where it may be undone by the one above.
const fn nested(leg: Leg, nested: u8, revoked: u8) -> Leg {
    let Budget {
        faults,
        crashes,
        decisions,
        ..
    } = leg.budget;
    Leg {
        budget: Budget {
            faults,
            crashes,
            decisions,
            nested,
            revoked,
        },
        ..leg
    }
}

/// What is walked with every run of the tests.
const BOUNDED: &[Leg] = &[
    leg(1, 1, 1, 0, 9),
    leg(1, 0, 1, 1, 1),
    leg(1, 1, 2, 0, 1),
    leg(1, 2, 0, 1, 1),
    leg(2, 1, 1, 0, 1),
    leg(3, 1, 0, 0, 1),
    leg(3, 0, 1, 0, 1),
    leg(4, 0, 1, 0, 0),
    nested(leg(1, 1, 1, 0, 1), 2, 1),
    nested(leg(1, 0, 1, 1, 1), 1, 1),
    nested(leg(2, 1, 0, 0, 1), 1, 1),
    nested(leg(2, 0, 1, 0, 1), 1, 1),
];

/// What `cargo xtask sim` walks.
const WHOLE: &[Leg] = &[
    leg(1, 2, 1, 1, 9),
    leg(1, 1, 2, 1, 9),
    leg(2, 1, 1, 0, 9),
    leg(2, 2, 1, 0, 2),
    leg(2, 1, 2, 0, 1),
    leg(2, 1, 1, 1, 1),
    leg(3, 1, 1, 0, 1),
    leg(4, 1, 0, 0, 1),
    leg(4, 0, 1, 0, 1),
    leg(4, 1, 1, 0, 0),
    nested(leg(1, 1, 1, 1, 9), 2, 1),
    nested(leg(1, 1, 2, 0, 9), 1, 1),
    nested(leg(2, 1, 1, 0, 2), 1, 1),
    nested(leg(3, 0, 1, 0, 1), 1, 1),
];

/// Walks all of a leg on so many threads; each violation is told as it is found.
fn walk_leg(leg: Leg, threads: usize) -> Sum {
    let all = plans::scenes(leg.steps).into_iter();
    let all: Vec<_> = all.take_while(|draft| draft.special() <= leg.special).collect();
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(draft) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scene: Rc<Scene> = Rc::new(draft.scene());
                    let walked = walk::all(&scene, leg.budget);
                    if let Some(found) = &walked.violation {
                        eprintln!("{}", report::violation(&scene, leg.budget, found));
                    }
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.add(&walked);
                    sum.progress(leg, all.len(), start.elapsed());
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    eprintln!("{}", sum.line(leg, start.elapsed()));
    sum
}

fn walk_legs(legs: impl IntoIterator<Item = Leg>, threads: usize) -> Sum {
    let mut total = Sum::default();
    for leg in legs {
        total.join(&walk_leg(leg, threads));
    }
    total
}

#[test]
fn no_bounded_run_breaks_a_promise() {
    let sum = walk_legs(BOUNDED.iter().copied(), 1);
    assert_eq!(sum.violations, 0, "{}", sum.last());
    // A walk that goes nowhere finds nothing.
    assert!(sum.states > 100_000, "{}", sum.last());
}

/// A number that `cargo xtask sim` was given.
fn given(name: &str) -> Option<u8> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a small number, not {text:?}")),
    )
}

#[test]
#[ignore = "takes minutes: cargo xtask sim"]
fn no_run_breaks_a_promise() {
    let mut legs: Vec<Leg> = Vec::new();
    let most = given("QBOX_SIM_STEPS").map_or(plans::MOST_STEPS, usize::from);
    let from = given("QBOX_SIM_FROM").map_or(0, usize::from);
    for leg in WHOLE.iter().skip(from).filter(|leg| leg.steps <= most) {
        let budget = Budget {
            faults: given("QBOX_SIM_FAULTS").unwrap_or(leg.budget.faults),
            crashes: given("QBOX_SIM_CRASHES").unwrap_or(leg.budget.crashes),
            decisions: given("QBOX_SIM_DECISIONS").unwrap_or(leg.budget.decisions),
            ..leg.budget
        };
        let leg = Leg { budget, ..*leg };
        if !legs.contains(&leg) {
            legs.push(leg);
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let sum = walk_legs(legs, threads);
    println!("{}", sum.last());
    assert_eq!(sum.violations, 0);
}

#[test]
#[ignore = "tells one run: cargo xtask sim --replay RUN"]
fn one_run() {
    let run = std::env::var("QBOX_SIM_REPLAY").expect("QBOX_SIM_REPLAY names the run");
    println!("{}", report::replay(&run));
}
