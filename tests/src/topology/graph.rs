//! The graph of a topology: who calls whom, from the root on, and who always refuses. Read from JSON, and checked; an error says what,
//! where, and how to mend it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A node of the network has so many pods.
const MOST_NODES: usize = 250;

/// Sagas nest no deeper.
const MOST_DEPTH: usize = 100;

/// Checked: all nodes are reached from the root, and nobody calls itself, however far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// Whose trigger begins it all.
    pub root: String,
    /// All of them, in the file's order.
    pub nodes: Vec<String>,
    /// Those that a node calls, in the file's order.
    pub calls: BTreeMap<String, Vec<String>>,
    /// Those that refuse whatever they are asked.
    pub bad: BTreeSet<String>,
    /// How many calls there are from the root to the farthest.
    pub depth: usize,
}

impl Graph {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, or is no such graph.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        match serde_json::from_str(&text) {
            Ok(value) => Self::of(&value).with_context(|| format!("{} is no topology", path.display())),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                bail!("{}:{line}:{column}: this is no JSON: {error}", path.display())
            }
        }
    }

    fn of(value: &Value) -> Result<Self> {
        let object = value.as_object().context(
            "it must be an object: {\"root\": NAME, \"nodes\": [NAME, …], \"edges\": [[FROM, TO], …], \"bad\": [NAME, …]}",
        )?;
        for key in object.keys() {
            ensure!(
                ["root", "nodes", "edges", "bad"].contains(&key.as_str()),
                "`{key}` is no key of it: it has `root`, `nodes`, `edges` and `bad`"
            );
        }
        let nodes = names(value, "nodes")?;
        ensure!(
            nodes.len() <= MOST_NODES,
            "it has {} nodes, and may have {MOST_NODES}",
            nodes.len()
        );
        let known: BTreeSet<&String> = nodes.iter().collect();
        ensure!(
            known.len() == nodes.len(),
            "`nodes`: {:?} is there twice",
            twice(&nodes)
        );
        let there = |name: &String, place: &str| {
            ensure!(
                known.contains(name),
                "{place}: there is no node {name:?}; the nodes are {}",
                nodes.join(", ")
            );
            Ok(())
        };
        let root = value
            .get("root")
            .and_then(Value::as_str)
            .context("`root` must name a node")?
            .to_owned();
        there(&root, "`root`")?;
        let bad = match value.get("bad") {
            None => Vec::new(),
            Some(_) => names(value, "bad")?,
        };
        for name in &bad {
            there(name, "`bad`")?;
        }
        let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let edges = value.get("edges").and_then(Value::as_array);
        for (place, edge) in edges.context("`edges` must be a list")?.iter().enumerate() {
            let place = format!("`edges`[{place}]");
            let (from, to) =
                ends(edge).with_context(|| format!("{place} must be [FROM, TO], and is {edge}"))?;
            there(&from, &place)?;
            there(&to, &place)?;
            let of = calls.entry(from).or_default();
            ensure!(!of.contains(&to), "{place}: this edge is there twice");
            of.push(to);
        }
        let mut graph = Self {
            bad: bad.into_iter().collect(),
            depth: 0,
            root,
            nodes,
            calls,
        };
        let mut reached = BTreeMap::new();
        graph.depth = graph.walk(&graph.root, &mut Vec::new(), &mut reached)?;
        if let Some(lost) = graph.nodes.iter().find(|name| !reached.contains_key(*name)) {
            bail!(
                "nobody calls {lost:?}: each node must be reached from the root, {:?}",
                graph.root
            );
        }
        ensure!(
            graph.calls.contains_key(&graph.root),
            "the root calls nobody: there is no saga"
        );
        Ok(graph)
    }

    /// Those that a node calls.
    #[must_use]
    pub fn called_by(&self, node: &str) -> &[String] {
        self.calls.get(node).map_or(&[], Vec::as_slice)
    }

    /// How deep it goes below `node`; an error if it comes round.
    fn walk(
        &self,
        node: &str,
        path: &mut Vec<String>,
        reached: &mut BTreeMap<String, usize>,
    ) -> Result<usize> {
        if let Some(place) = path.iter().position(|above| above == node) {
            let round: Vec<_> = path
                .iter()
                .skip(place)
                .map(String::as_str)
                .chain([node])
                .collect();
            bail!(
                "`edges`: {} is a cycle: take one of these edges out",
                round.join(" -> ")
            );
        }
        // Below what was walked there is no cycle.
        if let Some(depth) = reached.get(node) {
            return Ok(*depth);
        }
        ensure!(path.len() < MOST_DEPTH, "it is deeper than {MOST_DEPTH} calls");
        path.push(node.to_owned());
        let mut deepest = 0;
        for below in self.called_by(node) {
            deepest = deepest.max(self.walk(below, path, reached)? + 1);
        }
        path.pop();
        reached.insert(node.to_owned(), deepest);
        Ok(deepest)
    }
}

