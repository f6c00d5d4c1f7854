//! The runner with real participants on loopback ports.

mod drain;
mod durability;
mod list;
mod nested;
mod operator;
mod recovery;
mod secrets;
pub(crate) mod service;

use super::*;
use crate::config;
use crate::journal::{self, Memory};
use crate::saga::{Headers, Request};
use crate::upstream;
use service::{Act, Seen, Service};

const PATIENCE: Duration = Duration::from_secs(10);
/// How long an attempt is listened to beyond its time: long for those that wait for it, and short for those that don't.
const LINGER: Duration = Duration::from_millis(500);

/// A plan and its hash, from a saga file's text.
pub(crate) fn plan(text: &str) -> (Arc<Plan>, PlanHash) {
    let plan = match config::load_saga(text, "test.toml") {
        Ok((plan, _)) => plan,
        Err(findings) => panic!("{}", findings.iter().map(|f| f.render(false)).collect::<String>()),
    };
    let hash = journal::plan_hash(&plan).unwrap();
    (Arc::new(plan), hash)
}

/// `[[step]]` with a PUT and, as its compensation, a DELETE of the same URL.
fn step(name: &str, url: &str, more: &str) -> String {
    format!(
        "[[step]]\nname = \"{name}\"\nrequest = {{ method = \"PUT\", url = \"{url}\" }}\n{more}\n\
         [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"{url}\" }}\n\
         retry = {{ backoff = \"1ms..5ms\" }}\n"
    )
}

fn saga(top: &str, steps: &[String]) -> (Arc<Plan>, PlanHash) {
    plan(&format!(
        "name = \"book-trip\"\n{top}\n[trigger]\nmethod = \"POST\"\nurl = \"http://trips/trips/{{trip}}\"\n{}",
        steps.concat()
    ))
}

pub(crate) fn trigger(trip: &str, key: Option<&str>, body: &'static str) -> Trigger {
    let mut headers = Headers::default();
    if let Some(key) = key {
        headers.push("Idempotency-Key", key.to_owned());
    }
    Trigger {
        request: Request {
            method: "POST".to_owned(),
            url: format!("http://trips/trips/{trip}"),
            headers,
            body: body.into(),
        },
        path: vec![("trip".to_owned(), trip.to_owned())],
        destination: None,
        http2: false,
        depth: 0,
    }
}

pub(crate) fn runner() -> Runner {
    runner_with(Memory::new(Default::default()), Settings::default())
}

fn runner_with(journal: impl Journal, settings: Settings) -> Runner {
    let upstream = upstream::Settings {
        linger: LINGER,
        ..Default::default()
    };
    Runner::new(Arc::new(journal), Upstream::new(upstream), settings)
}

pub(crate) fn start(
    runner: &Runner,
    plan: &(Arc<Plan>, PlanHash),
    trigger: Trigger,
) -> Result<SagaHandle, Refused> {
    runner.start_saga(&plan.0, plan.1, trigger, Via::Node)
}

async fn reply(handle: SagaHandle) -> Result<Arc<Reply>, Refused> {
    tokio::time::timeout(PATIENCE, handle.reply())
        .await
        .expect("no reply came")
}

/// Runs a saga to its reply, and the runner to its rest.
async fn run(runner: &Runner, plan: &(Arc<Plan>, PlanHash)) -> (Arc<Reply>, Detail) {
    let handle = start(runner, plan, trigger("7", None, "")).unwrap();
    let id = handle.id;
    let reply = reply(handle).await.unwrap();
    assert_eq!(runner.drain(PATIENCE).await, 0);
    (reply, runner.saga(id).unwrap().unwrap())
}

fn lines(detail: &Detail) -> Vec<String> {
    let line = |event| {
        Line {
            event,
            plan: &detail.plan,
            sent: None,
        }
        .to_string()
    };
    detail.events.iter().map(line).collect()
}

#[tokio::test]
async fn all_of_it() {
    let (hotel, car) = (Service::willing().await, Service::willing().await);
    let plan = saga(
        "",
        &[
            step("hotel", &hotel.url("/7"), ""),
            step("car", &car.url("/7"), ""),
        ],
    );
    let (reply, detail) = run(&runner(), &plan).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        (hotel.methods(), car.methods()),
        (vec!["PUT".to_owned()], vec!["PUT".to_owned()])
    );
    let id = detail.summary.id.to_string();
    let seen = &hotel.seen()[0];
    assert_eq!(seen.header("X-Qbox-TransactionID"), Some(id.as_str()));
    assert_eq!(seen.header("X-Qbox-Message-Type"), Some("TRANSACTION"));
    assert_eq!(
        seen.header("Idempotency-Key"),
        Some(format!("\"{id}/hotel\"").as_str())
    );
    assert_eq!(detail.summary.state, State::Committed);
    assert_eq!(detail.summary.replied.unwrap().status, 200);
    assert!(detail.summary.ended.is_some());
    assert_eq!(detail.sent.len(), 2);
    let lines = lines(&detail);
    assert_eq!(
        lines.first().unwrap(),
        "saga book-trip began: POST http://trips/trips/7"
    );
    assert!(
        lines.contains(&"hotel: transaction answered 200: applied".to_owned()),
        "{lines:#?}"
    );
    assert_eq!(lines.last().unwrap(), "saga committed");
}

