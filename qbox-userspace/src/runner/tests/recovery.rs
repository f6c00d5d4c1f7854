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

/// More sagas than may be in hand for one service, which hears the first of them and doesn't answer; and what is said of the last.
struct Crowd {
    hotel: Service,
    open: watch::Sender<bool>,
    plan: (Arc<Plan>, PlanHash),
    runner: Runner,
    _folder: TempDir,
}

const CROWD: u128 = turns::IN_HAND as u128 + 50;

impl Crowd {
    async fn found(top: &str, key: impl Fn(u128) -> String) -> Self {
        let (open, gate) = watch::channel(false);
        let hotel = Service::start(move |_| Act::Wait(gate.clone())).await;
        let plan = saga(top, &[step("hotel", &hotel.url("/${saga.id}"), "")]);
        let left = Left::new();
        for id in 1..=CROWD {
            let key = key(id);
            left.begun(id, &plan, trigger(&key, Some(&format!("k{id}")), ""));
        }
        let (runner, recovered, folder) = left.restart();
        assert_eq!(recovered.open as u128, CROWD);
        Self {
            hotel,
            open,
            plan,
            runner,
            _folder: folder,
        }
    }

    fn state(&self, id: u128) -> Summary {
        self.runner.saga(SagaId(id)).unwrap().unwrap().summary
    }

    fn events(&self, id: u128) -> usize {
        self.runner.saga(SagaId(id)).unwrap().unwrap().events.len()
    }

    /// The service answers, and all of them end.
    async fn ends(self) -> Runner {
        self.open.send_replace(true);
        let empty = async {
            while self.runner.health().in_flight > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(3 * PATIENCE, empty)
            .await
            .expect("some never had their turn");
        for id in 1..=CROWD {
            assert_eq!(self.state(id).state, State::Compensated, "{id}");
        }
        let mut targets: Vec<_> = self.hotel.seen().into_iter().map(|seen| seen.target).collect();
        targets.sort_unstable();
        targets.dedup();
        assert_eq!(targets.len() as u128, CROWD, "each was undone");
        self.runner
    }
}

#[tokio::test]
async fn those_without_a_turn_are_counted_listed_and_undone_in_the_end() {
    let crowd = Crowd::found("", |_| "7".to_owned()).await;
    crowd.hotel.asked(1).await;
    assert_eq!(crowd.runner.health().in_flight as u128, CROWD);
    let page = journal::Page::youngest(2 * CROWD as usize);
    let listed = crowd.runner.sagas(&Filter::default(), &page).unwrap();
    assert_eq!(listed.len() as u128, CROWD);
    let waits = crowd.state(CROWD);
    assert_eq!(
        (waits.state, waits.ended),
        (State::Running, None),
        "as the journal has it"
    );
    crowd.ends().await;
}

#[tokio::test]
async fn one_without_a_turn_is_taken_up_for_its_operator_or_caller() {
    let crowd = Crowd::found("", |_| "7".to_owned()).await;
    let before = crowd.events(CROWD);
    let pause = Decision {
        action: Action::Pause,
        step: None,
        who: "me".to_owned(),
        why: "to look".to_owned(),
    };
    let paused = crowd.runner.act(SagaId(CROWD), &pause).await.unwrap();
    assert!(paused.paused, "{paused:?}");
    assert!(crowd.events(CROWD) > before);
    let resume = Decision {
        action: Action::Resume,
        ..pause
    };
    crowd.runner.act(SagaId(CROWD), &resume).await.unwrap();

    let asked = CROWD - 1;
    let before = crowd.events(asked);
    let key = format!("k{asked}");
    let caller = start(&crowd.runner, &crowd.plan, trigger("7", Some(&key), "")).unwrap();
    assert!(caller.joined);
    let taken_up = async {
        while crowd.events(asked) == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken_up)
        .await
        .expect("nobody took it up");
    crowd.ends().await;
    assert_eq!(reply(caller).await.unwrap().status, 502);
}

#[tokio::test]
async fn those_without_a_turn_keep_their_locks_and_a_drain_leaves_them() {
    let crowd = Crowd::found("lock = \"${trigger.path.trip}\"\ntimeout = \"200ms\"", |id| {
        id.to_string()
    })
    .await;
    // The lock of one that waits for its turn is not free.
    let trip = CROWD.to_string();
    let second = start(&crowd.runner, &crowd.plan, trigger(&trip, None, "")).unwrap();
    assert!(matches!(reply(second).await, Err(Refused::Locked)));
    let before = crowd.events(CROWD);
    let left = crowd.runner.drain(Duration::from_millis(50)).await;
    assert_eq!(left, turns::IN_HAND);
    crowd.open.send_replace(true);
    assert_eq!(crowd.runner.drain(3 * PATIENCE).await, 0);
    assert_eq!(crowd.events(CROWD), before, "the next start takes it up");
    assert_eq!(crowd.state(CROWD).state, State::Running);
}
