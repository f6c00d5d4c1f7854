//! What those who look on are shown, and what a journal keeps.

use super::service::{Act, Service};
use super::*;
use crate::keys::Keys;
use crate::saga::StepId;

#[tokio::test]
async fn who_looks_on_sees_no_secret() {
    let body = "{\"password\":\"hunter2\"}";
    let hotel = Service::start(move |_| Act::Answer(409, body)).await;
    let url = hotel.url("/7?k=${trigger.headers.authorization}");
    let plan = saga("", &[step("hotel", &url, "")]);
    let runner = runner();
    let mut trigger = trigger("7", None, body);
    trigger.request.url.push_str("?password=hunter2");
    trigger.request.headers.push("Authorization", "hunter2");
    let handle = start(&runner, &plan, trigger).unwrap();
    let id = handle.id;
    let reply = reply(handle).await.unwrap();
    assert_eq!(hotel.seen()[0].target, "/7?k=hunter2");
    let detail = runner.saga(id).unwrap().unwrap();
    let (told, _) = runner.follow();
    assert!(!told.is_empty());
    let shown = format!("{detail:?} {told:?} {}", String::from_utf8_lossy(&reply.body));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.contains("/7?k=${trigger.headers.authorization}") && shown.contains("[redacted]"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_request_is_shown_whole_but_for_what_secrets_it_was_filled_in_with() {
    let hotel = Service::start(|_| Act::Answer(201, "{\"room\":\"12\",\"api_key\":\"hunter2\"}")).await;
    let url = hotel.url("/7");
    let plan = plan(&format!(
        "name = \"x\"\n[trigger]\nurl = \"http://trips/trips/{{trip}}\"\n\
         [[step]]\nname = \"open\"\nrequest = {{ method = \"PUT\", url = \"{url}\", \
           headers = {{ x-room = \"${{trigger.path.trip}}\", x-other = \"${{trigger.json.password}}\" }}, \
           json = {{ guest = \"Ada\", password = \"${{trigger.json.password}}\" }} }}\n\
         [[step]]\nname = \"other\"\nrequest = {{ method = \"PUT\", url = \"{url}\", body = \"<${{trigger.json.password}}>\" }}\n"
    ));
    let runner = runner();
    let handle = start(&runner, &plan, trigger("7", None, "{\"password\":\"hunter2\"}")).unwrap();
    let id = handle.id;
    reply(handle).await.unwrap();
    let detail = runner.saga(id).unwrap().unwrap();
    let sent = |step| detail.sent.iter().find(|sent| sent.step == StepId(step)).unwrap();
    let [open, other] = [sent(0), sent(1)];
    let field = |name| open.headers.get(name).map(|value| &value[..]);
    assert_eq!(field("x-room"), Some(&b"7"[..]));
    assert_eq!(field("x-other"), Some(&b"[redacted]"[..]));
    assert!(field("X-Qbox-TransactionID").is_some());
    assert!(open.body.starts_with(b"[redacted]"), "{:?}", open.body);
    assert!(other.body.starts_with(b"[redacted]: "), "{:?}", other.body);
    assert!(!format!("{detail:?}").contains("hunter2"), "{detail:?}");
}

/// Sagas under way in one process, of which another one takes up what the journal has.
struct Killed {
    journal: Arc<Memory>,
    keys: Arc<Keys>,
    // Until then they do what they do.
    _runner: Runner,
    id: SagaId,
}

impl Killed {
    /// A saga whose last step hangs.
    async fn half_way(plan: &(Arc<Plan>, PlanHash), trigger: Trigger, hangs: &Service) -> Self {
        let journal = Arc::new(Memory::new(Default::default()));
        let keys = Arc::new(Keys::in_memory().unwrap());
        let runner = runner_on(Arc::clone(&journal), &keys);
        let handle = start(&runner, plan, trigger).unwrap();
        hangs.asked(1).await;
        Self {
            journal,
            keys,
            id: handle.id,
            _runner: runner,
        }
    }

    /// What the journal holds, as it holds it.
    fn recorded(&self) -> Vec<Event> {
        self.journal.history(self.id).unwrap().unwrap()
    }

    /// Another process, with these keys.
    fn restart(&self, plan: &(Arc<Plan>, PlanHash), keys: &Arc<Keys>) -> Runner {
        let journal = Arc::new(Memory::new(Default::default()));
        journal.store_plan(plan.1, &plan.0).unwrap();
        journal.append(self.id, 0, &self.recorded()).unwrap();
        let runner = runner_on(journal, keys);
        assert_eq!(runner.recover().open, 1);
        runner
    }
}

fn runner_on(journal: Arc<Memory>, keys: &Arc<Keys>) -> Runner {
    let settings = Settings {
        keys: Arc::clone(keys),
        ..Settings::default()
    };
    Runner::new(journal, Upstream::new(Default::default()), settings)
}

/// A booking whose trigger holds a secret in each place that can have one.
fn secret_trigger() -> Trigger {
    let body = "{ \"guest\": \"Ada\", \"password\": \"hunter2\" }";
    let mut trigger = trigger("7", Some("k"), body);
    trigger.request.url.push_str("?password=hunter2");
    trigger.request.headers.push("Authorization", "hunter2");
    trigger.request.headers.push("X-Tenant", "acme");
    trigger
}

/// `hotel` books with the trigger's credentials, and its compensation is `undo`; then `car` never answers.
fn book(hotel: &Service, car: &Service, top: &str, undo: &str) -> (Arc<Plan>, PlanHash) {
    let url = hotel.url("/7");
    let hotel = format!(
        "[[step]]\nname = \"hotel\"\n[step.request]\nmethod = \"PUT\"\nurl = \"{url}\"\n\
         headers = {{ Authorization = \"${{trigger.headers.authorization}}\", X-Tenant = \"${{trigger.headers.x-tenant}}\" }}\n\
         json = {{ guest = \"${{trigger.json.guest}}\", pw = \"${{trigger.json.password}}\" }}\n\
         [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"{url}\", {undo} }}\n"
    );
    let car = format!(
        "[[step]]\nname = \"car\"\nafter = [\"hotel\"]\nrequest = {{ method = \"PUT\", url = \"{}\" }}\n\
         [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"{url}\" }}\n",
        car.url("/7")
    );
    saga(top, &[hotel, car])
}

async fn services() -> (Service, Service) {
    let hotel = Service::start(|_| Act::Answer(200, "{\"access_token\":\"hunter2\",\"id\":5}")).await;
    (hotel, Service::start(|_| Act::Hang).await)
}

const CREDENTIALS: &str = "headers = { Authorization = \"${trigger.headers.authorization:none}\" }";

/// What is the last word on a saga that a restart has taken up.
async fn last_word(runner: &Runner, id: SagaId) -> Detail {
    runner.drain(PATIENCE).await;
    runner.saga(id).unwrap().unwrap()
}

#[tokio::test]
async fn a_compensation_gets_its_secret_back_from_under_the_key() {
    let (hotel, car) = services().await;
    let plan = book(
        &hotel,
        &car,
        "",
        "headers = { Authorization = \"${trigger.headers.authorization}\" }, \
         json = { t = \"${parent.response.json.access_token:none}\", p = \"${trigger.json.password}\" }",
    );
    let killed = Killed::half_way(&plan, secret_trigger(), &car).await;
    let recorded = format!("{:?}", killed.recorded());
    assert!(!recorded.contains("hunter2"), "{recorded}");
    let runner = killed.restart(&plan, &killed.keys);
    let again = start(&runner, &plan, secret_trigger()).unwrap();
    assert_eq!((again.joined, again.id), (true, killed.id));
    assert_eq!(reply(again).await.unwrap().status, 502);
    let seen = hotel.seen();
    let undone = seen
        .iter()
        .find(|seen| !seen.body.is_empty() && seen.method == "DELETE")
        .unwrap();
    assert_eq!(undone.header("authorization"), Some("hunter2"));
    assert_eq!(undone.body, br#"{"t":"hunter2","p":"hunter2"}"#);
    let shown = format!("{:?}", last_word(&runner, killed.id).await);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn without_the_key_a_compensation_that_needs_a_secret_is_stuck_and_says_why() {
    let (hotel, car) = services().await;
    let plan = book(&hotel, &car, "", CREDENTIALS);
    let killed = Killed::half_way(&plan, secret_trigger(), &car).await;
    let runner = killed.restart(&plan, &Arc::new(Keys::in_memory().unwrap()));
    // Another trigger is told from the same one, though nobody knows the password of the first any more.
    let mut other = secret_trigger();
    other.request.body = "{ \"guest\": \"Ada\", \"password\": \"other\" }".into();
    assert_eq!(start(&runner, &plan, other).unwrap_err(), Refused::KeyReused);
    assert!(start(&runner, &plan, secret_trigger()).unwrap().joined);
    let saga = last_word(&runner, killed.id).await;
    assert_eq!(saga.summary.state, State::Stuck, "{:?}", lines(&saga));
    let cause = &saga.summary.stuck[0].cause;
    assert!(
        cause.contains("${trigger.headers.authorization:none}") && cause.contains("in memory alone"),
        "{cause}"
    );
    let undone: Vec<_> = hotel
        .seen()
        .into_iter()
        .filter(|seen| seen.method == "DELETE")
        .collect();
    assert!(
        undone.iter().all(|seen| seen.header("authorization").is_none()),
        "no default in a secret's place: {undone:?}"
    );
    assert_eq!(undone.len(), 1, "the other step is undone");
}

#[tokio::test]
async fn what_only_a_transaction_sent_is_not_kept_and_not_missed() {
    let (hotel, car) = services().await;
    // Reads the request that the secret was part of.
    let undo = "headers = { X-Tenant = \"${parent.headers.x-tenant}\" }, body = \"${trigger.json.guest}\"";
    let plan = book(&hotel, &car, "", undo);
    let killed = Killed::half_way(&plan, secret_trigger(), &car).await;
    let sealed = |event: &Event| match event {
        Event::Began { hidden, .. } | Event::Ended { hidden, .. } => {
            hidden.as_ref().is_some_and(|hidden| hidden.sealed.is_some())
        }
        _ => false,
    };
    assert!(!killed.recorded().iter().any(sealed), "nothing needs it");
    let runner = killed.restart(&plan, &Arc::default());
    let saga = last_word(&runner, killed.id).await;
    assert_eq!(saga.summary.state, State::Compensated, "{:?}", lines(&saga));
    let seen = hotel.seen();
    let put = saga.sent.iter().find(|sent| sent.method == "PUT").unwrap();
    assert_eq!(put.url, hotel.url("/7"), "what was sent is still told");
    let undone = seen.iter().find(|seen| seen.body == b"Ada").unwrap();
    assert_eq!(undone.header("x-tenant"), Some("acme"));
}

#[tokio::test]
async fn without_the_key_a_saga_that_would_go_on_is_undone_instead() {
    let (hotel, car) = services().await;
    let undo = "headers = { X-Tenant = \"${parent.headers.x-tenant}\" }";
    let (plan, _) = book(&hotel, &car, "on_recovery = \"resume\"", undo);
    let mut plan = (*plan).clone();
    // The step that is sent again needs what is gone.
    plan.steps[1].request = plan.steps[0].request.clone();
    if let saga::RequestPlan::Send(request) = &mut plan.steps[1].request {
        request.url.authority = car.address.to_string();
    }
    let plan = (Arc::new(plan.clone()), journal::plan_hash(&plan).unwrap());
    let killed = Killed::half_way(&plan, secret_trigger(), &car).await;
    let runner = killed.restart(&plan, &Arc::default());
    let saga = last_word(&runner, killed.id).await;
    assert_eq!(saga.summary.state, State::Compensated, "{:?}", lines(&saga));
    assert_eq!(car.methods(), ["PUT"], "not sent again");
    assert!(saga.summary.cause.unwrap().contains("no value any more"));
}

#[tokio::test]
async fn a_pivot_that_cannot_be_sent_again_is_stuck_and_nothing_is_undone() {
    let (hotel, car) = services().await;
    let (plan, _) = book(&hotel, &car, "", "body = \"x\"");
    let mut plan = (*plan).clone();
    plan.steps[1].request = plan.steps[0].request.clone();
    plan.steps[1].kind = saga::Kind::Pivot;
    plan.steps[1].compensations.clear();
    if let saga::RequestPlan::Send(request) = &mut plan.steps[1].request {
        request.url.authority = car.address.to_string();
    }
    let plan = (Arc::new(plan.clone()), journal::plan_hash(&plan).unwrap());
    let killed = Killed::half_way(&plan, secret_trigger(), &car).await;
    let runner = killed.restart(&plan, &Arc::default());
    let saga = last_word(&runner, killed.id).await;
    assert_eq!(saga.summary.state, State::Stuck, "{:?}", lines(&saga));
    assert_eq!(hotel.methods(), ["PUT"], "{:?}", lines(&saga));

    let with_key = killed.restart(&plan, &killed.keys);
    car.asked(2).await;
    assert_eq!(car.seen()[1].header("authorization"), Some("hunter2"));
    drop(with_key);
}

#[tokio::test]
async fn a_reply_that_held_a_secret_is_not_given_without_it() {
    let hotel = Service::start(|_| Act::Answer(200, "{\"access_token\":\"hunter2\"}")).await;
    let text = "[reply.success]\nfrom = \"hotel\"\n";
    let (plan, hash) = saga("", &[step("hotel", &hotel.url("/7"), ""), text.to_owned()]);
    let plan = (plan, hash);
    let keys = Arc::new(Keys::in_memory().unwrap());
    let memory = Arc::new(Memory::new(Default::default()));
    let runner = runner_on(Arc::clone(&memory), &keys);
    let handle = start(&runner, &plan, secret_trigger()).unwrap();
    let id = handle.id;
    let first = reply(handle).await.unwrap();
    assert_eq!(&first.body[..], b"{\"access_token\":\"hunter2\"}");
    runner.drain(PATIENCE).await;
    for (keys, status) in [(keys, 200), (Arc::default(), 500)] {
        let another = Arc::new(Memory::new(Default::default()));
        another.store_plan(plan.1, &plan.0).unwrap();
        another
            .append(id, 0, &memory.history(id).unwrap().unwrap())
            .unwrap();
        let runner = runner_on(another, &keys);
        runner.recover();
        let again = reply(start(&runner, &plan, secret_trigger()).unwrap())
            .await
            .unwrap();
        assert_eq!(again.status, status);
        if status == 200 {
            assert_eq!(again, first);
        } else {
            let text = String::from_utf8_lossy(&again.body);
            assert!(text.contains("committed") && !text.contains(saga::MARK), "{text}");
        }
    }
}
