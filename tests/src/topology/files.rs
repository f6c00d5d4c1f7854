//! The saga files of a topology: one for each node that calls others.

use super::graph::Graph;
use crate::world::PORT;
use std::fmt::Write;

/// Name and text of each.
#[must_use]
pub(super) fn of(graph: &Graph) -> Vec<(String, String)> {
    let callers = graph
        .nodes
        .iter()
        .filter(|node| !graph.called_by(node).is_empty());
    callers
        .map(|node| (node.clone(), text(node, graph.called_by(node))))
        .collect()
}

fn text(node: &str, below: &[String]) -> String {
    let mut text = format!(
        "# What {node} calls: all of it, or none.\nname = \"{node}\"\ntimeout = \"60s\"\n\n[trigger]\nmethod = \"POST\"\n\
         url = \"http://{node}.default.svc:{PORT}/all/{{id}}\"\n"
    );
    for name in below {
        let url = format!("http://{name}.default.svc:{PORT}/work/${{trigger.path.id}}");
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "\n[[step]]\nname = \"{name}\"\nrequest = {{ method = \"PUT\", url = \"{url}\" }}\ntimeout = \"50s\"\n\
             [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"{url}\" }}\n"
        );
    }
    text
}
