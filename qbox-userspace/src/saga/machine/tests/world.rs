//! A world for one saga: a virtual clock, a journal that can lose its tail, and plans built in a few words.

use crate::saga::fixture;
pub(super) use crate::saga::fixture::retry;
use crate::saga::{
    AttemptEnd, BodyTemplate, Call, Command, CompensateWhen, Compensation, Derived, Direction, Durability,
    Event, Headers, Input, Kind, Mode, OnRecovery, Operator, OperatorAction, Outcome, Plan, PlanHash, Probe,
    Reply, Request, RequestPlan, RequestTemplate, Response, ResponseMatch, RetryOn, Saga, SagaId, SagaState,
    Scheme, Secrets, StatusSet, Step, StepId, StepState, Template, Timestamp, Trigger, TriggerPattern,
    UndoState, UrlTemplate,
};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

pub(super) const ID: SagaId = SagaId(0x018f_2c1e_7a5b_7c3d_8e9f_0a1b_2c3d_4e5f);
pub(super) const START: Timestamp = Timestamp(1_700_000_000_000_000);

/// `(step, direction, attempt)`.
pub(super) type Attempt = (StepId, Direction, u32);

pub(super) fn statuses(ranges: &[(u16, u16)], except: &[u16]) -> ResponseMatch {
    ResponseMatch {
        status: Some(StatusSet {
            ranges: ranges.to_vec(),
            except: except.to_vec(),
        }),
        headers: Vec::new(),
        body: None,
        json: Vec::new(),
    }
}

/// `METHOD http://NAME/PATH`, nothing else.
pub(super) fn request(method: &str, name: &str, path: &str) -> RequestTemplate {
    RequestTemplate {
        method: method.to_owned(),
        url: UrlTemplate {
            scheme: Scheme::Http,
            authority: format!("{name}.default.svc:8080"),
            path: Template::literal(path),
            query: None,
        },
        headers: Vec::new(),
        body: BodyTemplate::Empty,
    }
}

pub(super) fn compensation(name: &str) -> Compensation {
    Compensation {
        request: request("DELETE", name, "/bookings/7"),
        success: vec![statuses(&[(200, 299), (404, 404), (410, 410)], &[])],
        timeout: Duration::from_secs(2),
        retry: retry(None, &[RetryOn::Any]),
        needs_response: false,
    }
}

pub(super) fn probe(name: &str) -> Probe {
    Probe {
        request: request("GET", name, "/bookings/7"),
        applied: vec![statuses(&[(200, 200)], &[])],
        refused: vec![statuses(&[(404, 404)], &[])],
        timeout: Duration::from_secs(1),
        retry: retry(Some(5), &[RetryOn::Any]),
    }
}

/// A step with the format's defaults and one compensation.
pub(super) fn step(name: &str, after: &[u16]) -> Step {
    Step {
        name: name.to_owned(),
        kind: Kind::Compensatable,
        after: after.iter().copied().map(StepId).collect(),
        when: Vec::new(),
        request: RequestPlan::Send(request("PUT", name, "/bookings/7")),
        success: vec![statuses(&[(200, 299)], &[])],
        refused: vec![statuses(&[(400, 499)], &[408, 429])],
        timeout: Duration::from_secs(5),
        retry: retry(Some(1), &[RetryOn::Any]),
        probe: None,
        compensations: vec![compensation(name)],
        compensate_when: CompensateWhen::Applied,
    }
}

pub(super) fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        name: "book-trip".to_owned(),
        timeout: Duration::from_secs(60),
        reply_timeout: Duration::from_secs(30),
        mode: Mode::Enforce,
        on_recovery: OnRecovery::Compensate,
        durability: Durability::Disk,
        lock: None,
        trigger: TriggerPattern {
            host: "trips.default.svc".to_owned(),
            ..fixture::pattern()
        },
        steps,
        reply_success: None,
        reply_failure: None,
        derived: Derived::default(),
    }
}

