//! What a start finds in the journal: open sagas are taken up. Those that have ended stay where they are until they are asked for
//! (see `list`), but for those of which the journal only knows that.
//!
//! One that can't be read stands in the list as halted, with its cause, and stops none of the others.

use super::locks::Ticket;
use super::registry::{self, Entry};
use super::task::{self, Origin};
use super::turns::{Turn, Turns};
use super::{Active, Refused, Replied, Runner, Shared, State, Summary, seal};
use crate::journal::{History, JournalError};
use crate::saga::{
    Derived, Durability, Event, Mode, OnRecovery, Plan, PlanHash, Reply, Saga, SagaId, SagaState, Timestamp,
    TriggerPattern,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// What a start found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Sagas that were open, and go on.
    pub open: usize,
    /// Sagas that had ended without the journal having been told all of it.
    pub ended: usize,
    /// Sagas that can't be read: halted.
    pub unreadable: usize,
}

impl Runner {
    /// Takes up what the journal holds. For the start, before the first trigger.
    pub fn recover(&self) -> Recovered {
        let mut recovery = Recovery {
            runner: self,
            plans: HashMap::new(),
            turns: Turns::default(),
            found: Recovered::default(),
            taken_up: Vec::new(),
        };
        let journal = Arc::clone(&self.shared.journal);
        for history in journal.open() {
            recovery.open(history);
        }
        // Once all are at hand: those that are nested in one another look for each other.
        for TakenUp {
            active,
            entry,
            origin,
            permit,
            lock,
        } in std::mem::take(&mut recovery.taken_up)
        {
            task::spawn(active, entry, origin, permit, lock);
        }
        recovery.found
    }
}

/// A saga of which only the entry was kept, from the journal once more.
pub(super) struct Again {
    pub(super) saga: Box<Saga>,
    /// How long its history is.
    pub(super) events: u64,
    /// Its callers' answer, if that is due.
    pub(super) reply: Option<Arc<Reply>>,
}

pub(super) fn read_again(shared: &Shared, entry: &Entry) -> Result<Again, String> {
    let history = shared.journal.history(entry.id);
    let events = history.map_err(|error| error.to_string())?;
    let mut events = events.ok_or_else(|| "its history is no longer in the journal".to_owned())?;
    shared.open(entry.id, &mut events);
    let count = events.len() as u64;
    let mut saga = Saga::replay(Arc::clone(&entry.plan), events).map_err(|error| error.to_string())?;
    let reply = saga.fetch_reply(&shared.settings.secrets).map(Arc::new);
    Ok(Again {
        saga: Box::new(saga),
        events: count,
        reply,
    })
}

struct Recovery<'a> {
    runner: &'a Runner,
    /// Those met so far: as many as there were definitions.
    plans: HashMap<PlanHash, Arc<Plan>>,
    turns: Turns,
    found: Recovered,
    taken_up: Vec<TakenUp>,
}

/// An open saga whose task is to begin.
struct TakenUp {
    active: Active,
    entry: Arc<Entry>,
    origin: Origin,
    permit: Option<OwnedSemaphorePermit>,
    lock: Option<Ticket>,
}

