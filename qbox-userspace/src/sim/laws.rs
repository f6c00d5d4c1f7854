//! What was promised: at each sending, in every state, and at the end.

use super::plans::name;
use super::service::{self, Service};
use super::world::{Broken, ID, World};
use crate::saga::{
    Call, CompensateWhen, Direction, Kind, Plan, SagaState, Secrets, Step, StepId, StepState, StepView,
    UndoState,
};
use std::sync::LazyLock;

/// Made once: what finds them is.
static SECRETS: LazyLock<Secrets> = LazyLock::new(Secrets::default);

/// `Err`, if it doesn't hold.
fn law(holds: bool, broken: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken()) }
}

/// For each step what the plan says of it, what the saga says, and what is true.
fn each(world: &World) -> impl Iterator<Item = (StepId, &Step, StepView<'_>, &Service)> {
    let said = world.scene.plan.steps.iter().zip(world.saga.steps());
    (0..)
        .map(StepId)
        .zip(said.zip(&world.services))
        .map(|(id, ((step, view), service))| (id, step, view, service))
}

fn comes_after(plan: &Plan, later: StepId, earlier: StepId) -> bool {
    let after = &plan.steps[later.index()].after;
    after
        .iter()
        .any(|at| *at == earlier || comes_after(plan, *at, earlier))
}

/// A call that is about to leave.
pub(super) fn sent(world: &World, call: &Call) -> Result<(), Broken> {
    let plan = &world.scene.plan;
    let name = name(call.step.index());
    let there = call.request.headers.get("idempotency-key");
    let key = match (call.direction, world.saga.undo_round(call.step)) {
        (Direction::Transaction, _) => Some(format!("\"{ID}/{name}\"")),
        (Direction::Probe | Direction::Child(_), _) => None,
        (Direction::Compensation(n), 0) => Some(format!("\"{ID}/{name}/undo/{n}\"")),
        (Direction::Compensation(n), round) => Some(format!("\"{ID}/{name}/undo/{n}/{round}\"")),
    };
    law(
        there.map(|key| &key[..]) == key.as_deref().map(str::as_bytes),
        || format!("{name}'s message has the key {there:?}, not {key:?}"),
    )?;
    match call.direction {
        Direction::Transaction => {
            law(!world.undoing, || {
                format!("{name} is done when the saga is being undone")
            })?;
            for before in &plan.steps[call.step.index()].after {
                let (_, _, view, truth) = each(world).nth(before.index()).unwrap();
                let done = truth.happened || truth.by_hand || view.state == StepState::Skipped;
                law(done, || format!("{name} is done before {}", view.name))?;
            }
            Ok(())
        }
        Direction::Probe => Ok(()),
        Direction::Compensation(n) => {
            in_order(world, call.step)?;
            undo(world, call.step, usize::from(n))
        }
        Direction::Child(_) => in_order(world, call.step),
    }
}

/// Something of a step is about to be undone.
fn in_order(world: &World, id: StepId) -> Result<(), Broken> {
    let name = name(id.index());
    for (other, step, view, truth) in each(world) {
        let may_come = world.scene.fenced && !truth.hanging.is_empty();
        let applied = step.kind == Kind::Pivot && (truth.happened || may_come);
        law(!applied || truth.late, || {
            format!(
                "{name} is undone, and the pivot {} is done or may yet be",
                view.name
            )
        })?;
        let out = matches!(view.undo, UndoState::Undone | UndoState::Stuck) || truth.by_hand || truth.late;
        let there = truth.is_there() || (world.scene.fenced && has_undo(step) && !truth.hanging.is_empty());
        let later = comes_after(&world.scene.plan, other, id);
        law(!(later && there) || out, || {
            format!("{name} is undone before {}, which came after it", view.name)
        })?;
    }
    Ok(())
}

fn undo(world: &World, id: StepId, n: usize) -> Result<(), Broken> {
    let (step, name) = (&world.scene.plan.steps[id.index()], name(id.index()));
    let truth = service::of(&world.services, id);
    law(step.kind == Kind::Compensatable, || {
        format!("{name} is undone, and can't be")
    })?;
    law(!truth.children.contains(&true), || {
        format!("{name} is undone before the sagas that were begun for it")
    })?;
    let known = truth.may_have || truth.late || world.crashed;
    law(known || step.compensate_when == CompensateWhen::Always, || {
        format!("{name} is undone, and was certainly not done")
    })?;
    let earlier = truth.parts[..n].contains(&true);
    law(!earlier || truth.late, || {
        format!("{name}'s compensation {n} comes before the one before it")
    })
}

fn has_undo(step: &Step) -> bool {
    step.kind == Kind::Compensatable && !step.compensations.is_empty()
}

