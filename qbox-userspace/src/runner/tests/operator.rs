//! The operator's hand: every action, and a restart in the middle of each.

use super::*;
use crate::journal::{Durable, durable};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tempfile::TempDir;

/// A service that books, and can't un-book until it is mended.
struct Stubborn {
    service: Service,
    mended: Arc<AtomicBool>,
}

impl Stubborn {
    async fn start() -> Self {
        let mended = Arc::new(AtomicBool::new(false));
        let works = Arc::clone(&mended);
        let service = Service::start(move |seen| match seen.method.as_str() {
            "DELETE" if !works.load(SeqCst) => Act::Answer(500, "{}"),
            _ => Act::Answer(200, "{}"),
        })
        .await;
        Self { service, mended }
    }

    fn mend(&self) {
        self.mended.store(true, SeqCst);
    }

    /// As a step that is stuck after two attempts to undo it.
    fn step(&self, name: &str) -> String {
        step(name, &self.service.url("/7"), "").replace("backoff", "attempts = 2, backoff")
    }
}

/// Hotel and flight can't be undone, and the car says no.
struct Trip {
    hotel: Stubborn,
    flight: Stubborn,
    _car: Service,
    plan: (Arc<Plan>, PlanHash),
}

impl Trip {
    async fn new() -> Self {
        let (hotel, flight) = (Stubborn::start().await, Stubborn::start().await);
        let car = Service::start(|_| Act::Answer(409, "{}")).await;
        let plan = saga(
            "lock = \"${trigger.path.trip}\"\ntimeout = \"1s\"",
            &[
                hotel.step("hotel"),
                flight.step("flight"),
                step("car", &car.url("/7"), "after = [\"hotel\", \"flight\"]"),
            ],
        );
        Self {
            hotel,
            flight,
            _car: car,
            plan,
        }
    }

    /// Starts one, and waits until it is stuck.
    async fn stuck(&self, runner: &Runner, trip: &str, key: Option<&str>) -> SagaId {
        let handle = start(runner, &self.plan, trigger(trip, key, "")).unwrap();
        let id = handle.id;
        assert_eq!(reply(handle).await.unwrap().status, 502);
        settles(runner, id, State::Stuck).await;
        id
    }
}

/// Where the services live: they outlast every Qbox.
fn services() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

/// One life of a Qbox on the journal in `folder`: it ends as by a kill, with all of its tasks.
fn life<T>(folder: &TempDir, lives: impl AsyncFnOnce(&Runner) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let journal = Durable::open(folder.path(), durable::Settings::default()).unwrap();
        let runner = runner_with(journal, Settings::default());
        runner.recover();
        lives(&runner).await
    })
}

