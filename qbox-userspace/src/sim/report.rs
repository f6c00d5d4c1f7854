//! What a person reads: progress, sums, and a run that breaks a promise, told act by act.

use super::Leg;
use super::plans::{self, Scene, name};
use super::walk::{Violation, Walked};
use super::world::{Act, Attempt, Budget, How, World};
use crate::saga::{AttemptEnd, Class, Direction, Event, OperatorAction};
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

/// What several walks have seen.
#[derive(Default)]
pub(super) struct Sum {
    scenes: u64,
    acts: u64,
    ends: u64,
    pub(super) states: u64,
    pub(super) violations: u64,
    told: Duration,
}

impl Sum {
    pub(super) fn add(&mut self, walked: &Walked) {
        self.scenes += 1;
        self.states += walked.states;
        self.acts += walked.acts;
        self.ends += walked.ends;
        self.violations += u64::from(walked.violation.is_some());
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.scenes += other.scenes;
        self.states += other.states;
        self.acts += other.acts;
        self.ends += other.ends;
        self.violations += other.violations;
    }

    /// Every few seconds.
    pub(super) fn progress(&mut self, leg: Leg, all: usize, elapsed: Duration) {
        if elapsed >= self.told + Duration::from_secs(5) {
            self.told = elapsed;
            eprintln!("    {} of {all} plans: {}", self.scenes, self.line(leg, elapsed));
        }
    }

    pub(super) fn line(&self, leg: Leg, elapsed: Duration) -> String {
        let Budget {
            faults,
            crashes,
            decisions,
            nested,
            revoked,
        } = leg.budget;
        format!(
            "{} steps, {faults} faults, {crashes} crashes, {decisions} decisions, {nested} nested, {revoked} revoked: {} plans, {} states, {} transitions, {} ends, {} violations, {:.1} s",
            leg.steps,
            self.scenes,
            self.states,
            self.acts,
            self.ends,
            self.violations,
            elapsed.as_secs_f32()
        )
    }

    pub(super) fn last(&self) -> String {
        format!(
            "{} plans, {} states, {} transitions, {} ends\n{} violations",
            self.scenes, self.states, self.acts, self.ends, self.violations
        )
    }
}

/// A run that breaks a promise, and how to see it again.
pub(super) fn violation(scene: &Rc<Scene>, budget: Budget, found: &Violation) -> String {
    let path: Vec<String> = found.path.iter().map(usize::to_string).collect();
    let Budget {
        faults,
        crashes,
        decisions,
        nested,
        revoked,
    } = budget;
    let run = format!(
        "{}/{faults}/{crashes}/{decisions}/{nested}/{revoked}/{}",
        scene.name,
        path.join(".")
    );
    format!(
        "violation: {}\n{}again: cargo xtask sim --replay '{run}'\n",
        found.what,
        tell(scene, budget, &found.path)
    )
}

/// Tells the run of that name.
pub(super) fn replay(run: &str) -> String {
    let parts: Vec<&str> = run.split('/').collect();
    let [scene, faults, crashes, decisions, nested, revoked, path] = parts[..] else {
        panic!("a run is PLAN/FAULTS/CRASHES/DECISIONS/NESTED/REVOKED/ACTS, not {run:?}");
    };
    let number = |text: &str| text.parse::<u8>().expect("a small number");
    let budget = Budget {
        faults: number(faults),
        crashes: number(crashes),
        decisions: number(decisions),
        nested: number(nested),
        revoked: number(revoked),
    };
    let mut scenes = (1..=plans::MOST_STEPS).flat_map(plans::scenes);
    let scene = scenes
        .find(|draft| draft.name() == scene)
        .expect("a plan of that name")
        .scene();
    let path: Vec<usize> = path
        .split('.')
        .filter(|act| !act.is_empty())
        .map(|act| act.parse().expect("the number of an act"))
        .collect();
    tell(&Rc::new(scene), budget, &path)
}

fn tell(scene: &Rc<Scene>, budget: Budget, path: &[usize]) -> String {
    let mut text = format!("--- {}\n{}---\n", scene.name, scene.text);
    let mut world = match World::new(scene, budget) {
        Ok(world) => world,
        Err(what) => return format!("{text}at once: {what}\n"),
    };
    events(&world, 0, &mut text);
    for (number, at) in path.iter().enumerate() {
        let acts = world.acts();
        let act = acts.get(*at).expect("an act that can happen");
        writeln!(text, "{}. {}", number + 1, self::act(act)).unwrap();
        let known = match act {
            Act::Crash { kept, .. } => *kept,
            _ => world.journal.len(),
        };
        match world.after(act) {
            Ok(Some(after)) => world = after,
            Ok(None) => writeln!(text, "   (can't happen)").unwrap(),
            Err(what) => {
                writeln!(text, "   => {what}").unwrap();
                break;
            }
        }
        events(&world, known, &mut text);
    }
    text
}

