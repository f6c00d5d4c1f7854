//! docs/constructs.md has every key of a saga file, and every test that it names is there. And no key is there for nothing: without
//! it the saga is another one.

use super::saga_tests::WHOLE;
use super::{load_saga, saga_schema};
use crate::saga::Plan;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

const PAGE: &str = include_str!("../../../docs/constructs.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows of its tables that aren't headings: first cell, last cell.
fn rows() -> Vec<(&'static str, &'static str)> {
    let lines = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = lines.filter_map(|line| Some((line.split_once(" | ")?.0, line.rsplit_once(" | ")?.1)));
    cells
        .filter(|(first, _)| !matches!(*first, "key" | "what"))
        .collect()
}

#[test]
fn every_key_of_a_saga_file_has_its_row() {
    let schema = saga_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let tables = definitions.iter().map(|(name, table)| (name.as_str(), table));
    let mut missing = Vec::new();
    for (name, table) in tables.chain([("saga", &schema)]) {
        for key in table["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
        {
            let wanted = format!("`{name}.{key}`");
            if !rows().iter().any(|(first, _)| *first == wanted) {
                missing.push(wanted);
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_test_that_is_named_is_there() {
    let mut count = 0;
    for (what, tests) in rows() {
        assert!(tests.starts_with('['), "{what} has no test");
        for link in tests.split(", ") {
            let (name, path) = link
                .strip_prefix("[`")
                .unwrap()
                .strip_suffix(')')
                .unwrap()
                .split_once("`](../")
                .unwrap();
            let source =
                fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            let at = source
                .find(&format!("fn {name}("))
                .unwrap_or_else(|| panic!("{path} has no {name}"));
            // What is above it makes it a test: an attribute, or the macro of a property.
            let above = source[..at].lines().rev().take(6).collect::<Vec<_>>().concat();
            assert!(
                above.contains("#[test]") || above.contains("#[tokio::test"),
                "{path}: {name} is no test"
            );
            count += 1;
        }
    }
    assert!(count > 100, "{count} tests");
}

/// The keys that [`WHOLE`] can't have beside its others.
const OTHER: &str = r#"
name = "other"
order = "sequential"
durability = "none"
[trigger]
url = "http://trips/trips/{trip}"
body = "exactly"
[[step]]
name = "hotel"
when = [{ value = "${trigger.path.trip}", equals = "7" }]
request = { method = "PUT", url = "http://hotel/7" }
[[step.compensate]]
request = { method = "DELETE", url = "http://hotel/7" }
retry = { attempts = 3 }
[[step]]
name = "car"
request = { method = "PUT", url = "http://car/7" }
[reply.failure]
status = 409
body = "no"
"#;

/// Where a table of a saga file is: the keys and places that lead there.
type Way = Vec<Result<&'static str, usize>>;

/// All tables of a file that have a definition of their own in the schema, each with that definition's name.
fn tables(root: &Table) -> Vec<(&'static str, Way)> {
    let mut found = vec![("saga", Vec::new())];
    let mut at = 0;
    while let Some((kind, way)) = found.get(at).cloned() {
        at += 1;
        let below: &[(&'static str, &'static str)] = match kind {
            "saga" => &[("trigger", "trigger"), ("step", "step"), ("reply", "reply")],
            "step" => &[
                ("request", "request"),
                ("when", "condition"),
                ("success", "match"),
                ("refused", "match"),
                ("retry", "retry"),
                ("probe", "probe"),
                ("compensate", "compensation"),
            ],
            "probe" => &[
                ("request", "request"),
                ("applied", "match"),
                ("refused", "match"),
                ("retry", "retry"),
            ],
            "compensation" => &[("request", "request"), ("success", "match"), ("retry", "retry")],
            "reply" => &[("success", "answer"), ("failure", "answer")],
            _ => &[],
        };
        let mut copy = root.clone();
        let table = table(&mut copy, &way);
        for (key, kind) in below {
            let to = |rest: Option<usize>| {
                let key = std::iter::once(Ok(*key)).chain(rest.map(Err));
                way.iter().copied().chain(key).collect::<Way>()
            };
            match table.get(*key) {
                Some(Value::Table(_)) => found.push((*kind, to(None))),
                Some(Value::Array(all)) => found.extend((0..all.len()).map(|at| (*kind, to(Some(at))))),
                _ => {}
            }
        }
    }
    found
}

fn table<'a>(root: &'a mut Table, way: &Way) -> &'a mut Table {
    let (first, rest) = match way.as_slice() {
        [] => return root,
        [Ok(first), rest @ ..] => (root.get_mut(*first).unwrap(), rest),
        _ => panic!("{way:?}"),
    };
    let end = rest.iter().fold(first, |value, step| match step {
        Ok(key) => &mut value[*key],
        Err(at) => &mut value[*at],
    });
    end.as_table_mut().unwrap()
}

/// `None`: it is none any more.
fn load(root: &Table) -> Option<Plan> {
    let text = toml::to_string(root).unwrap();
    load_saga(&text, "a.toml").ok().map(|(plan, _)| plan)
}

/// A loader that doesn't heed a key gives the same with it and without.
#[test]
fn without_any_of_its_keys_a_saga_is_another_one() {
    let schema = saga_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    // Without it the file is none, whether it is heeded or not; where it is not heeded, nor is the whole one.
    let needed = |kind: &str, key: &str| {
        let table = definitions.get(kind).unwrap_or(&schema);
        let required = table["required"].as_array().into_iter().flatten();
        kind == "condition" || required.into_iter().any(|required| required == key)
    };
    let mut matters: BTreeSet<String> = BTreeSet::new();
    for text in [WHOLE, OTHER] {
        let root: Table = text.parse().unwrap();
        let whole = load(&root).expect("it is fit to run");
        for (kind, way) in tables(&root) {
            let mut copy = root.clone();
            let keys: Vec<String> = table(&mut copy, &way).keys().cloned().collect();
            for key in keys {
                let mut less = root.clone();
                let changed = table(&mut less, &way);
                match key.as_str() {
                    // It is alone in its table, which may not be empty.
                    "from" => changed.insert(key.clone(), Value::from("hotel")),
                    key => changed.remove(key),
                };
                let differs = load(&less).map_or(needed(kind, &key), |plan| plan != whole);
                if differs {
                    matters.insert(format!("{kind}.{key}"));
                }
            }
        }
    }
    let tables = definitions.iter().map(|(name, table)| (name.as_str(), table));
    let keys = tables.chain([("saga", &schema)]).flat_map(|(name, table)| {
        let keys = table["properties"].as_object().into_iter().flatten();
        keys.map(move |(key, _)| format!("{name}.{key}"))
    });
    assert_eq!(matters, keys.collect::<BTreeSet<_>>());
}
