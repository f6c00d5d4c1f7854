//! What a pod's labels and annotations ask for.

use super::object::Pod;
use crate::config::Kubernetes;
use crate::intercept::{Ports, Rule};
use std::collections::{BTreeMap, BTreeSet};

/// `"false"`: the pod is left alone, whatever its labels say.
pub(super) const CAPTURE: &str = "qbox.dev/capture";
/// Ports with commas in between: of the pod's connections only those to them are captured.
pub(super) const PORTS: &str = "qbox.dev/ports";
/// Likewise: all but those to them.
pub(super) const EXCEPT_PORTS: &str = "qbox.dev/except-ports";
/// The most ports that an annotation may name.
const MOST_PORTS: usize = 64;

/// What holds for a pod as far as it says so itself, and why. Whether its namespace's labels fit is another question.
pub(super) fn of(pod: &Pod, settings: &Kubernetes) -> (Rule, String) {
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let Some(selector) = &settings.enroll else {
        return (Rule::Out, "no selector is set".to_owned());
    };
    if !selector.matches(labels) {
        return (Rule::Out, format!("its labels don't fit {selector}"));
    }
    let namespace = &pod.metadata.namespace;
    if !settings.namespaces.is_empty() && !settings.namespaces.contains(namespace) {
        return (Rule::Out, format!("the namespace {namespace} is not enrolled"));
    }
    match pod.metadata.annotation(CAPTURE) {
        None | Some("true") => {}
        Some("false") => return (Rule::Out, format!("its annotation {CAPTURE} is \"false\"")),
        Some(_) => {
            let why = format!("its annotation {CAPTURE} is neither \"true\" nor \"false\"");
            return (Rule::Wrong, why);
        }
    }
    match ports(pod) {
        Ok(ports) => (Rule::In(ports), format!("its labels fit {selector}")),
        Err(why) => (Rule::Wrong, why),
    }
}

fn ports(pod: &Pod) -> Result<Ports, String> {
    let read = |name: &str| -> Result<Option<BTreeSet<u16>>, String> {
        let Some(text) = pod.metadata.annotation(name) else {
            return Ok(None);
        };
        let ports: BTreeSet<u16> = text
            .split(',')
            .map(|port| port.trim().parse::<u16>().ok().filter(|port| *port != 0))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("its annotation {name} is no list of ports"))?;
        match ports.len() <= MOST_PORTS {
            true => Ok(Some(ports)),
            false => Err(format!("its annotation {name} has more than {MOST_PORTS} ports")),
        }
    };
    match (read(PORTS)?, read(EXCEPT_PORTS)?) {
        (None, None) => Ok(Ports::All),
        (Some(only), None) => Ok(Ports::Only(only)),
        (None, Some(except)) => Ok(Ports::Except(except)),
        (Some(_), Some(_)) => Err(format!(
            "its annotations {PORTS} and {EXCEPT_PORTS} exclude one another"
        )),
    }
}
