//! What a journal knows of a saga that has ended without reading its history, and how such sagas are looked for: lists are
//! made, and callers' keys found again, from this alone.

use crate::saga::{Parent, PlanHash, SagaId, SagaState, Timestamp};
use serde::{Deserialize, Serialize};

/// A trigger whose caller (or saga file) gave it a key, as digests: of fixed size, and nobody's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// SHA-256 of what makes two triggers one.
    pub key: [u8; 32],
    /// SHA-256 of what they must have in common then.
    pub payload: [u8; 32],
}

/// A saga that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// Its id.
    pub id: SagaId,
    /// Its plan's name.
    pub name: String,
    /// How it ended.
    pub state: SagaState,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The step that failed, if one has.
    pub failed_step: Option<String>,
    /// Why it failed.
    pub cause: Option<String>,
    /// When its callers were answered, and the status.
    pub replied: Option<(Timestamp, u16)>,
    /// What stands for its trigger, if it had a key.
    pub stamp: Option<Stamp>,
    /// The step of another saga that it was begun for.
    pub parent: Option<Parent>,
    /// That saga has undone it.
    pub revoked: bool,
}

/// Which sagas of those that have ended a list holds: those that meet all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// They ended in one of these; none given: in any.
    pub states: Vec<SagaState>,
    /// The plan's name.
    pub name: Option<String>,
    /// They ran under one of these plans.
    pub plans: Option<Vec<PlanHash>>,
    /// Began then or later.
    pub from: Option<Timestamp>,
    /// Began before.
    pub until: Option<Timestamp>,
    /// The step that failed.
    pub failed_step: Option<String>,
}

impl Query {
    /// Whether a saga that ran under `plan` meets it.
    #[must_use]
    pub fn admits(&self, saga: &Outline, plan: PlanHash) -> bool {
        (self.states.is_empty() || self.states.contains(&saga.state))
            && self.name.as_ref().is_none_or(|wanted| *wanted == saga.name)
            && self.plans.as_ref().is_none_or(|wanted| wanted.contains(&plan))
            && self.from.is_none_or(|from| saga.began >= from)
            && self.until.is_none_or(|until| saga.began < until)
            && (self.failed_step.is_none() || self.failed_step == saga.failed_step)
    }
}

/// By what a list is sorted; sagas that are equal in it, by their ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// When they began, which is how ids sort.
    #[default]
    Began,
    /// When they ended; those that have not come last.
    Ended,
    /// The plan's name.
    Name,
}

/// A saga's place in a sorted list. Only places of the same [`Sort`] can be compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a list by [`Sort::Began`].
    Began(SagaId),
    /// In a list by [`Sort::Ended`].
    Ended(Timestamp, SagaId),
    /// In a list by [`Sort::Name`].
    Name(String, SagaId),
}

impl Place {
    /// The place of a saga of these.
    #[must_use]
    pub fn new(sort: Sort, id: SagaId, ended: Option<Timestamp>, name: &str) -> Self {
        match sort {
            Sort::Began => Self::Began(id),
            Sort::Ended => Self::Ended(ended.unwrap_or(Timestamp(u64::MAX)), id),
            Sort::Name => Self::Name(name.to_owned(), id),
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// By what it is sorted.
    pub sort: Sort,
    /// The last first.
    pub descending: bool,
    /// It begins behind this place, which is that of the page before's last saga.
    pub after: Option<Place>,
    /// How many sagas it holds at most.
    pub limit: usize,
}

impl Page {
    /// The youngest `limit`, youngest first.
    #[must_use]
    pub fn youngest(limit: usize) -> Self {
        Self {
            sort: Sort::Began,
            descending: true,
            after: None,
            limit,
        }
    }

    /// Sorts `sagas`, and cuts them to the page.
    pub fn cut<T>(&self, sagas: &mut Vec<T>, place: impl Fn(&T) -> Place) {
        if let Some(after) = &self.after {
            sagas.retain(|saga| match self.descending {
                true => place(saga) < *after,
                false => place(saga) > *after,
            });
        }
        sagas.sort_by_cached_key(place);
        if self.descending {
            sagas.reverse();
        }
        sagas.truncate(self.limit);
    }
}