impl Recovery<'_> {
    fn open(&mut self, history: Result<History, JournalError>) {
        let Some((mut saga, events)) = self.replay(history) else {
            return;
        };
        let shared = &self.runner.shared;
        let (id, plan) = (saga.id(), Arc::clone(saga.plan()));
        if self.retire(&saga, &events) {
            return;
        }
        self.found.open += 1;
        let reply = saga.fetch_reply(&shared.settings.secrets).map(Arc::new);
        let entry = self.restore(&saga, &events, reply.as_deref(), None);
        tracing::debug!(saga = %id, name = plan.name, state = ?entry.summary().state, "saga found in the journal, and taken up");
        let active = Active::enter(shared);
        let lock = shared.lock(&plan, id, saga.trigger(), saga.gap());
        // Those that had a place keep it, even where there are fewer places now.
        let permit = Arc::clone(&shared.room).try_acquire_owned().ok();
        let turn = match self.turns.take(&saga, shared.clock.now()) {
            Turn::Free => None,
            Turn::Now(turn) => Some(turn),
            Turn::Later(turns) => return task::spawn_later(active, entry, turns, permit, lock),
        };
        let origin = Origin::Journal {
            saga: Box::new(saga),
            events: events.len() as u64,
            reply,
            turn,
        };
        self.taken_up.push(TakenUp {
            active,
            entry,
            origin,
            permit,
            lock,
        });
    }

    fn replay(&mut self, history: Result<History, JournalError>) -> Option<(Saga, Vec<Event>)> {
        let History { saga, mut events } = match history {
            Ok(history) => history,
            Err(JournalError::Record { saga, cause }) => {
                self.halted(saga, "?", &cause);
                return None;
            }
            Err(error) => {
                tracing::error!(%error, "a saga in the journal can't be told");
                self.found.unreadable += 1;
                return None;
            }
        };
        self.runner.shared.open(saga, &mut events);
        let Some(Event::Began { plan, name, .. }) = events.first() else {
            self.halted(saga, "?", "the saga's history doesn't begin with its beginning");
            return None;
        };
        let replayed = match self.plan(*plan) {
            Ok(plan) => Saga::replay(plan, events.iter().cloned()).map_err(|error| error.to_string()),
            Err(cause) => Err(cause),
        };
        match replayed {
            Ok(saga) => Some((saga, events)),
            Err(cause) => {
                self.halted(saga, name, &cause);
                None
            }
        }
    }

    fn plan(&mut self, hash: PlanHash) -> Result<Arc<Plan>, String> {
        if let Some(plan) = self.plans.get(&hash) {
            return Ok(Arc::clone(plan));
        }
        let plan = self
            .runner
            .shared
            .journal
            .plan(hash)
            .map_err(|error| error.to_string())?;
        let plan = plan.ok_or_else(|| format!("the plan {hash} that it runs under is not in the journal"))?;
        self.plans.insert(hash, Arc::clone(&plan));
        Ok(plan)
    }

    /// Tells the journal what it has not been told of a saga that has ended. `false`: it hasn't.
    fn retire(&mut self, saga: &Saga, events: &[Event]) -> bool {
        let (SagaState::Committed | SagaState::Compensated) = saga.state() else {
            return false;
        };
        let ended = events.iter().rev().find_map(|event| match event {
            Event::Committed { at } | Event::Compensated { at } | Event::Decided { at, .. } => Some(*at),
            _ => None,
        });
        let reply = saga.reply(&self.runner.shared.settings.secrets);
        let entry = self.restore(saga, events, reply.as_ref(), ended);
        if let Some(reply) = reply {
            entry.answer(Ok(Arc::new(reply)));
        }
        let shared = &self.runner.shared;
        if let Some(outline) = entry.outline() {
            shared.journal.finish(outline);
        }
        shared.registry.retire(&entry);
        self.found.ended += 1;
        true
    }

    fn restore(
        &self,
        saga: &Saga,
        events: &[Event],
        reply: Option<&Reply>,
        ended: Option<Timestamp>,
    ) -> Arc<Entry> {
        let plan = saga.plan();
        let early = events.iter().find_map(|event| match event {
            Event::ReplyDue { at } => Some(*at),
            _ => None,
        });
        let mut summary = Summary {
            id: saga.id(),
            name: plan.name.clone(),
            state: State::Running,
            arrived: saga.began(),
            ended,
            failed_step: None,
            cause: None,
            stuck: Vec::new(),
            paused: false,
            listening: None,
            replied: early.or(ended).and_then(|at| {
                reply.map(|reply| Replied {
                    at,
                    status: reply.status,
                })
            }),
            parent: saga.trigger().parent(),
            revoked: false,
        };
        summary.learn(saga, events);
        let stamp = match events.first() {
            // Of what is hidden no other could be made.
            Some(Event::Began {
                hidden: Some(hidden), ..
            }) => seal::read_stamp(hidden),
            Some(Event::Began { trigger, .. }) => registry::stamp(plan, trigger),
            _ => None,
        };
        self.runner.shared.registry.restore(plan, stamp, summary)
    }

    fn halted(&mut self, id: SagaId, name: &str, cause: &str) {
        tracing::error!(saga = %id, name, cause, "saga halted: what the journal holds of it can't be read");
        self.found.unreadable += 1;
        let shared = &self.runner.shared;
        let summary = Summary {
            id,
            name: name.to_owned(),
            state: State::Halted,
            arrived: Timestamp::default().after(id.made()),
            ended: None,
            failed_step: None,
            cause: Some(cause.to_owned()),
            stuck: Vec::new(),
            paused: false,
            listening: None,
            replied: None,
            parent: None,
            revoked: false,
        };
        let entry = shared.registry.restore(&Arc::new(nameless(name)), None, summary);
        entry.answer(Err(Refused::Halted(cause.to_owned())));
    }
}

/// Stands where a plan is not known: it has no steps.
fn nameless(name: &str) -> Plan {
    Plan {
        name: name.to_owned(),
        timeout: Duration::ZERO,
        reply_timeout: Duration::ZERO,
        mode: Mode::Enforce,
        on_recovery: OnRecovery::Compensate,
        durability: Durability::Disk,
        lock: None,
        trigger: TriggerPattern {
            method: None,
            host: String::new(),
            port: 80,
            path: Vec::new(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            json: Vec::new(),
            priority: 0,
            dedupe: None,
        },
        steps: Vec::new(),
        reply_success: None,
        reply_failure: None,
        derived: Derived::default(),
    }
}
