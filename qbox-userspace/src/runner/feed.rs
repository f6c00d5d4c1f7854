//! The newest events of all sagas, for whoever looks on: a ring of the last ones, and a channel to those who follow.
//!
//! Both are bounded, and neither waits: who follows too slowly misses the oldest and is told how many. What is kept of an
//! event is what a line of it shows; bodies and fields stay in the journal. Its secrets are hidden when somebody looks.

use super::Replied;
use crate::saga::{AttemptEnd, Event, Headers, Plan, Request, Response, SagaId, Secrets, Timestamp, Trigger};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// How many events can be looked back at.
pub const KEPT: usize = 1000;
/// How many a follower may be behind.
const BEHIND: usize = 4096;
/// Bytes of a text that are kept.
const TEXT: usize = 512;

/// Something that happened to a saga.
#[derive(Debug, Clone)]
pub struct Happening {
    /// To which.
    pub saga: SagaId,
    /// The plan that it runs under.
    pub plan: Arc<Plan>,
    /// When its trigger came.
    pub arrived: Timestamp,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum What {
    /// An event, without secrets and without what its line doesn't show.
    Event(Box<Event>),
    /// The callers were answered.
    Replied(Replied),
}

/// Of whom there is something to tell.
#[derive(Debug)]
pub(super) struct Of<'a> {
    pub(super) saga: SagaId,
    pub(super) plan: &'a Arc<Plan>,
    pub(super) arrived: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Feed {
    newest: Mutex<VecDeque<Kept>>,
    followers: broadcast::Sender<Arc<Happening>>,
}

/// A happening as it is kept: its secrets are hidden when somebody looks, which is seldom.
#[derive(Debug)]
struct Kept(Happening);

impl Kept {
    fn show(&self, secrets: &Secrets) -> Arc<Happening> {
        let Happening {
            saga,
            plan,
            arrived,
            what,
        } = &self.0;
        Arc::new(Happening {
            saga: *saga,
            plan: Arc::clone(plan),
            arrived: *arrived,
            what: match what {
                What::Event(event) => What::Event(Box::new(short(secrets.event(event)))),
                What::Replied(replied) => What::Replied(*replied),
            },
        })
    }
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            newest: Mutex::default(),
            followers: broadcast::Sender::new(BEHIND),
        }
    }

    pub(super) fn events(&self, of: &Of<'_>, events: &[Event], secrets: &Secrets) {
        let small = events.iter().map(|event| {
            let event = slim(event);
            What::Event(Box::new(match is_long(&event) {
                true => short(secrets.event(&event)),
                false => event,
            }))
        });
        self.tell(of, small, secrets);
    }

    pub(super) fn replied(&self, of: &Of<'_>, replied: Replied, secrets: &Secrets) {
        self.tell(of, std::iter::once(What::Replied(replied)), secrets);
    }

    fn tell(&self, of: &Of<'_>, happened: impl Iterator<Item = What>, secrets: &Secrets) {
        let kept = happened.map(|what| {
            Kept(Happening {
                saga: of.saga,
                plan: Arc::clone(of.plan),
                arrived: of.arrived,
                what,
            })
        });
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        for kept in kept {
            if newest.len() >= KEPT {
                newest.pop_front();
            }
            // Under the lock, so that who comes meanwhile has it once.
            if self.followers.receiver_count() > 0 {
                // Who has gone since is not to be told.
                let _ = self.followers.send(kept.show(secrets));
            }
            newest.push_back(kept);
        }
    }

    /// What is kept, oldest first, and from there on what follows: nothing is missing between the two, and nothing twice.
    pub(super) fn follow(&self, secrets: &Secrets) -> (Vec<Arc<Happening>>, Follower) {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let follower = Follower(self.followers.subscribe());
        (newest.iter().map(|kept| kept.show(secrets)).collect(), follower)
    }
}

/// Someone who follows.
#[derive(Debug)]
pub struct Follower(broadcast::Receiver<Arc<Happening>>);

/// The next of a [`Follower`].
#[derive(Debug)]
pub enum Next {
    /// This has happened.
    Happened(Arc<Happening>),
    /// So many were missed, since they were not asked for in time.
    Missed(u64),
}