fn events(world: &World, from: usize, text: &mut String) {
    for event in world.journal.iter().skip(from) {
        writeln!(text, "       {}", self::event(event)).unwrap();
    }
    let stands = world.saga.state();
    let durable = world.durable;
    writeln!(
        text,
        "   {stands:?}; {durable} of {} events are on disk",
        world.journal.len()
    )
    .unwrap();
}

fn message((step, direction, attempt): &Attempt) -> String {
    let name = name(step.index());
    match direction {
        Direction::Transaction => format!("{name}, attempt {attempt}"),
        Direction::Probe => format!("{name}'s probe, attempt {attempt}"),
        Direction::Compensation(n) => format!("{name}'s compensation {n}, attempt {attempt}"),
        Direction::Child(n) => format!("the undoing of {name}'s nested saga {n}, attempt {attempt}"),
    }
}

fn act(act: &Act) -> String {
    match act {
        Act::Durable => "the journal is on disk; what waited for that leaves".to_owned(),
        Act::Crash { kept, landed } => {
            let done = if *landed {
                ", what was under way is done"
            } else {
                ""
            };
            format!("Qbox dies and starts again; {kept} events are left{done}")
        }
        Act::End { attempt, how, landed } => {
            let landed = if *landed {
                "an earlier attempt takes effect; "
            } else {
                ""
            };
            let how = match how {
                How::Well => "done and answered",
                How::Refused => "refused",
                How::NotSent => "not sent",
                How::Held => "held back",
                How::FailedDone => "done, answered 500",
                How::Failed => "not done, answered 500",
                How::SilentDone => "done, no answer in time",
                How::Silent => "no answer in time, may be done later",
                How::BrokenDone => "done, the connection breaks",
            };
            format!("{landed}{}: {how}", message(attempt))
        }
        Act::Nest(step) => format!("a saga is about to begin for {}", name(step.index())),
        Act::Revoke => "the saga above undoes this one".to_owned(),
        Act::Timer => "the saga's timer".to_owned(),
        Act::Late { step, attempt } => {
            let of = (*step, Direction::Transaction, *attempt);
            format!("{}: done after all, and answered", message(&of))
        }
        Act::Silence { step, attempt } => {
            let of = (*step, Direction::Transaction, *attempt);
            format!("{}: never done, and not listened to any more", message(&of))
        }
        Act::Decide(action) => match action {
            OperatorAction::Retry(Some(step)) => format!("an operator: retry {}", name(step.index())),
            OperatorAction::Skip(step) => format!("an operator: skip {}", name(step.index())),
            other => format!("an operator: {other:?}"),
        },
    }
}

fn event(event: &Event) -> String {
    match event {
        Event::Sending {
            step,
            direction,
            attempt,
            ..
        } => format!("sending {}", message(&(*step, *direction, *attempt))),
        Event::RetryAt {
            step,
            direction,
            attempt,
            ..
        } => format!("later: {}", message(&(*step, *direction, *attempt))),
        Event::Ended {
            step,
            direction,
            attempt,
            end,
            class,
            ..
        } => {
            let end = match end {
                AttemptEnd::Answered(response) => format!("answered {}", response.status),
                other => format!("{other:?}"),
            };
            let class = match class {
                Class::NotApplied => "not applied",
                Class::Unknown => "unknown",
                Class::Applied => "applied",
            };
            format!(
                "ended {}: {end}, {class}",
                message(&(*step, *direction, *attempt))
            )
        }
        Event::Skipped { step, .. } => format!("skipped {}", name(step.index())),
        Event::StepFailed { step, cause, .. } => format!("failed {}: {cause}", name(step.index())),
        Event::Failed { cause, .. } => format!("the saga turns: {cause}"),
        Event::Nested { step, .. } => format!("a saga begins for {}", name(step.index())),
        Event::Revoked { .. } => "undone from above".to_owned(),
        Event::Undone { step, .. } => format!("undone {}", name(step.index())),
        Event::Stuck { step, cause, .. } => format!("stuck {}: {cause}", name(step.index())),
        Event::Decided { operator, .. } => format!("decided {:?}", operator.action),
        Event::Began { .. } => "began".to_owned(),
        Event::Compensating { .. } => "compensating".to_owned(),
        Event::ReplyDue { .. } => "the caller is answered now".to_owned(),
        Event::Committed { .. } => "committed".to_owned(),
        Event::Compensated { .. } => "compensated".to_owned(),
        Event::Recovered { .. } => "recovered".to_owned(),
    }
}