#[tokio::test]
async fn or_none_of_it() {
    let hotel = Service::willing().await;
    let car = Service::start(|_| Act::Answer(409, "{}")).await;
    let plan = saga(
        "",
        &[
            step("hotel", &hotel.url("/7"), ""),
            step("car", &car.url("/7"), "after = [\"hotel\"]"),
        ],
    );
    let (reply, detail) = run(&runner(), &plan).await;
    assert_eq!(reply.status, 502);
    assert_eq!(hotel.methods(), ["PUT", "DELETE"]);
    let undo = &hotel.seen()[1];
    assert_eq!(undo.header("X-Qbox-Message-Type"), Some("COMPENSATION"));
    let key = format!("\"{}/hotel/undo/0\"", detail.summary.id);
    assert_eq!(undo.header("Idempotency-Key"), Some(key.as_str()));
    assert_eq!(car.methods(), ["PUT"], "a refusal has nothing to undo");
    assert_eq!(detail.summary.state, State::Compensated);
    assert_eq!(detail.summary.failed_step.as_deref(), Some("car"));
}

#[tokio::test]
async fn what_may_have_happened_is_undone() {
    // One that answers after its timeout, one that resets the connection after it has read the request.
    for act in [Act::Hang, Act::Reset] {
        let hotel = Service::willing().await;
        let script = act.clone();
        let answer = move |seen: &Seen| match seen.method.as_str() {
            "PUT" => script.clone(),
            _ => Act::Answer(404, "{}"),
        };
        let car = Service::start(answer).await;
        let plan = saga(
            "",
            &[
                step("hotel", &hotel.url("/7"), ""),
                step("car", &car.url("/7"), "timeout = \"100ms\""),
            ],
        );
        let (reply, detail) = run(&runner(), &plan).await;
        assert_eq!(reply.status, 502);
        assert_eq!(hotel.methods(), ["PUT", "DELETE"], "{act:?}");
        assert_eq!(car.methods(), ["PUT", "DELETE"], "{act:?}");
        assert_eq!(detail.summary.state, State::Compensated);
    }
}

#[tokio::test]
async fn what_never_left_is_not_undone() {
    let hotel = Service::willing().await;
    // Nobody listens there: the port was this test's own a moment ago.
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let plan = saga(
        "",
        &[
            step("hotel", &hotel.url("/7"), ""),
            step("car", &format!("http://{closed}/7"), ""),
        ],
    );
    let (reply, detail) = run(&runner(), &plan).await;
    assert_eq!(reply.status, 502);
    assert_eq!(hotel.methods(), ["PUT", "DELETE"]);
    let lines = lines(&detail);
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("car: transaction not sent (connecting to ")),
        "{lines:#?}"
    );
    assert!(
        !lines.iter().any(|l| l.starts_with("car: compensation")),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn a_forwarded_trigger_goes_to_its_original_destination() {
    let trips = Service::start(|_| Act::Answer(201, "{\"trip\":7}")).await;
    let plan = plan(
        "name = \"x\"\n[trigger]\nurl = \"http://no-such-host.invalid/trips/{trip}\"\n\
         [[step]]\nname = \"trips\"\nrequest = \"forward\"\n[reply.success]\nfrom = \"trips\"\n",
    );
    let runner = runner();
    let mut trigger = trigger("7", None, "the body");
    trigger.request.url = "http://no-such-host.invalid/trips/7".to_owned();
    trigger.destination = Some(trips.address);
    let reply = reply(start(&runner, &plan, trigger).unwrap()).await.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (201, &b"{\"trip\":7}"[..]));
    let seen = &trips.seen()[0];
    assert_eq!(
        (seen.header("Host"), &seen.body[..]),
        (Some("no-such-host.invalid"), &b"the body"[..])
    );
}

