//! Sagas inside sagas.
//!
//! A saga whose trigger was sent for a step of another one of this node is announced there before it begins, and begins only once
//! that is recorded: the journal is in order, so that whatever of the child is on disk, its parent knows of it. Who announces it records it
//! (see `hand`), unless the parent's task is at work: then that is told. When the parent undoes the step, it turns the child back, whether
//! that is still running or was committed long ago.
//!
//! A step whose request is the trigger of another saga of this node starts it here, without a connection.
//!
//! Errors: why a child can't begin is a [`Refused`]; why it can't be undone is in the outcome of the parent's attempt.

use super::effects::Heard;
use super::inbox::{Closed, Message};
use super::registry::Entry;
use super::{Active, Refused, Runner, Shared, State, Summary, task};
use crate::journal::JournalError;
use crate::saga::{
    AttemptEnd, Call, Headers, Parent, Plan, PlanHash, Request, Response, Saga, SagaId, SagaState, Trigger,
};
use crate::upstream::Via;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// The triggers of this node's sagas.
pub trait Triggers: Send + Sync {
    /// The saga that a request would start.
    fn find(&self, request: &Request) -> Option<Found>;
}

/// A saga that a request would start.
#[derive(Debug)]
pub struct Found {
    /// Its plan.
    pub plan: Arc<Plan>,
    /// The hash that it is stored under.
    pub hash: PlanHash,
    /// What it keeps of the request.
    pub trigger: Trigger,
    /// More sagas would be above it than may be.
    pub too_deep: bool,
}

/// A saga that was begun for a step of another one, as that one shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Child {
    /// Its id.
    #[serde(serialize_with = "super::as_text")]
    pub id: SagaId,
    /// Its plan's name.
    pub name: String,
    /// The step that it was begun for.
    pub step: String,
    /// Where it stands.
    pub state: State,
}

/// As `{ "saga": ID, "step": NAME }`.
pub(super) fn parent<S: Serializer>(parent: &Option<Parent>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct View<'a> {
        #[serde(serialize_with = "super::as_text")]
        saga: SagaId,
        step: &'a str,
    }
    let view = parent
        .as_ref()
        .map(|Parent { saga, step }| View { saga: *saga, step });
    view.serialize(serializer)
}

/// How long a child waits for its parent's word, which takes no longer than a look at the disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a child is looked for again that has just ended, or just begun again.
const LOOKS: usize = 8;

/// Qbox is about to end: nobody knows any more whose trigger a request is, and none is sent.
pub(super) struct Stopped;

/// Why a child is not undone.
enum NotUndone {
    /// It can't be, unless a person does something.
    Never(String),
    /// It is not known yet.
    Yet(String),
}

impl From<JournalError> for NotUndone {
    fn from(error: JournalError) -> Self {
        Self::Yet(error.to_string())
    }
}

impl Runner {
    /// Says where the triggers of this node's sagas are found; before the first saga. The first word stands.
    pub fn know(&self, triggers: Weak<dyn Triggers>) {
        // A second one would be a mistake of the caller's, without harm.
        let _ = self.shared.triggers.set(triggers);
    }

    /// Those that were begun for steps of a saga, oldest first, as far as they are still kept.
    pub(super) fn children(&self, of: SagaId) -> Result<Vec<Child>, JournalError> {
        let at_hand = self.shared.registry.children(of);
        let mut all: Vec<Summary> = at_hand.iter().map(|entry| entry.summary()).collect();
        let ended = self.shared.journal.children(of)?;
        let ended = ended.into_iter().map(Summary::from);
        let new: Vec<_> = ended
            .filter(|child| all.iter().all(|known| known.id != child.id))
            .collect();
        all.extend(new);
        all.sort_by_key(|child| child.id);
        let view = |child: Summary| {
            Some(Child {
                id: child.id,
                step: child.parent?.step,
                name: child.name,
                state: child.state,
            })
        };
        Ok(all.into_iter().filter_map(view).collect())
    }
}

impl Shared {
    /// Whether the saga of that parent is at hand and has not ended.
    pub(super) fn is_in_flight(&self, parent: Option<Parent>) -> bool {
        let above = parent.and_then(|parent| self.registry.get(parent.saga));
        above.is_some_and(|above| match above.look(|summary| summary.state) {
            State::Running | State::Compensating | State::Stuck => true,
            State::Waiting | State::Committed | State::Compensated | State::Halted => false,
        })
    }