fn names(value: &Value, key: &str) -> Result<Vec<String>> {
    let list = value.get(key).and_then(Value::as_array);
    let list = list.with_context(|| format!("`{key}` must be a list of names"))?;
    list.iter()
        .enumerate()
        .map(|(place, name)| {
            let name = name
                .as_str()
                .with_context(|| format!("`{key}`[{place}] must be a name, and is {name}"))?;
            // It becomes a host's name, a pod's and a saga's.
            let plain = name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            let fits =
                matches!(name.len(), 1..=32) && plain && !name.starts_with('-') && !name.ends_with('-');
            ensure!(
                fits,
                "`{key}`[{place}]: {name:?} is no name: 1 to 32 of a-z, 0-9 and `-`"
            );
            Ok(name.to_owned())
        })
        .collect()
}

fn twice(names: &[String]) -> &str {
    let again = names
        .iter()
        .enumerate()
        .find(|(place, name)| names.iter().take(*place).any(|n| n == *name));
    again.map_or("", |(_, name)| name)
}

fn ends(edge: &Value) -> Option<(String, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match edge.as_array().map(Vec::as_slice) {
        Some([from, to]) => Some((text(from)?, text(to)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(value: &Value) -> String {
        format!("{:#}", Graph::of(value).unwrap_err())
    }

    #[test]
    fn the_papers_topologies_are_read() {
        let folder = crate::workspace().join("config/topologies");
        for (name, nodes, depth) in [
            ("1-to-4", 5, 1),
            ("1-to-2-each-to-1", 5, 2),
            ("1-to-9", 10, 1),
            ("1-to-3-each-to-2", 10, 2),
            ("1-to-5-each-to-1", 11, 2),
        ] {
            let graph = Graph::read(&folder.join(format!("{name}.json"))).unwrap();
            assert_eq!((graph.nodes.len(), graph.depth), (nodes, depth), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let with = |edges: Value| json!({ "root": "a", "nodes": ["a", "b", "c"], "edges": edges });
        for (value, said) in [
            (json!([]), "must be an object"),
            (json!({ "root": "a" }), "`nodes` must be a list"),
            (
                json!({ "root": "x", "nodes": ["a"], "edges": [] }),
                "`root`: there is no node \"x\"",
            ),
            (
                json!({ "root": "a", "nodes": ["a", "a"], "edges": [] }),
                "\"a\" is there twice",
            ),
            (
                json!({ "root": "a", "nodes": ["a", "B"], "edges": [] }),
                "`nodes`[1]: \"B\" is no name",
            ),
            (
                json!({ "root": "a", "nodes": ["a"], "edges": [] }),
                "calls nobody",
            ),
            (
                json!({ "root": "a", "nodes": ["a"], "edges": [], "evil": [] }),
                "`evil` is no key",
            ),
            (
                json!({ "root": "a", "nodes": ["a"], "edges": [], "bad": ["z"] }),
                "`bad`: there is no node \"z\"",
            ),
            (with(json!([["a", "b"]])), "nobody calls \"c\""),
            (with(json!([["a", "d"]])), "`edges`[0]: there is no node \"d\""),
            (with(json!([["a"]])), "`edges`[0] must be [FROM, TO]"),
            (
                with(json!([["a", "b"], ["b", "c"], ["c", "b"]])),
                "b -> c -> b is a cycle",
            ),
            (
                with(json!([["a", "b"], ["b", "c"], ["b", "a"]])),
                "a -> b -> a is a cycle",
            ),
            (with(json!([["a", "b"], ["a", "b"]])), "twice"),
        ] {
            let error = wrong(&value);
            assert!(error.contains(said), "{value}: {error}");
        }
    }

    #[test]
    fn what_is_no_json_has_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        fs::write(&path, "{\n  \"root\": nobody\n}").unwrap();
        let error = format!("{:#}", Graph::read(&path).unwrap_err());
        assert!(error.contains("x.json:2:12: this is no JSON"), "{error}");
    }
}
