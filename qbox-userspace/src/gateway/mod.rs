//! The only place where HTTP meets sagas: is this request a trigger, and what is the answer.
//!
//! Knows no socket: requests come whole from the proxy, replies go back to it. It has no errors of its own; why a trigger
//! has no saga's reply ([`Refused`](crate::runner::Refused)) becomes an RFC 9457 problem (see `problem.rs`).

mod index;
mod problem;

pub use index::Index;

use crate::journal::{JournalError, plan_hash};
use crate::observe::{Answer, Observer};
use crate::proxy::{Handled, Handler, Head, Heard, Listener, Reply, Taken, Verdict};
use crate::runner::{Found, Runner, SagaHandle, Triggers};
use crate::saga::{self, Mode, Plan, PlanHash, Request, RequestHead};
use arc_swap::ArcSwap;
use bytes::Bytes;
use smol_str::SmolStr;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// The name of the field that tells a caller its saga's id.
const ID: &str = "X-Qbox-TransactionID";

/// The gateway's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a trigger's body.
    pub trigger_body: usize,
    /// How many sagas may be above one another; a trigger below more is answered 508.
    pub depth: u8,
}

/// A plan and the hash that it is stored under.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its content hash.
    pub hash: PlanHash,
}

impl Definition {
    /// Hashes the plan.
    ///
    /// # Errors
    /// As [`plan_hash`].
    pub fn new(plan: Arc<Plan>) -> Result<Self, JournalError> {
        let hash = plan_hash(&plan)?;
        Ok(Self { plan, hash })
    }
}

/// Takes triggers and answers them with their sagas' replies.
#[derive(Debug)]
pub struct Gateway {
    /// A request is held against the definitions that are there when it comes; a saga keeps the plan that it began with.
    table: ArcSwap<Table>,
    runner: Runner,
    observer: Observer,
}

/// What a reload exchanges, all of it at once.
#[derive(Debug)]
struct Table {
    index: Index,
    /// The ports of triggers that are only observed.
    observed: HashSet<u16>,
    settings: Settings,
}

impl Table {
    fn new(definitions: &[Definition], settings: Settings) -> Self {
        let plans = definitions.iter().map(|definition| &definition.plan);
        let observed = plans.filter(|plan| plan.mode == Mode::Observe);
        Self {
            index: Index::new(definitions),
            observed: observed.map(|plan| plan.trigger.port).collect(),
            settings,
        }
    }
}

impl Gateway {
    /// A gateway for these definitions. What is only to be observed the observer is shown.
    #[must_use]
    pub fn new(definitions: &[Definition], runner: Runner, observer: Observer, settings: Settings) -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::new(definitions, settings)),
            runner,
            observer,
        }
    }

    /// From now on these definitions and limits hold, for requests that come on open connections too.
    pub fn exchange(&self, definitions: &[Definition], settings: Settings) {
        self.table.store(Arc::new(Table::new(definitions, settings)));
    }

    async fn answer(
        &self,
        definition: &Definition,
        limit: u8,
        trigger: saga::Trigger,
        pod: crate::upstream::Via,
    ) -> Reply {
        if trigger.depth > limit {
            self.runner.too_deep();
            return problem::too_deep(limit);
        }
        self.runner.ready().await;
        match self
            .runner
            .start_saga(&definition.plan, definition.hash, trigger, pod)
        {
            Ok(handle) => self.reply(handle).await,
            Err(refused) => problem::refused(&refused),
        }
    }

    /// Has a trigger that passes noted; who listens then hears what it is answered.
    fn observe(&self, definition: &Definition, trigger: saga::Trigger, limit: u8) -> Option<Listener> {
        let Definition { plan, hash } = definition;
        let witness = self.observer.observe(plan, *hash, trigger, limit)?;
        Some(Listener::new(move |heard| {
            witness.answered(match heard {
                Heard::Status(status) => Answer::Status(status),
                Heard::Unreadable => Answer::Unreadable,
                Heard::Nothing => Answer::None,
            });
        }))
    }

    async fn reply(&self, handle: SagaHandle) -> Reply {
        let id = handle.id;
        let mut reply = match handle.reply().await {
            Ok(reply) => Reply {
                status: reply.status,
                headers: reply.headers.0.clone(),
                body: reply.body.clone(),
            },
            Err(refused) => problem::refused(&refused),
        };
        // A step's answer that is passed on may bring the id of a saga of its own; the caller's is this one.
        reply.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(ID));
        reply
            .headers
            .push((SmolStr::new_static(ID), Bytes::from(id.to_string())));
        reply
    }
}

impl Triggers for Gateway {
    fn find(&self, request: &Request) -> Option<Found> {
        let fields = request.headers.0.iter().map(|(n, v)| (n.as_str(), &v[..]));
        let head = RequestHead::new(&request.method, &request.url, fields)?;
        let table = self.table.load();
        let definition = table.index.find(&head, &request.body)?;
        if definition.plan.mode == Mode::Observe {
            return None;
        }
        let trigger = saga::trigger(&definition.plan.trigger, &head, request.body.clone(), None);
        Some(Found {
            plan: Arc::clone(&definition.plan),
            hash: definition.hash,
            too_deep: trigger.depth > table.settings.depth,
            trigger,
        })
    }
}

impl Handler for Gateway {
    fn inspect(&self, head: Head<'_>) -> Verdict {
        let fields = head.headers.iter().map(|f| (f.name, f.value));
        let table = self.table.load();
        let max_body = table.settings.trigger_body;
        let head = RequestHead::new(head.method, head.target, fields);
        match head.and_then(|head| table.index.could_match(&head)) {
            None => Verdict::Pass,
            Some(Mode::Enforce) => Verdict::Take { max_body },
            Some(Mode::Observe) => Verdict::Look { max_body },
        }
    }

    fn listens(&self, destination: Option<SocketAddr>) -> bool {
        let table = self.table.load();
        destination.is_some_and(|to| table.observed.contains(&to.port()))
    }

    async fn handle(&self, request: Taken) -> Handled {
        let fields = request.headers.iter().map(|(n, v)| (n.as_str(), &v[..]));
        let Some(head) = RequestHead::new(&request.method, &request.target, fields) else {
            return Handled::Pass(None);
        };
        // What was a trigger when its head came may be none any more.
        let (found, limit) = {
            let table = self.table.load();
            let found = table.index.find(&head, &request.body).cloned();
            (found, table.settings.depth)
        };
        let Some(definition) = found else {
            return Handled::Pass(None);
        };
        let pattern = &definition.plan.trigger;
        let mut trigger = saga::trigger(pattern, &head, request.body.clone(), request.destination);
        trigger.http2 = request.http2;
        if definition.plan.mode == Mode::Observe {
            tracing::info!(
                name = definition.plan.name,
                url = %self.runner.secrets().url(&head.url()),
                "a saga would have begun (mode observe)"
            );
            return Handled::Pass(self.observe(&definition, trigger, limit));
        }
        let reply = self.answer(&definition, limit, trigger, request.via.clone());
        Handled::Reply(reply.await)
    }
}

#[cfg(test)]
mod tests;