    /// Asks the saga above whether the child may begin. If so, that is on record there.
    pub(super) async fn announce(&self, child: SagaId, parent: &Parent) -> Result<(), Refused> {
        let orphan = |why: String| Err(Refused::Orphan(why));
        let Some(above) = self.registry.get(parent.saga) else {
            return match self.journal.ended(parent.saga).map_err(Refused::NotBegun)? {
                Some(above) if above.state == SagaState::Compensated => {
                    orphan("it is compensated".to_owned())
                }
                // Committed, or another node's.
                _ => Ok(()),
            };
        };
        if let Some(may) = above.lent.nest(self, &above, &parent.step, child) {
            return may.map_err(Refused::Orphan);
        }
        let (answer, heard) = oneshot::channel();
        let step = parent.step.clone();
        match above.inbox.push(Message::Nested { step, child, answer }) {
            Err(Closed::Full) => return orphan("too many sagas begin for it at once".to_owned()),
            Err(Closed::NotTaken) => {}
            Ok(()) => match tokio::time::timeout(PATIENCE, heard).await {
                Ok(Ok(answer)) => return answer.map_err(Refused::Orphan),
                // Its task has gone.
                Ok(Err(_)) => {}
                Err(_) => return orphan(format!("it said nothing within {PATIENCE:?}")),
            },
        }
        match above.look(|summary| summary.state) {
            // Nothing can fail any more that would undo it.
            State::Committed => Ok(()),
            state => orphan(format!("it is {}", state.as_str())),
        }
    }

    /// The saga of this node that a request starts, if it is another one than that which sends it.
    pub(super) fn nested(&self, from: &Plan, call: &Call) -> Result<Option<Found>, Stopped> {
        let Some(triggers) = self.triggers.get() else {
            return Ok(None);
        };
        let found = triggers.upgrade().ok_or(Stopped)?.find(&call.request);
        Ok(found.filter(|found| found.plan.name != from.name))
    }

    /// Turns a saga back that began for a step, and waits for its end.
    pub(super) async fn undo(self: Arc<Self>, call: Call, child: Option<SagaId>) -> Heard {
        let end = match child {
            None => AttemptEnd::NotSent("there is no such nested saga: a bug".to_owned()),
            Some(child) => match tokio::time::timeout(call.timeout, self.turn_back(child)).await {
                Err(_) => AttemptEnd::TimedOut,
                Ok(Ok(())) => AttemptEnd::Answered(response(200, Bytes::new())),
                Ok(Err(NotUndone::Yet(cause))) => AttemptEnd::Broken(cause),
                Ok(Err(NotUndone::Never(cause))) => {
                    AttemptEnd::NotSent(format!("the nested saga {child} can't be undone: {cause}"))
                }
            },
        };
        (end, None)
    }

    async fn turn_back(self: &Arc<Self>, child: SagaId) -> Result<(), NotUndone> {
        let yet = |why: &str| Err(NotUndone::Yet(why.to_owned()));
        for _ in 0..LOOKS {
            let reviving = self.reviving.lock().await;
            let Some(entry) = self.registry.get(child) else {
                match self.journal.ended(child)? {
                    Some(ended) if ended.state == SagaState::Compensated => return Ok(()),
                    Some(_) => {
                        self.revive(child)?;
                        continue;
                    }
                    None if self.journal.history(child)?.is_some() => return yet("it is not at hand yet"),
                    None if self.journal.may_have_dropped(child) => {
                        let cause = "the journal has it no longer (`keep` of [journal])".to_owned();
                        return Err(NotUndone::Never(cause));
                    }
                    // It was announced, and never began.
                    None => return Ok(()),
                }
            };
            let heard = match ask(&entry) {
                Ok(heard) => heard,
                Err(Closed::Full) => return yet("too many ask for it at once"),
                Err(Closed::NotTaken) => match entry.look(|summary| (summary.state, summary.cause.clone())) {
                    (State::Compensated, _) => return Ok(()),
                    (State::Committed, _) => {
                        self.revive(child)?;
                        continue;
                    }
                    (State::Halted, cause) => {
                        let cause = format!("it is halted ({})", cause.unwrap_or_default());
                        return Err(NotUndone::Never(cause));
                    }
                    (State::Waiting, _) => {
                        // Its task looks at this after it has opened its inbox, and before it begins.
                        entry.answer(Err(Refused::Orphan("its step is undone".to_owned())));
                        match ask(&entry) {
                            Ok(heard) => heard,
                            Err(_) => return Ok(()),
                        }
                    }
                    (State::Running | State::Compensating | State::Stuck, _) => {
                        return yet("it is about to be taken up, or to end");
                    }
                },
            };
            drop(reviving);
            match heard.await {
                Ok(undone) => return undone.map_err(NotUndone::Never),
                // Its task has ended meanwhile.
                Err(_) => continue,
            }
        }
        yet("it ends and begins again")
    }

