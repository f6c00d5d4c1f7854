//! A saga's state as one number, for the walk over all of them (`crate::sim`): two sagas that can do the same from here on
//! have the same.
//!
//! Every field is named, so that a new one doesn't compile until it is decided whether it counts. Moments count by their order
//! alone: sagas that differ only in how far apart their timers are count as one.

use super::lane::{Flight, Lane, Run, Undo};
use super::nested::Child;
use super::{ReplayError, Saga, Turned};
use crate::saga::event::Event;
use crate::saga::id::Timestamp;
use crate::saga::retry::Why;
use crate::saga::values::Exchange;
use std::hash::{DefaultHasher, Hash, Hasher};

impl Saga {
    /// The state's number at this moment.
    pub(crate) fn fingerprint(&self, now: Timestamp) -> u64 {
        let Self {
            // The same in all sagas of one walk.
            id: _,
            plan,
            plan_hash: _,
            seed: _,
            trigger: _,
            document: _,
            // Nothing is hidden in one.
            gap: _,
            began,
            // None in the walk.
            at_once: _,
            runs,
            exchanges,
            heard,
            abort,
            revoked,
            // Of the past.
            revived: _,
            turned,
            compensating,
            overdue,
            due,
            paused,
            ended,
        } = self;
        let mut times = vec![Some(now), Some(began.after(plan.timeout)), self.reply_due()];
        let mut hash = DefaultHasher::new();
        for run in runs {
            put_run(run, &mut times, &mut hash);
        }
        for Exchange { request, response } in exchanges {
            (
                request.is_some(),
                response.as_ref().map(|response| response.status),
            )
                .hash(&mut hash);
        }
        let turned = turned.as_ref().map(|Turned { step, cause: _ }| *step);
        (heard, abort.is_some(), revoked, turned).hash(&mut hash);
        // How it stood when its answer was due is of the past; that it was, is not.
        (compensating.is_some(), overdue, due.is_some(), paused, ended).hash(&mut hash);
        let mut order: Vec<Timestamp> = times.iter().flatten().copied().collect();
        order.sort_unstable();
        order.dedup();
        for time in times {
            time.map(|time| order.binary_search(&time)).hash(&mut hash);
        }
        hash.finish()
    }

    /// Adds one more event of its history; [`Saga::replay`] does that for all of them.
    pub(crate) fn fold(&mut self, event: &Event) -> Result<(), ReplayError> {
        self.check(event)?;
        self.apply(event);
        Ok(())
    }

    /// How often the step's compensation was begun anew: its keys name it.
    pub(crate) fn undo_round(&self, step: crate::saga::StepId) -> u32 {
        self.run(step).map_or(0, |run| run.round)
    }
}

fn put_run(run: &Run, times: &mut Vec<Option<Timestamp>>, hash: &mut DefaultHasher) {
    let Run {
        skipped,
        maybe_sent,
        class,
        refused,
        probed,
        answered,
        failed,
        transaction,
        probe,
        undo,
        children,
        round,
        undone,
        by_hand,
        stuck,
        again,
        unheard,
        // Not in the records. The world of the walk knows it too, and counts it.
        listening: _,
    } = run;
    (
        skipped,
        maybe_sent,
        class,
        refused,
        probed,
        answered,
        failed.is_some(),
    )
        .hash(hash);
    put_lane(transaction, times, hash);
    put_lane(probe, times, hash);
    for Undo { lane, done, stale } in undo {
        put_lane(lane, times, hash);
        (done, stale).hash(hash);
    }
    for Child { saga: _, undo } in children {
        put_lane(&undo.lane, times, hash);
        undo.done.hash(hash);
    }
    (round, undone, by_hand, stuck.is_some(), again, unheard).hash(hash);
}

fn put_lane(lane: &Lane, times: &mut Vec<Option<Timestamp>>, hash: &mut DefaultHasher) {
    let Lane {
        sent,
        free,
        held,
        // Matters where a policy has `max_elapsed`; no plan of the walk has one.
        first: _,
        flight,
        due,
        last,
    } = lane;
    (sent, free, held).hash(hash);
    let flight = flight.as_deref().map(
        |Flight {
             request,
             durable_first,
             // Told to those who look on alone.
             since: _,
         }| (request.is_ok(), *durable_first),
    );
    flight.hash(hash);
    times.push(*due);
    let last = last.as_deref().map(|why| match why {
        Why::Hole(_) => (0, 0),
        Why::NotSent(_) => (1, 0),
        Why::Answered { status, .. } => (2, *status),
        Why::TimedOut => (3, 0),
        Why::Broken(_) => (4, 0),
        Why::Lost => (5, 0),
        Why::Held(_) => (6, 0),
    });
    last.hash(hash);
}
