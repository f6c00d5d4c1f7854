//! Sagas by id, in lists and by their triggers' keys: those that the registry holds, and behind it all that the journal
//! still keeps.
//!
//! The registry goes first: of a saga that both know it knows more. Errors: the journal's.

use super::filter::{self, Filter};
use super::registry::Entry;
use super::{Child, Detail, Outcome, Refused, Replied, Runner, State, Summary};
use crate::journal::{JournalError, Outline, Page, Place, Query, Stamp};
use crate::saga::{
    Direction, Event, Headers, Plan, PlanHash, Reply, Request, Saga, SagaId, SagaState, StepId, Timestamp,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// What a journal has of a saga: its plan and its events.
type Kept = (Arc<Plan>, Vec<Event>);

/// A request as it was filled in, without secrets. The attempts of one message are all the same, so it is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Of which step.
    pub step: StepId,
    /// Which of its messages.
    pub direction: Direction,
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The fields.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

impl Runner {
    /// A page of the sagas that `filter` holds for. It may read the disk for some 100 ms.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn sagas(&self, filter: &Filter, page: &Page) -> Result<Vec<Summary>, JournalError> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let place = |summary: &Summary| Place::new(page.sort, summary.id, summary.ended, &summary.name);
        let mut known = Vec::new();
        shared.registry.each_youngest(|entry| {
            entry.look(|summary| {
                if filter.matches(summary, &entry.plan, now) {
                    known.push((place(summary), entry.id));
                }
            });
            true
        });
        page.cut(&mut known, |(place, _)| place.clone());
        let known = known.iter().filter_map(|(_, id)| shared.registry.get(*id));
        let mut sagas: Vec<Summary> = known.map(|entry| entry.summary()).collect();
        if let Some(query) = self.query(filter, now)? {
            let ended = shared.journal.list(&query, page)?;
            let ended = ended
                .into_iter()
                .filter(|saga| shared.registry.get(saga.id).is_none());
            sagas.extend(ended.map(Summary::from));
            page.cut(&mut sagas, place);
        }
        Ok(sagas)
    }

    /// What the filter means for those that the journal alone knows; `None`: none of them is meant.
    fn query(&self, filter: &Filter, now: Timestamp) -> Result<Option<Query>, JournalError> {
        let states: Vec<SagaState> = filter.states.iter().filter_map(|state| state.last()).collect();
        if states.is_empty() && !filter.states.is_empty() {
            return Ok(None);
        }
        let before = |age: Duration| {
            let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            Timestamp(now.0.saturating_sub(age))
        };
        let plans = match &filter.upstream {
            Some(host) => Some(self.plans_that_call(host)?),
            None => None,
        };
        Ok(Some(Query {
            states,
            name: filter.name.clone(),
            plans,
            from: filter.younger_than.map(before),
            until: filter.older_than.map(before),
            failed_step: filter.step.clone(),
        }))
    }

    fn plans_that_call(&self, host: &str) -> Result<Vec<PlanHash>, JournalError> {
        let journal = &self.shared.journal;
        let mut found = journal.plans()?;
        // One that can't be read is no reason to show nothing of the others.
        found.retain(|hash| matches!(journal.plan(*hash), Ok(Some(plan)) if filter::calls(&plan, host)));
        Ok(found)
    }

    /// One saga with its history.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn saga(&self, id: SagaId) -> Result<Option<Detail>, JournalError> {
        let journal = &self.shared.journal;
        if let Some(entry) = self.shared.registry.get(id) {
            let mut events = journal.history(id)?.unwrap_or_default();
            self.shared.open(id, &mut events);
            let children = self.children(id)?;
            return Ok(Some(self.detail(entry.summary(), &entry.plan, &events, children)));
        }
        let Some(outline) = journal.ended(id)? else {
            return Ok(None);
        };
        let kept = self.kept(id)?;
        let children = self.children(id)?;
        Ok(kept.map(|(plan, events)| self.detail(outline.into(), &plan, &events, children)))
    }

    /// Without secrets.
    fn detail(&self, summary: Summary, plan: &Arc<Plan>, events: &[Event], children: Vec<Child>) -> Detail {
        let secrets = self.secrets();
        // A history that is none any more is still shown as it is.
        let calls = Saga::requests(Arc::clone(plan), events.iter().cloned()).unwrap_or_default();
        let mut sent: Vec<Sent> = Vec::new();
        for event in events {
            let Event::Sending { step, direction, .. } = event else {
                continue;
            };
            let (step, direction) = (*step, *direction);
            if sent
                .iter()
                .any(|sent| (sent.step, sent.direction) == (step, direction))
            {
                continue;
            }
            let call = calls
                .iter()
                .find(|call| (call.step, call.direction) == (step, direction));
            let request = match call {
                Some(call) => Some(secrets.request_of(plan, call)),
                // It was filled in with a secret, which the journal does not tell.
                None => template(plan, step, direction),
            };
            sent.extend(request.map(|request| Sent {
                step,
                direction,
                method: request.method,
                url: request.url,
                headers: request.headers,
                body: request.body,
            }));
        }
        Detail {
            summary,
            plan: Arc::clone(plan),
            children,
            events: events.iter().map(|event| secrets.event(event)).collect(),
            sent,
        }
    }

    /// A saga that has ended, that the registry doesn't hold, and that a trigger of this stamp is to be joined to.
    pub(super) fn earlier(&self, stamp: &Stamp) -> Result<Option<Arc<Entry>>, Refused> {
        let journal = &self.shared.journal;
        let Some((id, payload)) = journal.ended_with(&stamp.key).map_err(Refused::NotBegun)? else {
            return Ok(None);
        };
        if payload != stamp.payload {
            return Err(Refused::KeyReused);
        }
        // It did end: whatever hides its reply, it must not be begun once more.
        let outline = journal.ended(id).map_err(|error| hidden(&error))?;
        let kept = self.kept(id).map_err(|error| hidden(&error))?;
        let (Some(outline), Some(kept)) = (outline, kept) else {
            // Dropped just now, for its age.
            return Ok(None);
        };
        let plan = Arc::clone(&kept.0);
        let reply = self.reply_of(kept)?;
        let registry = &self.shared.registry;
        Ok(Some(registry.cache(&plan, stamp, outline.into(), reply)))
    }

    /// What the callers of a saga were told that has not ended, or just has.
    pub(super) fn recorded(&self, id: SagaId) -> Outcome {
        let kept = self.kept(id).map_err(|error| hidden(&error))?;
        let kept = kept.ok_or_else(|| hidden(&"its history is no longer kept"))?;
        self.reply_of(kept).map(Arc::new)
    }

    fn reply_of(&self, (plan, events): Kept) -> Result<Reply, Refused> {
        let saga = Saga::replay(plan, events).map_err(|error| hidden(&error))?;
        saga.reply(self.secrets()).ok_or_else(|| hidden(&"it has none"))
    }

    /// What the journal holds of a saga.
    pub(super) fn kept(&self, id: SagaId) -> Result<Option<Kept>, JournalError> {
        let journal = &self.shared.journal;
        let Some(mut events) = journal.history(id)? else {
            return Ok(None);
        };
        self.shared.open(id, &mut events);
        let damaged = |cause: &str| JournalError::Record {
            saga: id,
            cause: cause.to_owned(),
        };
        let Some(Event::Began { plan, .. }) = events.first() else {
            return Err(damaged("it doesn't begin with its beginning"));
        };
        let plan = journal.plan(*plan)?;
        let plan = plan.ok_or_else(|| damaged("the plan that it ran under is missing"))?;
        Ok(Some((plan, events)))
    }
}