/// The caller is about to be answered.
pub(super) fn replied(world: &World) -> Result<(), Broken> {
    law(world.saga.reply(&SECRETS).is_some(), || {
        "there is no reply".to_owned()
    })
}

/// A state, after each thing that happened.
pub(super) fn always(world: &World) -> Result<(), Broken> {
    let state = world.saga.state();
    let ended = matches!(state, SagaState::Committed | SagaState::Compensated);
    let waits = !world.is_idle() || ended || world.saga.is_paused() || state == SagaState::Stuck;
    law(waits, || {
        "the saga waits for nothing, and has not ended".to_owned()
    })?;
    if let Some(told) = world.told {
        let undone = world.is_revoked() && told == SagaState::Committed;
        law(state == told || undone, || {
            format!("the caller was told {told:?}, and now it is {state:?}")
        })?;
    }
    let undoing = matches!(state, SagaState::Compensated | SagaState::Compensating);
    for (_, step, view, truth) in each(world) {
        let why = || format!("{view:?}, but in truth {truth:?}");
        law(
            view.state != StepState::Applied || truth.happened || truth.by_hand,
            why,
        )?;
        law(view.state != StepState::Skipped || !truth.sent, why)?;
        let pivot = step.kind == Kind::Pivot && truth.happened && !truth.by_hand && !truth.late;
        law(!(pivot && undoing), || {
            format!("turned back behind the pivot: {}", why())
        })?;
        let (may_come, fenced) = (!truth.hanging.is_empty(), world.scene.fenced);
        if fenced {
            law(
                view.state != StepState::Refused || !truth.happened && !may_come,
                why,
            )?;
            law(
                view.undo != UndoState::Undone
                    || truth.by_hand
                    || !(truth.is_there() || may_come && has_undo(step)),
                why,
            )?;
        }
        law(view.undo != UndoState::Stuck || view.cause.is_some(), why)?;
    }
    if world.is_stuck() {
        stuck(world)?;
    }
    Ok(())
}

/// A saga that can't go on by itself: what it leaves behind is listed.
fn stuck(world: &World) -> Result<(), Broken> {
    let listed = each(world).any(|(_, _, view, _)| view.undo == UndoState::Stuck);
    law(listed, || "stuck, but no step is".to_owned())?;
    let forward = each(world).any(|(_, step, view, _)| {
        let applied = view.state == StepState::Applied && view.undo != UndoState::Stuck;
        // Nobody knows: what is before it may have to stay.
        let open = view.state == StepState::Running && view.undo == UndoState::Stuck;
        step.kind == Kind::Pivot && (applied || open)
    });
    for (_, step, view, truth) in each(world) {
        let hangs = has_undo(step) && truth.may_land(world.scene.fenced);
        let there = truth.is_there() || hangs;
        law(forward || !there || view.undo == UndoState::Stuck, || {
            format!("left behind unseen: {view:?}, {truth:?}")
        })?;
    }
    let lost = each(world).any(|(_, step, _, truth)| step.kind == Kind::Pivot && truth.late);
    law(!world.healed || lost, || {
        "stuck again although all is well now".to_owned()
    })
}

/// Nothing more will happen, but that what still hangs arrives.
pub(super) fn at_the_end(world: &World) -> Result<(), Broken> {
    let state = world.saga.state();
    world.check_journal()?;
    let pivot =
        each(world).any(|(_, step, _, truth)| step.kind == Kind::Pivot && (truth.happened || truth.by_hand));
    law(
        state != SagaState::Committed || !world.is_revoked() || pivot,
        || "the saga above undoes it, and it is committed".to_owned(),
    )?;
    for (_, step, view, truth) in each(world) {
        let mut truth = truth.clone();
        if world.scene.fenced && !truth.hanging.is_empty() {
            truth.land();
        }
        let why = || format!("{state:?}: {view:?}, but in truth {truth:?}");
        let done = view.state == StepState::Applied;
        if state == SagaState::Committed {
            law(done || view.state == StepState::Skipped, why)?;
            let all = truth.happened && truth.parts.iter().all(|part| *part);
            law(truth.by_hand || if done { all } else { !truth.happened }, why)?;
            law(
                truth.by_hand || !truth.children.contains(&false) || world.crashed,
                why,
            )?;
        } else {
            law(state == SagaState::Compensated, why)?;
            law(!truth.is_there(), || format!("left behind: {}", why()))?;
            let matters = has_undo(step) || step.kind == Kind::Pivot;
            law(!matters || truth.hanging.is_empty(), || {
                format!("it didn't wait for what may be heard yet: {}", why())
            })?;
            if !has_undo(step) && truth.happened && !truth.by_hand {
                law(step.kind == Kind::Compensatable, || {
                    format!("left behind: {}", why())
                })?;
                law(done || view.state == StepState::Unknown, || {
                    format!("left behind unseen: {}", why())
                })?;
            }
        }
    }
    Ok(())
}
