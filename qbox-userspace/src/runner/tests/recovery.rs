//! What a start makes of a journal that another process has left.

use super::*;
use crate::journal::{Durable, durable};
use crate::saga::{Direction, Event, StepId};
use tempfile::TempDir;

/// A journal on disk, and what a process that was killed has left in it.
struct Left {
    folder: TempDir,
    journal: Durable,
}

impl Left {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Durable::open(folder.path(), durable::Settings::default()).unwrap();
        Self { folder, journal }
    }

    /// A saga that has begun, and whose first step is being sent.
    fn begun(&self, id: u128, plan: &(Arc<Plan>, PlanHash), trigger: Trigger) {
        let id = SagaId(id);
        let now = Timestamp::default().after(Duration::from_secs(1_800_000_000));
        let (_, events) = saga::Saga::begin(id, Arc::clone(&plan.0), plan.1, 1, trigger, now, usize::MAX);
        let sent = |event: &Event| matches!(event, Event::Sending { step: StepId(0), .. });
        assert!(events.iter().any(sent), "{events:?}");
        self.journal.store_plan(plan.1, &plan.0).unwrap();
        self.journal.append(id, 0, &events).unwrap();
    }

    /// Starts on it again.
    fn restart(self) -> (Runner, Recovered, TempDir) {
        drop(self.journal);
        let (runner, recovered) = start_on(&self.folder);
        (runner, recovered, self.folder)
    }
}

fn start_on(folder: &TempDir) -> (Runner, Recovered) {
    let journal = Durable::open(folder.path(), durable::Settings::default()).unwrap();
    let runner = runner_with(journal, Settings::default());
    let recovered = runner.recover();
    (runner, recovered)
}

#[tokio::test]
async fn an_open_saga_is_undone_and_its_key_finds_the_reply() {
    let hotel = Service::willing().await;
    let plan = saga("", &[step("hotel", &hotel.url("/7"), "")]);
    let left = Left::new();
    left.begun(1, &plan, trigger("7", Some("k"), ""));
    let (runner, recovered, folder) = left.restart();
    assert_eq!((recovered.open, recovered.ended, recovered.unreadable), (1, 0, 0));
    let again = start(&runner, &plan, trigger("7", Some("k"), "")).unwrap();
    assert!(again.joined);
    assert_eq!(again.id, SagaId(1));
    assert_eq!(reply(again).await.unwrap().status, 502);
    assert_eq!(hotel.methods(), ["DELETE"], "what may have been sent is undone");
    assert_eq!(runner.drain(PATIENCE).await, 0);
    let before = runner.saga(SagaId(1)).unwrap().unwrap();
    assert_eq!(before.summary.state, State::Compensated);
    drop(runner);

    // And after another restart: nothing is sent any more, and the reply is the same.
    let (runner, recovered) = start_on(&folder);
    assert_eq!(recovered, Recovered::default(), "nothing is left to be done");
    let after = runner.saga(SagaId(1)).unwrap().unwrap();
    assert_eq!(after.events, before.events);
    assert_eq!(after.summary, before.summary);
    let again = start(&runner, &plan, trigger("7", Some("k"), "")).unwrap();
    assert_eq!((again.joined, again.id), (true, SagaId(1)));
    assert_eq!(reply(again).await.unwrap().status, 502);
    let other = start(&runner, &plan, trigger("8", Some("k"), ""));
    assert!(matches!(other, Err(Refused::KeyReused)), "{other:?}");
    assert_eq!(hotel.methods(), ["DELETE"]);
}

#[tokio::test]
async fn an_open_saga_goes_on_where_its_file_says_so() {
    let (hotel, car) = (Service::willing().await, Service::willing().await);
    let plan = saga(
        "on_recovery = \"resume\"",
        &[
            step("hotel", &hotel.url("/7"), ""),
            step("car", &car.url("/7"), ""),
        ],
    );
    let left = Left::new();
    left.begun(1, &plan, trigger("7", None, ""));
    let (runner, _, _folder) = left.restart();
    assert_eq!(runner.drain(PATIENCE).await, 0);
    let saga = runner.saga(SagaId(1)).unwrap().unwrap();
    assert_eq!(saga.summary.state, State::Committed, "{:?}", lines(&saga));
    assert_eq!(
        (hotel.methods(), car.methods()),
        (vec!["PUT".to_owned()], vec!["PUT".to_owned()])
    );
}