#[tokio::test]
async fn a_key_is_run_once() {
    let (gate, open) = watch::channel(false);
    let hotel = Service::start(move |_| Act::Wait(open.clone())).await;
    let plan = saga("", &[step("hotel", &hotel.url("/7"), "")]);
    let runner = runner();
    let first = start(&runner, &plan, trigger("7", Some("k"), "a")).unwrap();
    let second = start(&runner, &plan, trigger("7", Some("k"), "a")).unwrap();
    assert!(!first.joined && second.joined);
    assert_eq!(first.id, second.id);
    assert_eq!(
        start(&runner, &plan, trigger("7", Some("k"), "b")).unwrap_err(),
        Refused::KeyReused
    );
    let other = start(&runner, &plan, trigger("7", Some("another"), "a")).unwrap();
    assert_ne!(other.id, first.id);
    hotel.asked(2).await;
    gate.send(true).unwrap();
    let (id, one, two) = (
        first.id,
        reply(first).await.unwrap(),
        reply(second).await.unwrap(),
    );
    assert!(Arc::ptr_eq(&one, &two));
    reply(other).await.unwrap();
    let replay = start(&runner, &plan, trigger("7", Some("k"), "a")).unwrap();
    assert!(replay.joined && replay.id == id);
    assert!(Arc::ptr_eq(&one, &reply(replay).await.unwrap()));
    assert_eq!(hotel.methods(), ["PUT", "PUT"], "once for each key");
}

#[tokio::test]
async fn a_callers_key_can_come_from_the_message() {
    let hotel = Service::willing().await;
    let text = format!(
        "name = \"x\"\n[trigger]\nurl = \"http://trips/trips/{{trip}}\"\ndedupe = \"${{trigger.json.order}}\"\n{}",
        step("hotel", &hotel.url("/7"), "")
    );
    let (plan, runner) = (plan(&text), runner());
    let one = start(&runner, &plan, trigger("7", None, "{\"order\":1}")).unwrap();
    let same = start(&runner, &plan, trigger("7", None, "{\"order\":1}")).unwrap();
    let two = start(&runner, &plan, trigger("7", None, "{\"order\":2}")).unwrap();
    let none = start(&runner, &plan, trigger("7", None, "{}")).unwrap();
    let none_again = start(&runner, &plan, trigger("7", None, "{}")).unwrap();
    assert_eq!(one.id, same.id);
    assert_ne!(one.id, two.id);
    assert_ne!(none.id, none_again.id, "without a value there is no key");
}

#[tokio::test]
async fn a_lock_is_passed_on_in_order_of_arrival() {
    let (gate, open) = watch::channel(false);
    let hotel = Service::start(move |_| Act::Wait(open.clone())).await;
    let plan = saga(
        "lock = \"${trigger.path.trip}\"",
        &[step(
            "hotel",
            &hotel.url("/${trigger.path.trip}/${trigger.body}"),
            "",
        )],
    );
    let runner = runner();
    let handles: Vec<_> = ["a", "b", "c"]
        .map(|body| start(&runner, &plan, trigger("7", None, body)).unwrap())
        .into();
    let other = start(&runner, &plan, trigger("8", None, "a")).unwrap();
    hotel.asked(2).await;
    let states: Vec<State> = handles
        .iter()
        .map(|h| runner.saga(h.id).unwrap().unwrap().summary.state)
        .collect();
    assert_eq!(states, [State::Running, State::Waiting, State::Waiting]);
    gate.send(true).unwrap();
    for handle in handles {
        reply(handle).await.unwrap();
    }
    reply(other).await.unwrap();
    let mut asked: Vec<String> = hotel.seen().into_iter().map(|s| s.target).collect();
    asked.retain(|target| target.starts_with("/7/"));
    assert_eq!(asked, ["/7/a", "/7/b", "/7/c"]);
}

