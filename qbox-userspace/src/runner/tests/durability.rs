//! What waits for the journal, and what a journal that fails does.

use super::*;
use crate::journal::{Pending, Position};

/// A journal that holds durability back until its gate opens, and can be broken.
struct Gated {
    inner: Memory,
    asked: watch::Sender<usize>,
    gate: watch::Receiver<bool>,
    breaks_at: u64,
    failed: Arc<AtomicBool>,
}

impl Gated {
    fn new(gate: watch::Receiver<bool>, breaks_at: u64) -> Self {
        Self {
            inner: Memory::new(Default::default()),
            asked: watch::Sender::new(0),
            gate,
            breaks_at,
            failed: Arc::default(),
        }
    }
}

impl Journal for Gated {
    fn append(&self, saga: SagaId, first: u64, events: &[Event]) -> Result<Position, JournalError> {
        if first + events.len() as u64 > self.breaks_at {
            return Err(JournalError::Store("no space left on device".to_owned()));
        }
        self.inner.append(saga, first, events)
    }
    fn durable(&self, _: Position) -> Pending<'_, Result<(), JournalError>> {
        self.asked.send_modify(|n| *n += 1);
        let mut gate = self.gate.clone();
        Box::pin(async move {
            drop(gate.wait_for(|open| *open).await);
            Ok(())
        })
    }
    fn failure(&self) -> Option<String> {
        let failed = self.failed.load(Ordering::SeqCst);
        failed.then(|| "no space left on device".to_owned())
    }
    fn store_plan(&self, hash: PlanHash, plan: &Arc<Plan>) -> Result<(), JournalError> {
        self.inner.store_plan(hash, plan)
    }
    fn plan(&self, hash: PlanHash) -> Result<Option<Arc<Plan>>, JournalError> {
        self.inner.plan(hash)
    }
    fn plans(&self) -> Result<Vec<PlanHash>, JournalError> {
        self.inner.plans()
    }
    fn finish(&self, ended: journal::Outline) {
        self.inner.finish(ended);
    }
    fn children(&self, of: SagaId) -> Result<Vec<journal::Outline>, JournalError> {
        self.inner.children(of)
    }
    fn reopen(&self, saga: SagaId) -> Result<(), JournalError> {
        self.inner.reopen(saga)
    }
    fn may_have_dropped(&self, saga: SagaId) -> bool {
        self.inner.may_have_dropped(saga)
    }
    fn history(&self, saga: SagaId) -> Result<Option<Vec<Event>>, JournalError> {
        self.inner.history(saga)
    }
    fn open(&self) -> Box<dyn Iterator<Item = Result<journal::History, JournalError>> + Send + '_> {
        self.inner.open()
    }
    fn ended(&self, saga: SagaId) -> Result<Option<journal::Outline>, JournalError> {
        self.inner.ended(saga)
    }
    fn ended_with(&self, key: &[u8; 32]) -> Result<Option<(SagaId, [u8; 32])>, JournalError> {
        self.inner.ended_with(key)
    }
    fn list(
        &self,
        query: &journal::Query,
        page: &journal::Page,
    ) -> Result<Vec<journal::Outline>, JournalError> {
        self.inner.list(query, page)
    }
}

#[tokio::test]
async fn nothing_leaves_before_it_is_durable() {
    let hotel = Service::willing().await;
    let plan = saga("", &[step("hotel", &hotel.url("/7"), "")]);
    let (open, gate) = watch::channel(false);
    let journal = Gated::new(gate, u64::MAX);
    let mut asked = journal.asked.subscribe();
    let runner = runner_with(journal, Settings::default());
    let handle = start(&runner, &plan, trigger("7", None, "")).unwrap();
    tokio::time::timeout(PATIENCE, asked.wait_for(|n| *n == 1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(hotel.methods(), Vec::<String>::new());
    assert_eq!(runner.saga(handle.id).unwrap().unwrap().summary.replied, None);
    open.send(true).unwrap();
    assert_eq!(reply(handle).await.unwrap().status, 200);
    assert_eq!(
        *asked.borrow(),
        2,
        "once before the first transaction, once before the reply"
    );
}

#[tokio::test]
async fn a_journal_that_fails_halts_the_saga() {
    let hotel = Service::willing().await;
    let plan = saga("", &[step("hotel", &hotel.url("/7"), "")]);
    let (_open, gate) = watch::channel(true);
    // The beginning is taken, the outcome is not.
    let runner = runner_with(Gated::new(gate.clone(), 2), Settings::default());
    let handle = start(&runner, &plan, trigger("7", None, "")).unwrap();
    let id = handle.id;
    let refused = reply(handle).await.unwrap_err();
    assert!(
        matches!(&refused, Refused::Halted(cause) if cause.contains("no space left")),
        "{refused}"
    );
    assert_eq!(runner.saga(id).unwrap().unwrap().summary.state, State::Halted);
    assert!(runner.health().broken.is_some());
    // Not even the beginning is taken.
    let runner = runner_with(Gated::new(gate, 0), Settings::default());
    let handle = start(&runner, &plan, trigger("7", None, "")).unwrap();
    let id = handle.id;
    assert!(matches!(reply(handle).await.unwrap_err(), Refused::NotBegun(_)));
    assert!(runner.saga(id).unwrap().is_none());
    assert_eq!(
        hotel.methods().len(),
        1,
        "nothing is sent of a saga that did not begin"
    );
}

#[tokio::test]
async fn a_decision_is_acknowledged_once_it_is_durable() {
    let hotel = Service::start(|_| Act::Hang).await;
    let plan = saga("", &[step("hotel", &hotel.url("/7"), "")]);
    let (open, gate) = watch::channel(true);
    let journal = Gated::new(gate, u64::MAX);
    let (mut asked, failed) = (journal.asked.subscribe(), Arc::clone(&journal.failed));
    let runner = runner_with(journal, Settings::default());
    let id = start(&runner, &plan, trigger("7", None, "")).unwrap().id;
    hotel.asked(1).await;
    open.send_replace(false);
    asked.mark_unchanged();
    let decision = |action| Decision {
        action,
        step: None,
        who: "ada".to_owned(),
        why: "to look".to_owned(),
    };
    let pause = decision(Action::Pause);
    let acting = runner.act(id, &pause);
    tokio::pin!(acting);
    tokio::select! {
        biased;
        _ = &mut acting => panic!("acknowledged before it was durable"),
        changed = asked.changed() => changed.unwrap(),
    }
    open.send_replace(true);
    assert!(
        tokio::time::timeout(PATIENCE, acting)
            .await
            .unwrap()
            .unwrap()
            .paused
    );
    // A journal that has failed is asked for nothing more: the saga stays what it is.
    failed.store(true, Ordering::SeqCst);
    let refused = runner.act(id, &decision(Action::Resume)).await.unwrap_err();
    assert_eq!(refused, ActError::Journal("no space left on device".to_owned()));
    assert_eq!(runner.saga(id).unwrap().unwrap().summary.state, State::Running);
}
