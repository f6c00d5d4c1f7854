//! Sagas inside sagas: whoever begins them, their parent undoes them, all the way down.

use super::*;
use crate::journal::{Durable, durable};
use crate::saga::{Event, RequestHead, match_head};
use tokio::sync::watch;

type Defined = (Arc<Plan>, PlanHash);

/// The triggers of these sagas.
struct Known(Vec<Defined>);

impl Triggers for Known {
    fn find(&self, request: &Request) -> Option<Found> {
        let fields = request.headers.0.iter().map(|(n, v)| (n.as_str(), &v[..]));
        let head = RequestHead::new(&request.method, &request.url, fields)?;
        let (plan, hash) = self.0.iter().find(|(plan, _)| match_head(&plan.trigger, &head))?;
        let trigger = saga::trigger(&plan.trigger, &head, request.body.clone(), None);
        Some(Found {
            plan: Arc::clone(plan),
            hash: *hash,
            too_deep: trigger.depth > 3,
            trigger,
        })
    }
}

/// A saga that `PUT http://NAME/ID` starts.
fn named(name: &str, top: &str, steps: &[String]) -> Defined {
    plan(&format!(
        "name = \"{name}\"\n{top}\n[trigger]\nmethod = \"PUT\"\nurl = \"http://{name}/{{id}}\"\n{}",
        steps.concat()
    ))
}

/// A step that starts a saga of that name, and says nothing of how it is undone.
fn starts(name: &str, more: &str) -> String {
    format!(
        "[[step]]\nname = \"{name}\"\nrequest = {{ method = \"PUT\", url = \"http://{name}/7\" }}\n{more}\n"
    )
}

/// A step that comes last, and is refused or hangs or whatever the service does.
fn bill(service: &Service, after: &str) -> String {
    step("bill", &service.url("/bill"), &format!("after = [\"{after}\"]\n"))
}

async fn refusing() -> Service {
    Service::start(|_| Act::Answer(402, "{}")).await
}

/// A runner that knows the triggers of these sagas; what they are found by must outlive it.
fn knowing(journal: impl Journal, settings: Settings, sagas: Vec<Defined>) -> (Runner, Arc<dyn Triggers>) {
    let runner = runner_with(journal, settings);
    let known: Arc<dyn Triggers> = Arc::new(Known(sagas));
    runner.know(Arc::downgrade(&known));
    (runner, known)
}

fn in_memory(sagas: Vec<Defined>) -> (Runner, Arc<dyn Triggers>) {
    knowing(Memory::new(Default::default()), Settings::default(), sagas)
}

/// As a service in the middle of a step sends it: with the headers that it got.
fn passed_on(seen: &Seen) -> Trigger {
    let mut trigger = trigger("7", None, "");
    trigger.request.url = "http://car/7".to_owned();
    for name in ["X-Qbox-TransactionID", "X-Qbox-Step", "X-Qbox-Depth"] {
        let value = seen.header(name).unwrap().to_owned();
        trigger.request.headers.push(name, value);
    }
    trigger
}

/// The one saga of that name.
fn only(runner: &Runner, name: &str) -> Detail {
    let filter = Filter {
        name: Some(name.to_owned()),
        ..Filter::default()
    };
    let found = runner.sagas(&filter, &journal::Page::youngest(10)).unwrap();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    runner.saga(found[0].id).unwrap().unwrap()
}