pub(super) fn trigger() -> Trigger {
    let mut headers = Headers::default();
    headers.push("Content-Type", "application/json");
    Trigger {
        request: Request {
            method: "POST".to_owned(),
            url: "http://trips.default.svc:8080/trips/7".to_owned(),
            headers,
            body: Bytes::from_static(br#"{"guest":"Ada"}"#),
        },
        path: vec![("trip".to_owned(), "7".to_owned())],
        destination: None,
        http2: false,
        depth: 0,
    }
}

pub(super) fn answer(status: u16, body: &str) -> AttemptEnd {
    AttemptEnd::Answered(Response {
        status,
        headers: Headers::default(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        truncated: false,
    })
}

/// The saga, its journal, and what it has sent that nobody has answered.
pub(super) struct World {
    pub(super) plan: Arc<Plan>,
    pub(super) saga: Saga,
    pub(super) now: Timestamp,
    pub(super) journal: Vec<Event>,
    /// How much of the journal would survive a crash for certain.
    pub(super) durable: usize,
    pub(super) open: Vec<Call>,
    /// Everything that was ever sent, in order.
    pub(super) sent: Vec<Call>,
    begun: HashSet<Attempt>,
    at_once: usize,
}

pub(super) fn key(call: &Call) -> Attempt {
    (call.step, call.direction, call.attempt)
}

impl World {
    pub(super) fn new(plan: Plan, trigger: Trigger) -> Self {
        Self::limited(plan, trigger, usize::MAX)
    }

    /// With so many steps at once.
    pub(super) fn limited(plan: Plan, trigger: Trigger, at_once: usize) -> Self {
        let plan = Arc::new(plan);
        let hash = PlanHash([7; 32]);
        let (saga, journal) = Saga::begin(ID, Arc::clone(&plan), hash, 42, trigger, START, at_once);
        let mut world = Self {
            plan,
            saga,
            now: START,
            journal,
            durable: 0,
            open: Vec::new(),
            sent: Vec::new(),
            begun: HashSet::new(),
            at_once,
        };
        world.carry_out();
        world
    }

    /// The caller's answer.
    pub(super) fn reply(&self) -> Option<Reply> {
        self.saga.reply(&Secrets::default())
    }

    /// As the runner does: what has not begun is sent. Gives the newly sent ones.
    pub(super) fn carry_out(&mut self) -> Vec<Call> {
        let mut new = Vec::new();
        for command in self.saga.commands() {
            match command {
                Command::Call(call) => {
                    if !self.open.iter().any(|open| key(open) == key(&call)) {
                        assert!(self.begun.insert(key(&call)), "sent twice: {:?}", key(&call));
                        if call.durable_first {
                            self.durable = self.journal.len();
                        }
                        new.push(call);
                    }
                }
                Command::Reply => {
                    assert!(self.reply().is_some());
                    self.durable = self.journal.len();
                }
                Command::Wake(_) => {}
            }
        }
        self.open.extend(new.iter().cloned());
        self.sent.extend(new.iter().cloned());
        new
    }

    pub(super) fn wake(&self) -> Option<Timestamp> {
        self.saga.commands().iter().find_map(|command| match command {
            Command::Wake(timer) => Some(timer.at),
            _ => None,
        })
    }

    /// One input, and what the runner does after it.
    pub(super) fn input(&mut self, input: Input) -> Vec<Event> {
        let events = self.saga.decide(input, self.now);
        self.journal.extend(events.iter().cloned());
        self.carry_out();
        events
    }

    pub(super) fn end(&mut self, at: usize, end: AttemptEnd) -> Vec<Event> {
        let call = self.open.remove(at);
        self.input(Input::Outcome(outcome(&call, end)))
    }

    /// Ends the open call of that step and direction.
    pub(super) fn answer(&mut self, step: u16, direction: Direction, end: AttemptEnd) -> Vec<Event> {
        let at = self
            .open
            .iter()
            .position(|call| (call.step, call.direction) == (StepId(step), direction))
            .unwrap_or_else(|| panic!("{step} {direction:?} isn't open: {:?}", self.names()));
        self.end(at, end)
    }

    pub(super) fn operator(&mut self, action: OperatorAction) -> Vec<Event> {
        self.input(Input::Operator(Operator {
            action,
            who: "ada".to_owned(),
            why: "a test".to_owned(),
        }))
    }

    /// Goes to the moment that the saga waits for.
    pub(super) fn sleep(&mut self) -> Vec<Event> {
        let at = self.wake().expect("nothing is waited for");
        self.now = self.now.max(at);
        let events = self.input(Input::Timer);
        assert!(!events.is_empty(), "woken for nothing: {:?}", self.saga);
        events
    }

    /// Qbox dies, all but the first `kept` events are lost, and Qbox starts again.
    pub(super) fn crash(&mut self, kept: usize) {
        assert!(kept >= self.durable);
        self.journal.truncate(kept);
        self.open.clear();
        let known: HashSet<Attempt> = self
            .journal
            .iter()
            .filter_map(|event| match event {
                Event::Sending {
                    step,
                    direction,
                    attempt,
                    ..
                } => Some((*step, *direction, *attempt)),
                _ => None,
            })
            .collect();
        self.begun.retain(|attempt| known.contains(attempt));
        self.saga = Saga::replay(Arc::clone(&self.plan), self.journal.clone()).unwrap();
        self.saga.limit(self.at_once);
        self.input(Input::Recovered);
    }

    /// Answers whatever is sent, in order, until nothing is open and nothing is waited for.
    pub(super) fn run(&mut self, mut respond: impl FnMut(&Call) -> AttemptEnd) -> SagaState {
        for _ in 0..10_000 {
            if let Some(call) = self.open.first().cloned() {
                self.end(0, respond(&call));
            } else if self.wake().is_some() && !self.is_over() {
                self.sleep();
            } else {
                return self.saga.state();
            }
        }
        panic!("no end: {:?}", self.saga.state());
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(
            self.saga.state(),
            SagaState::Committed | SagaState::Compensated | SagaState::Stuck
        )
    }

    /// What is open, as `hotel`, `hotel?2` (a probe's second attempt), `hotel!0` (a compensation).
    pub(super) fn names(&self) -> Vec<String> {
        self.open.iter().map(|call| self.name(call)).collect()
    }

    /// What was sent, in order.
    pub(super) fn trace(&self) -> String {
        let names: Vec<String> = self.sent.iter().map(|call| self.name(call)).collect();
        names.join(" ")
    }

    fn name(&self, call: &Call) -> String {
        let step = &self.plan.steps[call.step.index()].name;
        let again = if call.attempt > 1 {
            format!("#{}", call.attempt)
        } else {
            String::new()
        };
        match call.direction {
            Direction::Transaction => format!("{step}{again}"),
            Direction::Probe => format!("{step}?{again}"),
            Direction::Compensation(n) => format!("{step}!{n}{again}"),
            Direction::Child(n) => format!("{step}/{n}{again}"),
        }
    }

    pub(super) fn views(&self) -> Vec<(StepState, UndoState)> {
        self.saga.steps().map(|view| (view.state, view.undo)).collect()
    }

    /// The journal, folded again and through JSON, is the same saga with the same commands.
    pub(super) fn check_replay(&self) {
        let written: Vec<String> = self
            .journal
            .iter()
            .map(|event| serde_json::to_string(event).unwrap())
            .collect();
        let read = written.iter().map(|line| serde_json::from_str(line).unwrap());
        let mut again = Saga::replay(Arc::clone(&self.plan), read).unwrap();
        again.limit(self.at_once);
        assert_eq!(format!("{again:?}"), format!("{:?}", self.saga));
        assert_eq!(again.commands(), self.saga.commands());
    }
}

pub(super) fn outcome(call: &Call, end: AttemptEnd) -> Outcome {
    Outcome {
        step: call.step,
        direction: call.direction,
        attempt: call.attempt,
        end,
    }
}
