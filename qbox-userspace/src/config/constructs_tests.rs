//! docs/constructs.md has every key of a saga file, and every test that it names is there.

use super::saga_schema;
use std::fs;
use std::path::{Path, PathBuf};

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
