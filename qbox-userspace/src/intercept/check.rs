//! The capture's check of itself: is each enrolled pod truly captured?
//!
//! It asks the kernel, for each pod: do our programs run for the pod's own cgroup (with what others have attached or
//! detached since), is another's before them, and does the programs' map still turn the pod's namespace to our listeners? It makes no connection from
//! inside the pod: that would take a process of Qbox's in the pod's cgroup. What this can't see is named in
//! docs/interception.md.

use super::capture::Shared;
use super::chain::{self, Chains};
use super::entry::Enrolled;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Between two checks. What is amiss is to be known within 30 s.
const INTERVAL: Duration = Duration::from_secs(10);

/// Runs until it is dropped. `own` are our programs' ids.
pub(super) async fn check(shared: Arc<Shared>, own: BTreeSet<u32>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (shared, own) = (Arc::clone(&shared), own.clone());
        // It fails only when the runtime stops.
        drop(tokio::task::spawn_blocking(move || once(&shared, &own)).await);
    }
}

/// Checks every pod, and then how full the maps are. The pods are locked for one at a time.
fn once(shared: &Shared, own: &BTreeSet<u32>) {
    let enrolled = shared.pods().enrolled();
    for pod in enrolled {
        let Enrolled { cgroup, .. } = &pod;
        let Chains { missing, before } = match chain::look(cgroup, own) {
            Ok(chains) => chains,
            // The pod has gone, or lives in another cgroup by now, which the next look tells.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::debug!(cgroup = %cgroup.display(), %error, "can't ask which programs run for a cgroup");
                continue;
            }
        };
        let fault = (!missing.is_empty())
            .then(|| format!("qbox's {} no longer run for its cgroup", missing.join(", ")));
        shared.pods().checked(&pod, fault, before);
    }
    shared.fill.count(shared);
}
