//! What interception asks of pods, answered by what the API has told.

use super::api::Api;
use super::cgroup::pod_of;
use super::roster::Standing;
use crate::intercept::{Policy, Ports, Rule, Verdict};
use std::path::Path;
use std::sync::Arc;

/// The node's pods: all of them, without the API; else those that it says are in.
#[derive(Debug)]
pub struct Pods {
    api: Option<Arc<Api>>,
}

impl Pods {
    /// All pods, known by their UIDs alone.
    #[must_use]
    pub fn all() -> Self {
        Self { api: None }
    }

    /// Those that the API says are in.
    #[must_use]
    pub fn told_by(api: Arc<Api>) -> Self {
        Self { api: Some(api) }
    }
}

impl Policy for Pods {
    fn is_selective(&self) -> bool {
        self.api.is_some()
    }

    fn of(&self, cgroup: &Path) -> Option<Verdict> {
        let (uid, depth) = pod_of(cgroup)?;
        let standing = match &self.api {
            Some(api) => api.of(&uid),
            None => Standing {
                name: format!("pod-{uid}"),
                rule: Rule::In(Ports::All),
                why: "all pods are".to_owned(),
                on_node: true,
            },
        };
        Some(Verdict {
            depth,
            name: standing.name,
            rule: standing.rule,
            why: standing.why,
            on_node: standing.on_node,
        })
    }
}