async fn settles(runner: &Runner, id: SagaId, state: State) -> Summary {
    let settled = async {
        loop {
            let summary = summary(runner, id);
            let rests = match state {
                State::Stuck => runner.health().stuck > 0,
                State::Committed | State::Compensated => summary.ended.is_some(),
                _ => true,
            };
            if summary.state == state && rests {
                return summary;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let settled = tokio::time::timeout(PATIENCE, settled).await;
    settled.unwrap_or_else(|_| panic!("not {state:?}: {:?}", summary(runner, id)))
}

fn summary(runner: &Runner, id: SagaId) -> Summary {
    runner.saga(id).unwrap().unwrap().summary
}

fn decision(action: Action, step: Option<&str>) -> Decision {
    Decision {
        action,
        step: step.map(str::to_owned),
        who: "ada".to_owned(),
        why: "ticket 7".to_owned(),
    }
}

async fn act(runner: &Runner, id: SagaId, action: Action, step: Option<&str>) -> Result<Summary, ActError> {
    let decision = decision(action, step);
    let acted = runner.act(id, &decision);
    tokio::time::timeout(PATIENCE, acted).await.expect("no answer")
}

fn history(runner: &Runner, id: SagaId) -> Vec<String> {
    lines(&runner.saga(id).unwrap().unwrap())
}

#[test]
fn a_stuck_saga_is_retried_after_a_restart() {
    let services = services();
    let trip = services.block_on(Trip::new());
    let folder = tempfile::tempdir().unwrap();
    let (id, before) = life(&folder, async |runner| {
        let id = trip.stuck(runner, "7", Some("k")).await;
        (id, summary(runner, id))
    });
    assert_eq!(before.stuck.len(), 2);
    assert_eq!(
        before.cause.as_deref().map(|cause| cause.contains("car")),
        Some(true),
        "{before:?}"
    );
    assert_eq!(before.stuck[0].step, "hotel");
    assert_eq!(before.stuck[0].last.as_deref(), Some("answered 500"));
    assert!(before.stuck[0].since > before.arrived);
    assert_eq!(trip.hotel.service.methods(), ["PUT", "DELETE", "DELETE"]);
    life(&folder, async |runner| {
        let after = settles(runner, id, State::Stuck).await;
        assert_eq!(after.stuck, before.stuck);
        assert_eq!(runner.health().in_flight, 1, "it keeps its place");
        let blocked = start(runner, &trip.plan, trigger("7", None, "")).unwrap();
        assert_eq!(reply(blocked).await.unwrap_err(), Refused::Locked, "and its lock");
        // In vain, and of one step alone.
        act(runner, id, Action::Retry, Some("flight")).await.unwrap();
        trip.flight.service.asked(5).await;
        let again = settles(runner, id, State::Stuck).await;
        assert_eq!(again.stuck[0], before.stuck[0]);
        assert_eq!(again.stuck[1].step, "flight");
        assert!(again.stuck[1].since > before.stuck[1].since);
        assert_eq!(trip.hotel.service.methods().len(), 3);
        trip.hotel.mend();
        trip.flight.mend();
        act(runner, id, Action::Retry, None).await.unwrap();
        let ended = settles(runner, id, State::Compensated).await;
        assert!(ended.stuck.is_empty() && ended.ended.is_some(), "{ended:?}");
        assert_eq!(runner.health().stuck, 0);
        assert_eq!(runner.drain(PATIENCE).await, 0);
        assert_eq!(runner.health().in_flight, 0);
        let refused = act(runner, id, Action::Retry, None).await.unwrap_err();
        assert_eq!(refused, ActError::Ended(State::Compensated));
    });
    life(&folder, async |runner| {
        assert_eq!(summary(runner, id).state, State::Compensated);
        let history = history(runner, id);
        let line = "ada decided: retry flight (ticket 7)".to_owned();
        assert!(history.contains(&line), "{history:#?}");
        let again = start(runner, &trip.plan, trigger("7", Some("k"), "")).unwrap();
        assert_eq!((again.joined, again.id), (true, id));
    });
}

#[test]
fn a_retry_goes_on_over_a_restart() {
    let services = services();
    let trip = services.block_on(Trip::new());
    let folder = tempfile::tempdir().unwrap();
    let id = life(&folder, async |runner| {
        let id = trip.stuck(runner, "7", None).await;
        trip.hotel.mend();
        trip.flight.mend();
        // Acknowledged, and not yet sent: the journal alone has it.
        act(runner, id, Action::Retry, None).await.unwrap();
        id
    });
    life(&folder, async |runner| {
        settles(runner, id, State::Compensated).await;
    });
    assert!(trip.hotel.service.methods().len() >= 4);
}

#[test]
fn what_was_settled_by_hand_is_sent_no_more() {
    let services = services();
    let trip = services.block_on(Trip::new());
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = life(&folder, async |runner| {
        let one = trip.stuck(runner, "7", None).await;
        let other = trip.stuck(runner, "8", None).await;
        act(runner, one, Action::Skip, Some("hotel")).await.unwrap();
        act(runner, other, Action::Resolve, None).await.unwrap();
        (one, other)
    });
    let asked = trip.hotel.service.methods().len();
    life(&folder, async |runner| {
        let left = settles(runner, one, State::Stuck).await;
        assert_eq!(left.stuck.len(), 1);
        assert_eq!(left.stuck[0].step, "flight");
        assert_eq!(summary(runner, other).state, State::Compensated);
        let refused = act(runner, one, Action::Skip, Some("car")).await.unwrap_err();
        assert!(matches!(refused, ActError::NotNow(_)), "{refused:?}");
        act(runner, one, Action::Skip, Some("flight")).await.unwrap();
        settles(runner, one, State::Compensated).await;
        let line = "ada decided: skip flight (ticket 7)".to_owned();
        assert!(history(runner, one).contains(&line));
    });
    assert_eq!(trip.hotel.service.methods().len(), asked);
}

#[test]
fn a_running_saga_is_turned_back() {
    let services = services();
    let (hotel, car) = services.block_on(async {
        let car = Service::start(|seen| match seen.method.as_str() {
            "PUT" => Act::Hang,
            _ => Act::Answer(200, "{}"),
        });
        (Service::willing().await, car.await)
    });
    let plan = saga(
        "on_recovery = \"resume\"",
        &[
            step("hotel", &hotel.url("/7"), ""),
            step("car", &car.url("/7"), "after = [\"hotel\"]"),
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let id = life(&folder, async |runner| {
        let handle = start(runner, &plan, trigger("7", None, "")).unwrap();
        car.asked(1).await;
        let refused = act(runner, handle.id, Action::Resolve, None).await.unwrap_err();
        assert!(refused.to_string().contains("forward by itself"), "{refused}");
        act(runner, handle.id, Action::Compensate, None).await.unwrap();
        handle.id
    });
    life(&folder, async |runner| {
        let ended = settles(runner, id, State::Compensated).await;
        assert_eq!(ended.cause.as_deref(), Some("an operator: ticket 7"));
        let history = history(runner, id);
        assert!(
            history.contains(&"ada decided: compensate (ticket 7)".to_owned()),
            "{history:#?}"
        );
    });
    assert_eq!(hotel.methods(), ["PUT", "DELETE"]);
}

#[test]
fn a_paused_saga_stays_paused_over_restarts() {
    let services = services();
    let (open, gate) = tokio::sync::watch::channel(false);
    let (hotel, car) = services.block_on(async {
        let hotel = Service::start(move |_| Act::Wait(gate.clone())).await;
        (hotel, Service::willing().await)
    });
    let plan = saga(
        "on_recovery = \"resume\"",
        &[
            step("hotel", &hotel.url("/7"), ""),
            step("car", &car.url("/7"), "after = [\"hotel\"]"),
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let id = life(&folder, async |runner| {
        let handle = start(runner, &plan, trigger("7", None, "")).unwrap();
        hotel.asked(1).await;
        act(runner, handle.id, Action::Pause, None).await.unwrap();
        let again = act(runner, handle.id, Action::Pause, None).await.unwrap_err();
        assert_eq!(again.to_string(), "this can't be done now: it is paused already");
        handle.id
    });
    open.send_replace(true);
    life(&folder, async |runner| {
        let paused = settles(runner, id, State::Running).await;
        assert!(paused.paused);
        assert_eq!(
            runner.drain(PATIENCE).await,
            0,
            "its caller is gone: a drain does not wait"
        );
        let refused = act(runner, id, Action::Resume, None).await.unwrap_err();
        assert_eq!(refused, ActError::Draining);
    });
    life(&folder, async |runner| {
        assert!(settles(runner, id, State::Running).await.paused);
        assert!(!act(runner, id, Action::Resume, None).await.unwrap().paused);
        settles(runner, id, State::Committed).await;
    });
    assert_eq!(car.methods(), ["PUT"]);
}

#[tokio::test]
async fn who_cannot_be_helped_is_told_why() {
    let trip = Trip::new().await;
    let runner = runner();
    let id = trip.stuck(&runner, "7", None).await;
    let waiting = start(&runner, &trip.plan, trigger("7", None, "")).unwrap().id;
    let error = async |id, action, step| act(&runner, id, action, step).await.unwrap_err().to_string();
    let unknown = error(SagaId(7), Action::Retry, None).await;
    assert_eq!(unknown, "there is no saga of that id, or no longer");
    assert!(
        error(id, Action::Retry, Some("hotels"))
            .await
            .ends_with("its steps are hotel, flight, car")
    );
    assert!(error(id, Action::Resume, None).await.contains("not paused"));
    assert!(error(id, Action::Skip, None).await.contains("say which step"));
    assert!(
        error(id, Action::Pause, Some("hotel"))
            .await
            .contains("takes no step")
    );
    assert!(
        error(waiting, Action::Pause, None)
            .await
            .contains("waits for its lock")
    );
    for why in ["", " ", "two\nlines"] {
        let mut decision = decision(Action::Retry, None);
        decision.why = why.to_owned();
        let error = runner.act(id, &decision).await.unwrap_err();
        assert!(matches!(error, ActError::Malformed(_)), "{error:?}");
    }
    assert_eq!(
        runner.drain(PATIENCE).await,
        0,
        "a drain does not wait for a person"
    );
    assert!(error(id, Action::Retry, None).await.contains("stopping"));
    assert_eq!(summary(&runner, id).state, State::Stuck);
}

#[test]
fn a_halted_saga_takes_no_decision() {
    let services = services();
    let trip = services.block_on(Trip::new());
    let folder = tempfile::tempdir().unwrap();
    let id = life(&folder, async |runner| {
        let id = trip.stuck(runner, "7", None).await;
        let beyond = Event::Undone {
            step: crate::saga::StepId(77),
            at: Timestamp(1),
        };
        let journal = &runner.shared.journal;
        let have = journal.history(id).unwrap().unwrap().len() as u64;
        journal.append(id, have, &[beyond]).unwrap();
        // The task finds that the history is not what it was.
        is_put_down(runner).await;
        let error = act(runner, id, Action::Retry, None).await.unwrap_err();
        assert!(matches!(error, ActError::Halted(_)), "{error:?}");
        id
    });
    life(&folder, async |runner| {
        let error = act(runner, id, Action::Retry, None).await.unwrap_err();
        assert!(error.to_string().contains("step number 77"), "{error}");
        let all = decision(Action::Retry, None);
        assert_eq!(
            runner.act_all(&Filter::default(), &all, false).await,
            Ok(Vec::new())
        );
        let halted = Filter {
            states: vec![State::Halted],
            ..Filter::default()
        };
        let acted = runner.act_all(&halted, &all, false).await.unwrap();
        assert_eq!(acted.len(), 1);
        assert!(matches!(acted[0].result, Err(ActError::Halted(_))));
    });
}

#[tokio::test]
async fn all_that_match_are_acted_on() {
    let trip = Trip::new().await;
    let runner = runner();
    let mut stuck = Vec::new();
    for number in 0..100 {
        stuck.push(trip.stuck(&runner, &number.to_string(), None).await);
    }
    let resolved = stuck.pop().unwrap();
    act(&runner, resolved, Action::Resolve, None).await.unwrap();
    trip.hotel.mend();
    trip.flight.mend();
    let filter = Filter {
        step: Some("flight".to_owned()),
        ..Filter::default()
    };
    let of_flight = decision(Action::Retry, Some("flight"));
    let dry = runner.act_all(&filter, &of_flight, true).await.unwrap();
    let ids = |acted: &[Acted]| acted.iter().map(|one| one.summary.id).collect::<Vec<_>>();
    assert_eq!(ids(&dry), stuck);
    assert!(
        dry.iter()
            .all(|one| one.result.is_ok() && one.summary.stuck.len() == 2)
    );
    assert_eq!(
        runner.act_all(&filter, &of_flight, false).await.unwrap().len(),
        99
    );
    for id in &stuck {
        let of_hotel = async {
            while summary(&runner, *id).stuck.len() > 1 || summary(&runner, *id).state != State::Stuck {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, of_hotel).await.unwrap();
    }
    // Its flight is in order now, and nobody is asked for.
    let again = runner.act_all(&filter, &of_flight, false).await.unwrap();
    assert_eq!(again, []);
    let of_car = decision(Action::Skip, Some("car"));
    let refused = runner.act_all(&Filter::default(), &of_car, false).await.unwrap();
    assert_eq!(refused.len(), 99);
    assert!(
        refused
            .iter()
            .all(|one| matches!(one.result, Err(ActError::NotNow(_))))
    );
    let resume = decision(Action::Resume, None);
    let none_is_paused = runner.act_all(&Filter::default(), &resume, false).await;
    assert_eq!(none_is_paused, Ok(Vec::new()));
    let all = decision(Action::Retry, None);
    let acted = runner.act_all(&Filter::default(), &all, false).await.unwrap();
    assert_eq!(ids(&acted), stuck);
    assert!(acted.iter().all(|one| one.result.is_ok()));
    for id in stuck {
        settles(&runner, id, State::Compensated).await;
    }
    // One counts until the journal has its end, which is after it is told.
    let ended = async {
        while runner.health().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

async fn is_put_down(runner: &Runner) {
    let down = async {
        while runner.in_hand() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let down = tokio::time::timeout(PATIENCE, down).await;
    assert!(down.is_ok(), "{} are in hand", runner.in_hand());
}

/// Where a saga waits for days it is in the journal, not in memory.
#[test]
fn a_stuck_saga_is_put_down_until_somebody_wants_something_of_it() {
    let services = services();
    let trip = services.block_on(Trip::new());
    let folder = tempfile::tempdir().unwrap();
    life(&folder, async |runner| {
        let id = trip.stuck(runner, "7", Some("k")).await;
        is_put_down(runner).await;
        let before = history(runner, id);
        // A caller with its key is answered without it.
        let again = start(runner, &trip.plan, trigger("7", Some("k"), "")).unwrap();
        assert_eq!(reply(again).await.unwrap().status, 502);
        assert_eq!(history(runner, id), before, "taking it up again is no event");
        act(runner, id, Action::Pause, None).await.unwrap();
        is_put_down(runner).await;
        trip.hotel.mend();
        trip.flight.mend();
        act(runner, id, Action::Resume, None).await.unwrap();
        act(runner, id, Action::Retry, None).await.unwrap();
        settles(runner, id, State::Compensated).await;
        assert_eq!(runner.health().in_flight, 0, "it gives its place back");
    });
}

/// Nothing is due for long: it is read again when it is.
#[tokio::test]
async fn a_saga_far_from_its_next_attempt_is_put_down() {
    let (hotel, car) = (
        Stubborn::start().await,
        Service::start(|_| Act::Answer(409, "{}")).await,
    );
    let slow = step("hotel", &hotel.service.url("/7"), "").replace("1ms..5ms", "200ms..200ms");
    let plan = saga("", &[slow, step("car", &car.url("/7"), "after = [\"hotel\"]")]);
    let settings = Settings {
        far: Duration::from_millis(1),
        ..Settings::default()
    };
    let runner = runner_with(Memory::new(Default::default()), settings);
    let handle = start(&runner, &plan, trigger("7", None, "")).unwrap();
    let id = handle.id;
    // Who waits for an answer has the saga stay.
    drop(handle);
    hotel.service.asked(2).await;
    is_put_down(&runner).await;
    assert_eq!(summary(&runner, id).state, State::Compensating);
    hotel.mend();
    settles(&runner, id, State::Compensated).await;
    let lines = history(&runner, id).join("\n");
    assert!(!lines.contains("found running"), "{lines}");
}
