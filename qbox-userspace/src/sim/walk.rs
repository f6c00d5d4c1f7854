//! The walk itself: depth first through all that can happen, each state once.

use super::plans::Scene;
use super::world::{Act, Broken, Budget, World};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// What a walk has seen.
#[derive(Default)]
pub(super) struct Walked {
    /// Different states.
    pub(super) states: u64,
    /// Things that happened, those too that led to a state known already.
    pub(super) acts: u64,
    /// States from which nothing more happens.
    pub(super) ends: u64,
    /// What is not as promised.
    pub(super) violation: Option<Violation>,
}

/// A run that breaks a promise.
pub(super) struct Violation {
    /// Which of the possible acts happened, one after the other.
    pub(super) path: Vec<usize>,
    /// What is broken.
    pub(super) what: Broken,
}

/// How many acts a shorter run that breaks a promise is looked for.
const PATIENCE: u64 = 2_000_000;

/// More acts than any run needs: the world gives out no more than its budget, so one that goes on for so long goes round in circles.
const LONGEST: usize = 1_000;

struct Frame {
    world: World,
    acts: Vec<Act>,
    next: usize,
}

/// Everything that can happen in this scene; ends with the first violation.
pub(super) fn all(scene: &Rc<Scene>, budget: Budget) -> Walked {
    let mut walked = bounded(scene, budget, usize::MAX, u64::MAX);
    if let Some(found) = &walked.violation {
        // Depth first finds any one. A short one is easier to read, if it is found soon.
        let longest = found.path.len();
        let mut patience = PATIENCE;
        for most in 1..longest {
            let shorter = bounded(scene, budget, most, patience);
            patience = patience.saturating_sub(shorter.acts);
            if shorter.violation.is_some() {
                walked.violation = shorter.violation;
                break;
            }
        }
    }
    walked
}

/// The same, but no run goes on after `most` acts, and all together not after `patience`.
fn bounded(scene: &Rc<Scene>, budget: Budget, most: usize, patience: u64) -> Walked {
    let mut walked = Walked::default();
    // With how many acts each state was reached: reached with fewer, it is gone on from again.
    let mut known: HashMap<u64, usize> = HashMap::new();
    let mut frames: Vec<Frame> = Vec::new();
    match guarded(|| World::new(scene, budget).map(Some)) {
        Ok(world) => frames.extend(world.map(frame)),
        Err(what) => {
            walked.violation = Some(Violation {
                path: Vec::new(),
                what,
            })
        }
    }
    while let Some(top) = frames.last_mut().filter(|_| walked.acts < patience) {
        let Some(act) = top.acts.get(top.next) else {
            frames.pop();
            continue;
        };
        top.next += 1;
        walked.acts += 1;
        match guarded(|| top.world.after(act)) {
            Ok(None) => {}
            Ok(Some(world)) => {
                let depth = frames.len();
                let before = known.insert(world.fingerprint(), depth);
                match before {
                    None => walked.states += 1,
                    Some(before) if before <= depth || most == usize::MAX => {
                        known.insert(world.fingerprint(), before.min(depth));
                        continue;
                    }
                    Some(_) => {}
                }
                if depth >= LONGEST {
                    let path = frames.iter().map(|frame| frame.next - 1).collect();
                    let what = format!("it has not ended after {LONGEST} acts");
                    walked.violation = Some(Violation { path, what });
                    break;
                }
                let next = frame(world);
                if next.acts.is_empty() {
                    walked.ends += 1;
                } else if depth < most {
                    frames.push(next);
                }
            }
            Err(what) => {
                let path = frames.iter().map(|frame| frame.next - 1).collect();
                walked.violation = Some(Violation { path, what });
                break;
            }
        }
    }
    walked
}

fn frame(world: World) -> Frame {
    let acts = world.acts();
    Frame { world, acts, next: 0 }
}

/// A panic is a violation too.
fn guarded<T>(work: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    })
}
