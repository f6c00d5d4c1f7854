//! What the API has told: the node's pods by UID, and namespaces. Knows no API and no cgroup.

use super::object::{Namespace, Object, Pod};
use super::rule;
use crate::config::{Kubernetes, Unlisted};
use crate::intercept::{Ports, Rule};
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// Kubelet's own name for a pod that it has from a file, in the annotations of the API's copy: its cgroup is named after that.
const FILE_HASH: &str = "kubernetes.io/config.hash";
/// The most pods and namespaces that are kept.
const MOST: usize = 16_384;

/// What was told.
pub(super) struct Roster {
    settings: Kubernetes,
    told: RwLock<Told>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Told {
    /// By UID.
    pods: HashMap<String, Entry>,
    /// From a file's hash to the UID.
    files: HashMap<String, String>,
    /// Whether a namespace's labels fit, by its name.
    namespaces: HashMap<String, bool>,
    pods_listed: bool,
    namespaces_listed: bool,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    namespace: String,
    name: String,
    hash: Option<String>,
    rule: Rule,
    why: String,
    on_node: bool,
}

/// What holds for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// `namespace/name`.
    pub(super) name: String,
    pub(super) rule: Rule,
    pub(super) why: String,
    /// It is on the node's network.
    pub(super) on_node: bool,
}

/// Where what is listed and watched goes.
pub(super) trait Keep<K>: Send + Sync {
    /// These are all.
    fn replace(&self, all: Vec<K>);
    /// This is new, or has changed.
    fn apply(&self, one: K);
    /// This has gone.
    fn delete(&self, one: &K);
}

impl Roster {
    pub(super) fn new(settings: Kubernetes) -> Self {
        Self {
            settings,
            told: RwLock::default(),
            changed: watch::Sender::new(0),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Told> {
        self.told.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Told> {
        self.told.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn has_changed(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whether all that is needed has been listed once.
    pub(super) fn is_listed(&self) -> bool {
        let told = self.read();
        told.pods_listed && (told.namespaces_listed || self.settings.namespace_selector.is_none())
    }

    /// How many pods there are, and how many of them are in.
    pub(super) fn count(&self) -> (usize, usize) {
        let told = self.read();
        let is_in = |entry: &&Entry| matches!(self.standing(&told, entry).rule, Rule::In(_));
        (told.pods.len(), told.pods.values().filter(is_in).count())
    }

    /// What holds for the pod with this UID, or this file's hash.
    pub(super) fn of(&self, uid: &str) -> Standing {
        let told = self.read();
        let found = told.pods.get(uid).or_else(|| told.pods.get(told.files.get(uid)?));
        match found {
            Some(entry) => self.standing(&told, entry),
            None => {
                let rule = match self.settings.unlisted {
                    Unlisted::Wait => Rule::Unknown,
                    Unlisted::Capture => Rule::In(Ports::All),
                };
                Standing {
                    name: format!("pod-{uid}"),
                    rule,
                    why: "the Kubernetes API has not told of it".to_owned(),
                    on_node: true,
                }
            }
        }
    }

    fn standing(&self, told: &Told, entry: &Entry) -> Standing {
        let Entry {
            namespace,
            name,
            rule,
            why,
            on_node,
            ..
        } = entry;
        let (mut rule, mut why) = (rule.clone(), why.clone());
        if let (Rule::In(_), Some(selector)) = (&rule, &self.settings.namespace_selector) {
            match told.namespaces.get(namespace) {
                Some(true) => {}
                Some(false) => {
                    (rule, why) = (
                        Rule::Out,
                        format!("the labels of its namespace don't fit {selector}"),
                    );
                }
                None => {
                    (rule, why) = (
                        Rule::Unknown,
                        "the Kubernetes API has not told of its namespace".to_owned(),
                    )
                }
            }
        }
        Standing {
            name: format!("{namespace}/{name}"),
            rule,
            why,
            on_node: *on_node,
        }
    }

    fn entry(&self, pod: &Pod) -> Entry {
        let (rule, why) = rule::of(pod, &self.settings);
        Entry {
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            hash: pod.metadata.annotation(FILE_HASH).map(str::to_owned),
            rule,
            why,
            on_node: pod.spec.host_network,
        }
    }

    fn fits(&self, namespace: &Namespace) -> bool {
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        let selector = self.settings.namespace_selector.as_ref();
        selector.is_none_or(|selector| selector.matches(&labels))
    }
}

impl Told {
    /// Whether that changed anything.
    fn keep(&mut self, uid: &str, entry: Entry) -> bool {
        let before = self.pods.get(uid);
        if before == Some(&entry) || (before.is_none() && self.pods.len() >= MOST) {
            return false;
        }
        if let Some(hash) = &entry.hash {
            self.files.insert(hash.clone(), uid.to_owned());
        }
        self.pods.insert(uid.to_owned(), entry);
        true
    }
}

impl Keep<Pod> for Roster {
    fn replace(&self, all: Vec<Pod>) {
        let mut new = Told::default();
        for pod in &all {
            new.keep(&pod.metadata.uid, self.entry(pod));
        }
        let mut told = self.write();
        let same = told.pods_listed && told.pods == new.pods;
        told.pods = new.pods;
        told.files = new.files;
        told.pods_listed = true;
        drop(told);
        if !same {
            self.has_changed();
        }
    }

    fn apply(&self, pod: Pod) {
        let entry = self.entry(&pod);
        if self.write().keep(&pod.metadata.uid, entry) {
            self.has_changed();
        }
    }

    fn delete(&self, pod: &Pod) {
        let mut told = self.write();
        let Some(entry) = told.pods.remove(&pod.metadata.uid) else {
            return;
        };
        // The file's next pod may have been told of already.
        if let Some(hash) = entry.hash
            && told.files.get(&hash) == Some(&pod.metadata.uid)
        {
            told.files.remove(&hash);
        }
        drop(told);
        self.has_changed();
    }
}

impl Keep<Namespace> for Roster {
    fn replace(&self, all: Vec<Namespace>) {
        let fit = |one: &Namespace| (one.metadata().name.clone(), self.fits(one));
        let new: HashMap<String, bool> = all.iter().take(MOST).map(fit).collect();
        let mut told = self.write();
        let same = told.namespaces_listed && told.namespaces == new;
        told.namespaces = new;
        told.namespaces_listed = true;
        drop(told);
        if !same {
            self.has_changed();
        }
    }

    fn apply(&self, namespace: Namespace) {
        let fits = self.fits(&namespace);
        let mut told = self.write();
        let full = told.namespaces.len() >= MOST;
        let name = namespace.metadata.name;
        let before = told.namespaces.get(&name).copied();
        if before == Some(fits) || (before.is_none() && full) {
            return;
        }
        told.namespaces.insert(name, fits);
        drop(told);
        self.has_changed();
    }

    fn delete(&self, namespace: &Namespace) {
        let gone = self.write().namespaces.remove(&namespace.metadata.name);
        if gone.is_some() {
            self.has_changed();
        }
    }
}
