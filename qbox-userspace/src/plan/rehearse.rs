//! A saga played through by the real machine: each call that it commands is answered from a script, at once, and its timers
//! ring at once.

use crate::config::Answer;
use crate::saga::{
    AttemptEnd, Call, Command, Direction, Input, Outcome, Plan, PlanHash, Reply, Request, Saga, SagaId,
    SagaState, Secrets, StepId, StepState, Timestamp, Trigger, UndoState,
};
use std::sync::Arc;
use std::time::Duration;

/// After so many attempts of one message it is taken to go on without end.
const MOST_ATTEMPTS: u32 = 20;
/// So many turns of the machine are waited for an end: more than a saga of 256 steps can take with that many attempts.
const MOST_TURNS: usize = 100_000;
/// How long each answer takes, as far as the machine is told.
const MOMENT: Duration = Duration::from_millis(1);

/// In what way a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its service says no: certainly not applied.
    Refused,
    /// No answer comes, from its probe neither: it may have been applied.
    Unknown,
}

/// What the services answer.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// What was given; every other answer is made up and a success.
    pub answers: &'a [Answer],
    /// The step that fails, whatever was given for it.
    pub fail: Option<(StepId, How)>,
    /// The saga's id.
    pub saga: SagaId,
}

/// One request of a rehearsal.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Requests of one wave can be under way at once; those of the next begin when it has ended.
    pub wave: usize,
    /// Of which step.
    pub step: StepId,
    /// Which of its messages.
    pub direction: Direction,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Whether it is the trigger, passed on.
    pub forward: bool,
    /// What would be sent.
    pub request: Arc<Request>,
    /// What it is taken to end with.
    pub end: AttemptEnd,
    /// The end stands in no file.
    pub made_up: bool,
}

/// Where a step ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepEnd {
    /// Its transaction.
    pub state: StepState,
    /// Its compensation.
    pub undo: UndoState,
    /// Why it failed or is stuck.
    pub cause: Option<String>,
}

/// One way through a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Rehearsal {
    /// Every request, in the order of sending.
    pub sent: Vec<Sent>,
    /// Where each step ends, in the order of the file.
    pub steps: Vec<StepEnd>,
    /// Where the saga ends.
    pub state: SagaState,
    /// What the caller gets.
    pub reply: Option<Reply>,
    /// A message that would be sent again without end: the rehearsal stopped there.
    pub endless: Option<(StepId, Direction)>,
}

impl Rehearsal {
    /// Those requests alone that undo.
    pub fn compensations(&self) -> impl Iterator<Item = &Sent> {
        let undoes = |sent: &&Sent| matches!(sent.direction, Direction::Compensation(_));
        self.sent.iter().filter(undoes)
    }

    /// Whether the step's own request was sent.
    #[must_use]
    pub fn sends(&self, step: StepId) -> bool {
        let own = |sent: &Sent| sent.step == step && sent.direction == Direction::Transaction;
        self.sent.iter().any(own)
    }
}

/// Plays one saga.
#[must_use]
pub fn rehearse(plan: &Arc<Plan>, trigger: &Trigger, script: &Script<'_>) -> Rehearsal {
    let mut now = Timestamp(0);
    // Hash and seed only have to be the same each time.
    let (mut saga, _) = Saga::begin(
        script.saga,
        Arc::clone(plan),
        PlanHash([0; 32]),
        0,
        trigger.clone(),
        now,
        usize::MAX,
    );
    let mut sent: Vec<Sent> = Vec::new();
    let mut endless = None;
    let mut wave = 0;
    for _ in 0..MOST_TURNS {
        let commands = saga.commands();
        let calls: Vec<&Call> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Call(call) => Some(call),
                _ => None,
            })
            .collect();
        if !calls.is_empty() {
            wave += 1;
            now = now.after(MOMENT);
            let ends: Vec<(AttemptEnd, bool)> = calls.iter().map(|call| end(&saga, call, script)).collect();
            for (call, (end, made_up)) in calls.iter().zip(ends) {
                sent.push(Sent {
                    wave,
                    step: call.step,
                    direction: call.direction,
                    attempt: call.attempt,
                    forward: call.forward,
                    request: Arc::clone(&call.request),
                    end: end.clone(),
                    made_up,
                });
                if call.attempt >= MOST_ATTEMPTS {
                    endless = Some((call.step, call.direction));
                }
                let outcome = Outcome {
                    step: call.step,
                    direction: call.direction,
                    attempt: call.attempt,
                    end,
                };
                saga.decide(Input::Outcome(outcome), now);
            }
            if endless.is_some() {
                break;
            }
            continue;
        }
        let wake = commands.iter().find_map(|command| match command {
            Command::Wake(timer) => Some(timer.at),
            _ => None,
        });
        let Some(at) = wake else { break };
        now = now.max(at);
        if saga.decide(Input::Timer, now).is_empty() {
            break;
        }
    }
    let steps = saga.steps().map(|step| StepEnd {
        state: step.state,
        undo: step.undo,
        cause: step.cause.map(str::to_owned),
    });
    Rehearsal {
        sent,
        steps: steps.collect(),
        state: saga.state(),
        reply: saga.reply(&Secrets::default()),
        endless,
    }
}

/// How the call ends, and whether that was made up.
fn end(saga: &Saga, call: &Call, script: &Script<'_>) -> (AttemptEnd, bool) {
    let nowhere = || AttemptEnd::NotSent("nobody listens there".to_owned());
    if let Some((step, how)) = script.fail
        && step == call.step
        && !matches!(call.direction, Direction::Compensation(_))
    {
        let end = match how {
            How::Refused => saga
                .sample_refusal(step)
                .map_or_else(nowhere, AttemptEnd::Answered),
            How::Unknown => AttemptEnd::TimedOut,
        };
        return (end, true);
    }
    let mut given = script
        .answers
        .iter()
        .filter(|answer| (answer.step, answer.direction) == (call.step, call.direction));
    let number = usize::try_from(call.attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    let last = given.clone().last();
    if let Some(answer) = given.nth(number).or(last) {
        return (answer.end.clone(), false);
    }
    let made_up = saga.sample_success(call.step, call.direction);
    (made_up.map_or(AttemptEnd::TimedOut, AttemptEnd::Answered), true)
}