impl Follower {
    /// Waits for the next; `None`: there will be none. Dropping the future misses nothing.
    pub async fn next(&mut self) -> Option<Next> {
        match self.0.recv().await {
            Ok(happening) => Some(Next::Happened(happening)),
            Err(RecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// The event without what a line of it doesn't show, so that a thousand of them are small.
fn slim(event: &Event) -> Event {
    match event {
        Event::Began {
            schema,
            saga,
            plan,
            name,
            seed,
            trigger,
            at,
            hidden: _,
        } => Event::Began {
            schema: *schema,
            saga: *saga,
            plan: *plan,
            name: name.clone(),
            seed: *seed,
            trigger: Trigger {
                request: Request {
                    method: trigger.request.method.clone(),
                    url: trigger.request.url.clone(),
                    headers: Headers::default(),
                    body: Bytes::new(),
                },
                path: Vec::new(),
                ..*trigger
            },
            at: *at,
            hidden: None,
        },
        Event::Ended {
            step,
            direction,
            attempt,
            end: AttemptEnd::Answered(response),
            class,
            at,
            hidden: _,
        } => Event::Ended {
            step: *step,
            direction: *direction,
            attempt: *attempt,
            end: AttemptEnd::Answered(Response {
                status: response.status,
                headers: Headers::default(),
                body: Bytes::new(),
                truncated: true,
            }),
            class: *class,
            at: *at,
            hidden: None,
        },
        other => other.clone(),
    }
}

/// Whether it is to be cut at once, lest the memory is full of it.
fn is_long(event: &Event) -> bool {
    match event {
        Event::Began { trigger, .. } => trigger.request.method.len() + trigger.request.url.len() > 2 * TEXT,
        _ => false,
    }
}

/// Cuts what may be long: behind the hiding, which would not know a secret by its half.
fn short(mut event: Event) -> Event {
    if let Event::Began { trigger, .. } = &mut event {
        trigger.request.method = cut(&trigger.request.method);
        trigger.request.url = cut(&trigger.request.url);
    }
    event
}

fn cut(text: &str) -> String {
    match text.chars().nth(TEXT) {
        None => text.to_owned(),
        Some(_) => text.chars().take(TEXT).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::{Class, Direction, StepId};
    use std::time::Duration;

    fn plan() -> Arc<Plan> {
        let (plan, _) = crate::runner::testing::plan(
            "name = \"x\"\n[trigger]\nurl = \"http://trips/trips/{trip}\"\n\
             [[step]]\nname = \"hotel\"\nrequest = { method = \"PUT\", url = \"http://hotel/7\" }\n",
        );
        plan
    }

    fn of(plan: &Arc<Plan>) -> Of<'_> {
        Of {
            saga: SagaId(7),
            plan,
            arrived: Timestamp::default(),
        }
    }

    fn ended(number: usize) -> Event {
        Event::Ended {
            step: StepId(0),
            direction: Direction::Transaction,
            attempt: 1,
            end: AttemptEnd::Answered(Response {
                status: 500,
                headers: Headers(vec![("a".into(), Bytes::from_static(b"secret"))]),
                body: Bytes::from_static(b"secret"),
                truncated: false,
            }),
            class: Class::Unknown,
            at: Timestamp::default().after(Duration::from_micros(number as u64)),
            hidden: None,
        }
    }

    /// The number that an event of [`ended`] was made from.
    fn number(happening: &Happening) -> u64 {
        match &happening.what {
            What::Event(event) => match &**event {
                Event::Ended { at, .. } => at.0,
                event => panic!("{event:?}"),
            },
            what => panic!("{what:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_kept_and_what_follows_meet() {
        let (feed, plan, none) = (Feed::new(), plan(), Secrets::default());
        for n in 0..KEPT + 5 {
            feed.events(&of(&plan), &[ended(n)], &none);
        }
        let (kept, mut follower) = feed.follow(&none);
        assert_eq!((kept.len(), number(&kept[0])), (KEPT, 5));
        assert!(
            !format!("{kept:?}").contains("secret"),
            "bodies and fields are not kept"
        );
        feed.events(&of(&plan), &[ended(KEPT + 5)], &none);
        let Some(Next::Happened(next)) = follower.next().await else {
            panic!("nothing followed")
        };
        assert_eq!(number(&next), number(&kept[KEPT - 1]) + 1);
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_how_much_was_missed() {
        let (feed, plan, none) = (Feed::new(), plan(), Secrets::default());
        let (_, mut follower) = feed.follow(&none);
        for n in 0..BEHIND + 10 {
            feed.events(&of(&plan), &[ended(n)], &none);
        }
        assert!(matches!(follower.next().await, Some(Next::Missed(10))));
        let Some(Next::Happened(next)) = follower.next().await else {
            panic!("nothing followed")
        };
        assert_eq!(number(&next), 10);
        drop(feed);
        let mut rest = 0;
        while follower.next().await.is_some() {
            rest += 1;
        }
        assert_eq!(rest, BEHIND - 1);
    }

    #[test]
    fn long_texts_are_cut() {
        let long = "é".repeat(2 * TEXT);
        assert_eq!(cut(&long).chars().count(), TEXT + 1);
        assert_eq!(cut("short"), "short");
    }
}