#[tokio::test]
async fn one_bad_saga_stops_none_of_the_others() {
    let hotel = Service::willing().await;
    let plan = saga("", &[step("hotel", &hotel.url("/7"), "")]);
    let left = Left::new();
    left.begun(1, &plan, trigger("7", None, ""));
    left.begun(
        2,
        &(Arc::clone(&plan.0), PlanHash([9; 32])),
        trigger("7", None, ""),
    );
    let beyond = Event::Sending {
        step: StepId(77),
        direction: Direction::Transaction,
        attempt: 1,
        at: Timestamp(1),
    };
    left.begun(3, &plan, trigger("7", None, ""));
    left.journal
        .append(SagaId(4), 0, std::slice::from_ref(&beyond))
        .unwrap_err();
    let have = left.journal.history(SagaId(3)).unwrap().unwrap().len() as u64;
    left.journal.append(SagaId(3), have, &[beyond]).unwrap();
    let (runner, recovered, _folder) = left.restart();
    assert_eq!((recovered.open, recovered.unreadable), (1, 2));
    assert_eq!(runner.drain(PATIENCE).await, 0);
    let state = |id| runner.saga(SagaId(id)).unwrap().unwrap().summary;
    assert_eq!(state(1).state, State::Compensated);
    for (id, cause) in [(2, "was damaged"), (3, "step number 77")] {
        let summary = state(id);
        assert_eq!((summary.state, summary.ended), (State::Halted, None));
        assert!(summary.cause.as_deref().unwrap().contains(cause), "{summary:?}");
    }
    assert_eq!(hotel.methods(), ["DELETE"]);
    assert_eq!(runner.health().broken, None);
}

#[tokio::test]
async fn a_lock_is_kept_over_a_restart() {
    let hotel = Service::start(|seen| match seen.method.as_str() {
        "DELETE" => Act::Hang,
        _ => Act::Answer(200, "{}"),
    })
    .await;
    let plan = saga(
        "lock = \"${trigger.path.trip}\"\ntimeout = \"200ms\"",
        &[step("hotel", &hotel.url("/7"), "")],
    );
    let left = Left::new();
    left.begun(1, &plan, trigger("7", None, ""));
    let (runner, _, _folder) = left.restart();
    let second = start(&runner, &plan, trigger("7", None, "")).unwrap();
    assert!(matches!(reply(second).await, Err(Refused::Locked)));
    let other = start(&runner, &plan, trigger("8", None, "")).unwrap();
    assert_eq!(reply(other).await.unwrap().status, 200);
}

/// While the first runner, which was let go of, is still there.
#[tokio::test]
async fn what_one_lets_go_of_another_takes_up() {
    let hotel = Service::start(|asked| match asked.method.as_str() {
        "PUT" => Act::Hang,
        _ => Act::Answer(204, ""),
    })
    .await;
    let plan = saga("", &[step("hotel", &hotel.url("/7"), "")]);
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = start_on(&folder);
    let caller = start(&first, &plan, trigger("7", Some("k"), "")).unwrap();
    let id = caller.id;
    hotel.asked(1).await;
    let (told, left) = tokio::join!(reply(caller), first.drain(Duration::from_millis(50)));
    assert_eq!((told.unwrap_err(), left), (Refused::Unfinished, 1));
    first.release().await;

    let (second, recovered) = start_on(&folder);
    assert_eq!(recovered.open, 1);
    let again = start(&second, &plan, trigger("7", Some("k"), "")).unwrap();
    assert_eq!((again.joined, again.id), (true, id));
    assert_eq!(reply(again).await.unwrap().status, 502);
    assert_eq!(hotel.methods(), ["PUT", "DELETE"]);
    // The first has nothing more to say of it.
    assert!(first.health().broken.is_some());
}

#[tokio::test]
async fn triggers_wait_until_the_journal_is_there() {
    let runner = runner();
    runner.hold();
    let waiting = tokio::time::timeout(Duration::from_millis(20), runner.ready());
    assert!(waiting.await.is_err());
    runner.resume();
    runner.ready().await;
}
