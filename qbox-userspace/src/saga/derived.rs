//! What follows from a plan alone, found out once per plan and not once per saga: the order of its steps, and what of a
//! saga's messages its expressions can ever read.

use super::id::StepId;
use super::plan::Plan;
use super::secrets::Needs;
use std::sync::OnceLock;

/// Beside its plan, and no part of it: two plans are equal whatever was found out of them, and a copy, which may be changed,
/// begins without.
#[derive(Debug, Default)]
pub struct Derived {
    order: OnceLock<Vec<StepId>>,
    after_restart: OnceLock<Needs>,
    ever: OnceLock<Needs>,
}

impl Clone for Derived {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Derived {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Plan {
    /// The steps, each behind all that it comes after.
    pub(super) fn order(&self) -> &[StepId] {
        self.derived.order.get_or_init(|| order(self))
    }

    /// What of its past a saga can still ask for after a restart.
    #[must_use]
    pub fn needs(&self) -> &Needs {
        self.derived.after_restart.get_or_init(|| Needs::of(self))
    }

    /// What a saga can ask for at any time.
    pub(super) fn reads(&self) -> &Needs {
        self.derived.ever.get_or_init(|| Needs::ever(self))
    }
}

/// The steps, each behind all that it comes after (Kahn 1962). What is in a cycle, which a checked plan has not, is last.
fn order(plan: &Plan) -> Vec<StepId> {
    let mut order: Vec<StepId> = Vec::with_capacity(plan.steps.len());
    let mut waits: Vec<usize> = plan.steps.iter().map(|step| step.after.len()).collect();
    let mut followers: Vec<Vec<StepId>> = vec![Vec::new(); plan.steps.len()];
    let ids = || (0..).map(StepId).zip(&plan.steps);
    for (id, step) in ids() {
        for before in &step.after {
            if let Some(list) = followers.get_mut(before.index()) {
                list.push(id);
            }
        }
    }
    order.extend(ids().filter(|(_, step)| step.after.is_empty()).map(|(id, _)| id));
    let mut at = 0;
    while let Some(done) = order.get(at).copied() {
        at += 1;
        for follower in followers.get(done.index()).into_iter().flatten() {
            if let Some(left) = waits.get_mut(follower.index()) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    order.push(*follower);
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use crate::saga::fixture::{Fixture, template};
    use crate::saga::{Plan, ReplyPlan, StepId};

    #[test]
    fn what_no_message_reads_is_not_kept() {
        let fixture = Fixture::new("{\"kind\":\"book\"}", b"{\"room\":12}");
        let request = &fixture.trigger.request;
        let answer = fixture.exchanges[0].response.as_ref().unwrap();
        let kept = fixture.plan.reads().of_trigger(&fixture.trigger);
        assert_eq!(kept.path, fixture.trigger.path);
        assert_eq!((kept.request.url.as_str(), kept.request.body.len()), ("", 0));
        assert!(kept.request.headers.0.is_empty());
        let kept = fixture.plan.reads().of_answer(StepId(0), answer);
        assert_eq!((kept.status, kept.body.len()), (201, 0));
        assert!(!fixture.plan.reads().request(StepId(0)));

        // Whose step it was sent for is asked at any time, whatever the plan reads.
        let mut nested = fixture.trigger.clone();
        let headers = &mut nested.request.headers;
        headers.push("X-Qbox-TransactionID", "018f2c1e-7a5b-7c3d-8e9f-0a1b2c3d4e5f");
        headers.push("X-Qbox-Step", "hotel");
        let kept = fixture.plan.reads().of_trigger(&nested);
        assert!(kept.parent().is_some_and(|parent| parent.step == "hotel"));

        let reads = "${trigger.headers.x-tenant} ${trigger.json.kind} ${trigger.query.dry} ${steps.hotel.response.json.room} \
                     ${steps.hotel.request.body}";
        let plan = Plan {
            lock: Some(template(reads)),
            ..fixture.plan.clone()
        };
        let kept = plan.reads().of_trigger(&fixture.trigger);
        assert_eq!(
            (&kept.request.url, &kept.request.body),
            (&request.url, &request.body)
        );
        assert_eq!(kept.request.headers.0, request.headers.0[..1]);
        let kept = plan.reads().of_answer(StepId(0), answer);
        assert_eq!(kept.body, answer.body);
        assert!(kept.headers.0.is_empty());
        assert!(plan.reads().request(StepId(0)));

        let plan = Plan {
            reply_success: Some(ReplyPlan::From(StepId(0))),
            ..fixture.plan.clone()
        };
        assert_eq!(&plan.reads().of_answer(StepId(0), answer), &**answer);
    }
}