fn hidden(error: &dyn std::fmt::Display) -> Refused {
    Refused::Halted(format!("its reply can't be read: {error}"))
}

/// Method and URL of a message as its saga's file has them, expressions and all.
fn template(plan: &Plan, step: StepId, direction: Direction) -> Option<Request> {
    let request = plan.steps.get(step.index())?.template(direction)?;
    Some(Request {
        method: request.method.clone(),
        url: request.url.to_string(),
        headers: Headers::default(),
        body: Bytes::new(),
    })
}

impl State {
    /// As the machine has it, if it is one that a saga ends in.
    pub(super) fn last(self) -> Option<SagaState> {
        match self {
            Self::Committed => Some(SagaState::Committed),
            Self::Compensated => Some(SagaState::Compensated),
            Self::Waiting | Self::Running | Self::Compensating | Self::Stuck | Self::Halted => None,
        }
    }
}

impl From<Outline> for Summary {
    fn from(outline: Outline) -> Self {
        Self {
            id: outline.id,
            name: outline.name,
            state: outline.state.into(),
            arrived: outline.began,
            ended: Some(outline.ended),
            failed_step: outline.failed_step,
            cause: outline.cause,
            stuck: Vec::new(),
            paused: false,
            listening: None,
            replied: outline.replied.map(|(at, status)| Replied { at, status }),
            parent: outline.parent,
            revoked: outline.revoked,
        }
    }
}