#[tokio::test]
async fn without_a_value_there_is_no_lock() {
    let (gate, open) = watch::channel(false);
    let hotel = Service::start(move |_| Act::Wait(open.clone())).await;
    let plan = saga(
        "lock = \"trip ${trigger.json.trip}\"",
        &[step("hotel", &hotel.url("/7"), "")],
    );
    let runner = runner();
    let handles = ["{}", "no JSON"].map(|body| start(&runner, &plan, trigger("7", None, body)).unwrap());
    hotel.asked(2).await;
    gate.send(true).unwrap();
    for handle in handles {
        assert_eq!(reply(handle).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_pivot_that_wins_over_a_failure_leaves_no_cause() {
    let (gate, open) = watch::channel(false);
    let bank = Service::start(move |_| Act::Wait(open.clone())).await;
    let url = bank.url("/7");
    let pay = format!(
        "[[step]]\nname = \"pay\"\nkind = \"pivot\"\nrequest = {{ method = \"PUT\", url = \"{url}\" }}\n"
    );
    let plan = saga("timeout = \"50ms\"", &[pay]);
    let runner = runner();
    let handle = start(&runner, &plan, trigger("7", None, "")).unwrap();
    let id = handle.id;
    let summary = || runner.saga(id).unwrap().unwrap().summary;
    let turned = async {
        while summary().cause.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, turned)
        .await
        .expect("its time is over");
    gate.send(true).unwrap();
    assert_eq!(reply(handle).await.unwrap().status, 200);
    assert_eq!(runner.drain(PATIENCE).await, 0);
    let summary = summary();
    assert_eq!(
        (summary.state, summary.failed_step, summary.cause),
        (State::Committed, None, None)
    );
}

#[tokio::test]
async fn who_waits_longer_for_a_lock_than_a_saga_may_take_is_refused() {
    let hotel = Service::start(|_| Act::Hang).await;
    let slow = saga("lock = \"x\"", &[step("hotel", &hotel.url("/7"), "")]);
    let hasty = saga(
        "lock = \"x\"\ntimeout = \"50ms\"",
        &[step("hotel", &hotel.url("/8"), "timeout = \"50ms\"")],
    );
    let runner = runner();
    let _first = start(&runner, &slow, trigger("7", None, "")).unwrap();
    let second = start(&runner, &hasty, trigger("7", None, "")).unwrap();
    let id = second.id;
    assert_eq!(reply(second).await.unwrap_err(), Refused::Locked);
    assert!(runner.saga(id).unwrap().is_none(), "it never was");
    assert_eq!(hotel.seen().iter().filter(|s| s.target == "/8").count(), 0);
}

#[tokio::test]
async fn more_than_may_be_in_flight_are_refused() {
    let (gate, open) = watch::channel(false);
    let hotel = Service::start(move |_| Act::Wait(open.clone())).await;
    let plan = saga("", &[step("hotel", &hotel.url("/7"), "")]);
    let runner = runner_with(
        Memory::new(Default::default()),
        Settings {
            in_flight: 1,
            ..Settings::default()
        },
    );
    let first = start(&runner, &plan, trigger("7", Some("k"), "")).unwrap();
    assert_eq!(
        start(&runner, &plan, trigger("7", None, "")).unwrap_err(),
        Refused::Busy
    );
    let joined = start(&runner, &plan, trigger("7", Some("k"), "")).unwrap();
    assert!(joined.joined, "who joins takes no room");
    assert_eq!(runner.health().in_flight, 1);
    gate.send(true).unwrap();
    reply(first).await.unwrap();
    // The place is free once the saga's task has gone, a moment after the reply.
    let again = async {
        while start(&runner, &plan, trigger("7", Some("another"), "")).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_goes_away_changes_nothing() {
    let (gate, open) = watch::channel(false);
    let hotel = Service::start(move |_| Act::Wait(open.clone())).await;
    let plan = saga("", &[step("hotel", &hotel.url("/7"), "")]);
    let runner = runner();
    let handle = start(&runner, &plan, trigger("7", None, "")).unwrap();
    let id = handle.id;
    hotel.asked(1).await;
    drop(handle);
    gate.send(true).unwrap();
    assert_eq!(runner.drain(PATIENCE).await, 0);
    let detail = runner.saga(id).unwrap().unwrap();
    assert_eq!(detail.summary.state, State::Committed);
    assert_eq!(
        start(&runner, &plan, trigger("7", None, "")).unwrap_err(),
        Refused::Draining
    );
}

#[tokio::test]
async fn a_stuck_saga_is_listed_and_keeps_its_lock() {
    let hotel = Service::start(|seen| match seen.method.as_str() {
        "PUT" => Act::Answer(200, "{}"),
        _ => Act::Answer(500, "{}"),
    })
    .await;
    let car = Service::start(|_| Act::Answer(409, "{}")).await;
    let undo_once = step("hotel", &hotel.url("/7"), "").replace("backoff", "attempts = 1, backoff");
    let plan = saga(
        "lock = \"x\"\ntimeout = \"1s\"",
        &[undo_once, step("car", &car.url("/7"), "")],
    );
    let runner = runner();
    let handle = start(&runner, &plan, trigger("7", None, "")).unwrap();
    let id = handle.id;
    // Whatever the caller is told, it is told something.
    drop(reply(handle).await);
    let stuck = async {
        while runner.health().stuck == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, stuck).await.unwrap();
    let summary = runner.saga(id).unwrap().unwrap().summary;
    assert_eq!(summary.state, State::Stuck);
    assert!(summary.cause.unwrap().contains("car"), "why it failed");
    assert_eq!(summary.stuck[0].step, "hotel", "and what is stuck");
    assert_eq!(runner.health().in_flight, 1);
    let next = start(&runner, &plan, trigger("7", None, "")).unwrap();
    assert_eq!(reply(next).await.unwrap_err(), Refused::Locked);
    assert_eq!(
        runner.drain(PATIENCE).await,
        0,
        "a drain does not wait for a person"
    );
}