    /// A committed saga goes on, to be undone.
    fn revive(self: &Arc<Self>, id: SagaId) -> Result<(), NotUndone> {
        let never = |cause: String| NotUndone::Never(cause);
        let runner = Runner {
            shared: Arc::clone(self),
        };
        let kept = runner.kept(id)?;
        let (plan, events) = kept.ok_or_else(|| never("the journal has it no longer".to_owned()))?;
        let stamp = match self.registry.get(id) {
            Some(entry) => entry.stamp,
            None => self.journal.ended(id)?.and_then(|ended| ended.stamp),
        };
        let replayed = Saga::replay(Arc::clone(&plan), events.iter().cloned());
        let saga = replayed.map_err(|error| never(error.to_string()))?;
        if let Some(objection) = saga.revoke_objection() {
            return Err(never(objection.to_owned()));
        }
        let reply = saga.reply(&self.settings.secrets);
        let mut summary = match self.registry.get(id) {
            Some(entry) => entry.summary(),
            None => match self.journal.ended(id)? {
                Some(ended) => ended.into(),
                None => return Err(never("the journal has it no longer".to_owned())),
            },
        };
        self.journal.reopen(id)?;
        summary.ended = None;
        let entry = self.registry.revive(&plan, stamp, summary, reply);
        let origin = task::Origin::Revoked {
            saga: Box::new(saga),
            events: events.len() as u64,
        };
        task::spawn(Active::enter(self), entry, origin, None, None);
        Ok(())
    }
}

/// What the saga says once it is undone, or why it can't be.
fn ask(entry: &Entry) -> Result<oneshot::Receiver<Result<(), String>>, Closed> {
    let (answer, heard) = oneshot::channel();
    entry.inbox.push(Message::Revoke(answer))?;
    Ok(heard)
}

/// Starts the saga that a step's request is a trigger of, or joins the one that an earlier attempt has started, and waits for its
/// reply: that is the step's answer.
pub(super) async fn carry_out(shared: Arc<Shared>, call: Call, found: Found) -> Heard {
    let end = match tokio::time::timeout(call.timeout, begin(shared, found)).await {
        Ok(end) => end,
        Err(_) => AttemptEnd::TimedOut,
    };
    (end, None)
}

async fn begin(shared: Arc<Shared>, found: Found) -> AttemptEnd {
    if found.too_deep {
        shared.stats.too_deep();
        // RFC 5842, 7.2.
        return AttemptEnd::Answered(response(
            508,
            Bytes::from_static(b"too many sagas are above this one"),
        ));
    }
    let runner = Runner { shared };
    let handle = match runner.start_saga(&found.plan, found.hash, found.trigger, Via::Node) {
        Ok(handle) => handle,
        Err(refused) => return AttemptEnd::NotSent(refused.to_string()),
    };
    let id = handle.id;
    match handle.reply().await {
        Ok(reply) => {
            let mut answer = response(reply.status, reply.body.clone());
            answer.headers = reply.headers.clone();
            answer.headers.remove("X-Qbox-TransactionID");
            answer.headers.push("X-Qbox-TransactionID", id.to_string());
            AttemptEnd::Answered(answer)
        }
        // Qbox stops: as with a call over the network, the next start finds it cut off.
        Err(Refused::Unfinished) => std::future::pending().await,
        Err(Refused::Halted(cause)) => AttemptEnd::Broken(cause),
        // It never began.
        Err(refused) => AttemptEnd::NotSent(refused.to_string()),
    }
}

fn response(status: u16, body: Bytes) -> Response {
    Response {
        status,
        headers: Headers::default(),
        body,
        truncated: false,
    }
}