async fn settled(runner: &Runner, id: SagaId, state: State) -> Detail {
    let wait = async {
        loop {
            let detail = runner.saga(id).unwrap().unwrap();
            if detail.summary.state == state {
                return detail;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, wait).await;
    found.unwrap_or_else(|_| panic!("not {state:?}: {:#?}", runner.saga(id)))
}

#[tokio::test]
async fn what_a_service_in_the_middle_began_is_undone_with_its_step() {
    let (open, gate) = watch::channel(false);
    let middle = Service::start(move |seen| match seen.method.as_str() {
        "PUT" => Act::Wait(gate.clone()),
        _ => Act::Answer(200, "{}"),
    })
    .await;
    let (car, refused) = (Service::willing().await, refusing().await);
    let child = named("car", "", &[step("car", &car.url("/7"), "")]);
    // The middle has no compensation of its own: what it began is undone all the same.
    let trip = format!(
        "[[step]]\nname = \"trip\"\nrequest = {{ method = \"PUT\", url = \"{}\" }}\n",
        middle.url("/7")
    );
    let parent = saga("", &[trip, bill(&refused, "trip")]);
    let (runner, _known) = in_memory(vec![]);
    let caller = start(&runner, &parent, trigger("7", None, "")).unwrap();
    let id = caller.id;
    middle.asked(1).await;
    let seen = &middle.seen()[0];
    let nested = start(&runner, &child, passed_on(seen)).unwrap();
    let nested_id = nested.id;
    assert_eq!(reply(nested).await.unwrap().status, 200);
    assert_eq!(car.methods(), ["PUT"]);
    open.send_replace(true);
    assert_eq!(reply(caller).await.unwrap().status, 502);
    let parent = settled(&runner, id, State::Compensated).await;
    assert_eq!(car.methods(), ["PUT", "DELETE"]);
    assert_eq!(middle.methods(), ["PUT"]);
    let begun = &parent.children[0];
    assert_eq!(
        (begun.id, begun.step.as_str(), begun.name.as_str(), begun.state),
        (nested_id, "trip", "car", State::Compensated)
    );
    let nested = runner.saga(nested_id).unwrap().unwrap().summary;
    let above = nested.parent.unwrap();
    assert_eq!(
        (above.saga, above.step.as_str(), nested.revoked),
        (id, "trip", true)
    );
    assert_eq!(nested.replied.unwrap().status, 200, "what was answered stays");
    // A request that was under way all that time comes too late.
    let late = start(&runner, &child_again(&car), passed_on(seen)).unwrap();
    assert!(matches!(reply(late).await, Err(Refused::Orphan(_))));
    assert_eq!(car.methods(), ["PUT", "DELETE"]);
}

fn child_again(car: &Service) -> Defined {
    named("car", "", &[step("car", &car.url("/7"), "")])
}

#[tokio::test]
async fn a_step_that_is_a_trigger_is_run_in_process_and_undone_all_the_way_down() {
    let (wheel, refused) = (Service::willing().await, refusing().await);
    let wheels = named("wheels", "", &[step("wheel", &wheel.url("/7"), "")]);
    let car = named("car", "", &[starts("wheels", "")]);
    let parent = saga("", &[starts("car", ""), bill(&refused, "car")]);
    let (runner, _known) = in_memory(vec![wheels, car, parent.clone()]);
    let caller = start(&runner, &parent, trigger("7", None, "")).unwrap();
    let id = caller.id;
    assert_eq!(reply(caller).await.unwrap().status, 502);
    settled(&runner, id, State::Compensated).await;
    assert_eq!(wheel.methods(), ["PUT", "DELETE"]);
    let (car, wheels) = (only(&runner, "car"), only(&runner, "wheels"));
    assert_eq!(car.summary.parent.as_ref().unwrap().saga, id);
    assert_eq!(wheels.summary.parent.as_ref().unwrap().saga, car.summary.id);
    let key = wheel.seen()[0].header("Idempotency-Key").unwrap().to_owned();
    assert_eq!(key, format!("\"{}/wheel\"", wheels.summary.id));
    assert_eq!(wheel.seen()[0].header("X-Qbox-Depth"), Some("3"));
    let revoked = |detail: &Detail| {
        detail
            .events
            .iter()
            .any(|event| matches!(event, Event::Revoked { .. }))
    };
    assert!(revoked(&car) && revoked(&wheels));
}

#[tokio::test]
async fn a_nested_saga_that_fails_is_its_steps_failure() {
    let (hotel, refused) = (Service::willing().await, refusing().await);
    let car = named("car", "", &[step("wheel", &refused.url("/7"), "")]);
    let parent = saga(
        "",
        &[
            step("hotel", &hotel.url("/7"), ""),
            starts("car", "after = [\"hotel\"]"),
        ],
    );
    let (runner, _known) = in_memory(vec![car]);
    let (reply, detail) = run(&runner, &parent).await;
    assert_eq!(reply.status, 502);
    assert_eq!(detail.summary.state, State::Compensated);
    assert_eq!(detail.summary.failed_step.as_deref(), Some("car"));
    assert_eq!(hotel.methods(), ["PUT", "DELETE"]);
    // It was undone by itself: nothing is done to it twice.
    assert_eq!(only(&runner, "car").summary.state, State::Compensated);
    assert!(!refused.methods().contains(&"DELETE".to_owned()));
}

#[tokio::test]
async fn another_attempt_joins_the_saga_of_the_first() {
    let (open, gate) = watch::channel(false);
    let wheel = Service::start(move |_| Act::Wait(gate.clone())).await;
    let car = named("car", "", &[step("wheel", &wheel.url("/7"), "")]);
    let patient = "timeout = \"50ms\"\nretry = { attempts = 100, backoff = \"1ms..5ms\" }";
    let parent = saga("", &[starts("car", patient)]);
    let (runner, _known) = in_memory(vec![car]);
    let caller = start(&runner, &parent, trigger("7", None, "")).unwrap();
    wheel.asked(1).await;
    let twice = async {
        while !lines(&only(&runner, "book-trip"))
            .iter()
            .any(|line| line.contains("attempt 2"))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, twice).await.unwrap();
    open.send_replace(true);
    assert_eq!(reply(caller).await.unwrap().status, 200);
    assert_eq!(wheel.methods(), ["PUT"]);
    assert_eq!(only(&runner, "car").summary.state, State::Committed);
}

#[tokio::test]
async fn a_nested_saga_that_still_runs_when_its_step_is_undone_turns_back() {
    let (open, gate) = watch::channel(false);
    let wheel = Service::start(move |seen| match seen.method.as_str() {
        "PUT" => Act::Wait(gate.clone()),
        _ => Act::Answer(200, "{}"),
    })
    .await;
    let car = named("car", "", &[step("wheel", &wheel.url("/7"), "")]);
    let parent = saga("", &[starts("car", "timeout = \"50ms\"")]);
    let (runner, _known) = in_memory(vec![car]);
    let caller = start(&runner, &parent, trigger("7", None, "")).unwrap();
    let id = caller.id;
    wheel.asked(1).await;
    // Its step has been given up, and waits for it.
    let nested = only(&runner, "car").summary.id;
    let turned = async {
        while !runner.saga(nested).unwrap().unwrap().summary.revoked {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, turned).await.unwrap();
    open.send_replace(true);
    settled(&runner, id, State::Compensated).await;
    settled(&runner, nested, State::Compensated).await;
    assert_eq!(wheel.methods(), ["PUT", "DELETE"]);
}

#[tokio::test]
async fn one_that_was_retired_long_ago_is_found_in_the_journal() {
    let (open, gate) = watch::channel(false);
    let wheel = Service::willing().await;
    let last = Service::start(move |_| Act::Wait(gate.clone())).await;
    let car = named("car", "", &[step("wheel", &wheel.url("/7"), "")]);
    let pay = step(
        "bill",
        &last.url("/bill"),
        "after = [\"car\"]\nsuccess = [{ status = 299 }]\nrefused = [{ status = 200 }]",
    );
    let parent = saga("", &[starts("car", ""), pay]);
    let folder = tempfile::tempdir().unwrap();
    let nothing = Retain {
        sagas: 0,
        ..Retain::default()
    };
    let settings = Settings {
        retain: nothing,
        ..Settings::default()
    };
    let disk = || Durable::open(folder.path(), durable::Settings::default()).unwrap();
    let (runner, known) = knowing(disk(), settings.clone(), vec![car]);
    let caller = start(&runner, &parent, trigger("7", Some("k"), "")).unwrap();
    let id = caller.id;
    last.asked(1).await;
    let nested = runner.saga(id).unwrap().unwrap().children[0].clone();
    assert_eq!(nested.state, State::Committed);
    assert!(runner.shared.registry.get(nested.id).is_none(), "it is at hand");
    open.send_replace(true);
    assert_eq!(reply(caller).await.unwrap().status, 502);
    assert_eq!(runner.drain(PATIENCE).await, 0);
    assert_eq!(wheel.methods(), ["PUT", "DELETE"]);
    let before = runner.saga(nested.id).unwrap().unwrap();
    assert_eq!(
        (before.summary.state, before.summary.revoked),
        (State::Compensated, true)
    );
    drop((runner, known));
    // Another process reads the same, and does nothing more.
    let runner = runner_with(disk(), settings);
    assert_eq!(runner.recover(), Recovered::default());
    let after = runner.saga(nested.id).unwrap().unwrap();
    assert_eq!((&after.summary, &after.events), (&before.summary, &before.events));
    assert_eq!(
        runner.saga(id).unwrap().unwrap().children[0].state,
        State::Compensated
    );
    assert_eq!(wheel.methods(), ["PUT", "DELETE"]);
}

#[tokio::test]
async fn one_behind_its_pivot_leaves_its_step_stuck() {
    let (wheel, refused) = (Service::willing().await, refusing().await);
    let pivot = format!(
        "[[step]]\nname = \"wheel\"\nkind = \"pivot\"\nrequest = {{ method = \"PUT\", url = \"{}\" }}\n",
        wheel.url("/7")
    );
    let car = named("car", "", &[pivot]);
    let parent = saga("", &[starts("car", ""), bill(&refused, "car")]);
    let (runner, _known) = in_memory(vec![car]);
    let caller = start(&runner, &parent, trigger("7", None, "")).unwrap();
    let detail = settled(&runner, caller.id, State::Stuck).await;
    let nested = only(&runner, "car").summary;
    let stuck = &detail.summary.stuck[0];
    assert_eq!((stuck.step.as_str(), nested.state), ("car", State::Committed));
    assert!(
        stuck.cause.contains(&nested.id.to_string()) && stuck.cause.contains("pivot"),
        "{}",
        stuck.cause
    );
    assert_eq!(wheel.methods(), ["PUT"]);
}

#[tokio::test]
async fn one_that_is_stuck_makes_its_step_stuck_and_both_can_be_helped() {
    let (mend, mended) = watch::channel(false);
    let wheel = Service::start(move |seen| match seen.method.as_str() {
        "DELETE" if !*mended.borrow() => Act::Answer(500, "{}"),
        _ => Act::Answer(200, "{}"),
    })
    .await;
    let refused = refusing().await;
    let url = wheel.url("/7");
    let once = format!(
        "[[step]]\nname = \"wheel\"\nrequest = {{ method = \"PUT\", url = \"{url}\" }}\n\
         [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"{url}\" }}\nretry = {{ attempts = 1 }}\n"
    );
    let car = named("car", "", &[once]);
    let parent = saga("", &[starts("car", ""), bill(&refused, "car")]);
    let (runner, _known) = in_memory(vec![car]);
    let caller = start(&runner, &parent, trigger("7", None, "")).unwrap();
    let detail = settled(&runner, caller.id, State::Stuck).await;
    let nested = only(&runner, "car").summary;
    assert_eq!(nested.state, State::Stuck);
    let cause = &detail.summary.stuck[0].cause;
    assert!(
        cause.contains(&nested.id.to_string()) && cause.contains("wheel"),
        "{cause}"
    );
    mend.send_replace(true);
    let retry = Decision {
        action: Action::Retry,
        step: None,
        who: "ada".to_owned(),
        why: "mended".to_owned(),
    };
    runner.act(nested.id, &retry).await.unwrap();
    settled(&runner, nested.id, State::Compensated).await;
    runner.act(detail.summary.id, &retry).await.unwrap();
    settled(&runner, detail.summary.id, State::Compensated).await;
    assert_eq!(wheel.methods(), ["PUT", "DELETE", "DELETE"]);
}

#[tokio::test]
async fn too_many_above_one_another_is_508() {
    let a = named("a", "", &[starts("b", "")]);
    let b = named("b", "", &[starts("a", "")]);
    let (runner, _known) = in_memory(vec![a.clone(), b]);
    let mut first = trigger("7", None, "");
    first.depth = 0;
    let caller = start(&runner, &a, first).unwrap();
    let id = caller.id;
    assert_eq!(reply(caller).await.unwrap().status, 502);
    settled(&runner, id, State::Compensated).await;
    let all = runner
        .sagas(&Filter::default(), &journal::Page::youngest(10))
        .unwrap();
    assert_eq!(all.len(), 4, "the limit of this test is 3 above");
    let told = all
        .iter()
        .flat_map(|saga| lines(&runner.saga(saga.id).unwrap().unwrap()));
    assert_eq!(
        told.filter(|line| line.contains("transaction answered 508"))
            .count(),
        1
    );
}
