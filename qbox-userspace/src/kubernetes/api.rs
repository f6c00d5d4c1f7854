//! The API, followed for as long as this lives.

use super::client::{Place, StartError};
use super::follow::{Subject, follow};
use super::link::{Counts, Link};
use super::object::{Namespace, Pod};
use super::roster::{Roster, Standing};
use crate::config::Kubernetes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// For how long the API may not answer before that is amiss: it is restarted now and then.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the API tells. Dropped, it is asked no more.
pub struct Api {
    place: Place,
    selector: String,
    roster: Arc<Roster>,
    links: Vec<Arc<Link>>,
    tasks: Vec<AbortHandle>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// How it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The node's name.
    pub node: String,
    /// What pods are asked to have.
    pub enroll: String,
    /// All has been listed once.
    pub listed: bool,
    /// For how long the API has not answered, and why.
    pub away: Option<(Duration, String)>,
    /// Pods of the node, as it has told.
    pub pods: usize,
    /// How many of them are enrolled.
    pub enrolled: usize,
    /// What has happened.
    pub counts: Counts,
}

impl Health {
    /// What a node with it is not ready for, if it isn't.
    #[must_use]
    pub fn amiss(&self) -> Option<String> {
        match &self.away {
            Some((time, why)) if !self.listed || *time > PATIENCE => Some(format!(
                "the Kubernetes API has not told of pods for {} s ({why}): what was known stays, new pods wait",
                time.as_secs()
            )),
            _ if !self.listed => Some("the Kubernetes API has not told of pods yet".to_owned()),
            _ => None,
        }
    }
}

impl Api {
    /// Begins to ask, inside a tokio runtime.
    ///
    /// # Errors
    /// What it takes isn't there. An API that doesn't answer is no error: it may yet.
    pub fn start(place: Place, settings: &Kubernetes) -> Result<Self, StartError> {
        let client = place.client()?;
        let roster = Arc::new(Roster::new(settings.clone()));
        let selector = settings.enroll.as_ref().map(ToString::to_string);
        let mut api = Self {
            selector: selector.unwrap_or_default(),
            roster,
            links: Vec::new(),
            tasks: Vec::new(),
            place,
        };
        let of_node = Subject {
            path: "/api/v1/pods",
            fields: Some(format!("spec.nodeName={}", api.place.node)),
        };
        let (roster, link) = api.link("pods");
        let (asked, of) = (client.clone(), of_node);
        let task = tokio::spawn(async move {
            follow::<Pod>(asked, of, &*roster, &link).await;
        });
        api.tasks.push(task.abort_handle());
        if settings.namespace_selector.is_some() {
            let all = Subject {
                path: "/api/v1/namespaces",
                fields: None,
            };
            let (roster, link) = api.link("namespaces");
            let task = tokio::spawn(async move {
                follow::<Namespace>(client, all, &*roster, &link).await;
            });
            api.tasks.push(task.abort_handle());
        }
        Ok(api)
    }

    fn link(&mut self, what: &'static str) -> (Arc<Roster>, Arc<Link>) {
        let link = Arc::new(Link::new(what));
        self.links.push(Arc::clone(&link));
        (Arc::clone(&self.roster), link)
    }

    /// Waits until all has been listed once, or for so long; whether it has.
    pub async fn listed(&self, patience: Duration) -> bool {
        let mut changes = self.roster.changes();
        let listed = async {
            while !self.roster.is_listed() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(patience, listed).await.is_ok()
    }

    /// Tells of each change of what holds for pods.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.roster.changes()
    }

    /// What holds for the pod with this UID.
    pub(super) fn of(&self, uid: &str) -> Standing {
        self.roster.of(uid)
    }

    /// How it goes.
    #[must_use]
    pub fn health(&self) -> Health {
        let (pods, enrolled) = self.roster.count();
        let away = self.links.iter().filter_map(|link| link.away());
        let counts = self.links.iter().map(|link| link.counts());
        Health {
            node: self.place.node.clone(),
            enroll: self.selector.clone(),
            listed: self.roster.is_listed(),
            away: away.max_by_key(|(time, _)| *time),
            pods,
            enrolled,
            counts: counts.fold(Counts::default(), Counts::and),
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
