//! The schema is current, has the keys that the readers ask for, and finds right what is right.

use super::saga_schema;
use crate::config::{Code, load_saga};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let sagas = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    sagas
        .filter_map(|path| Some((path.clone(), fs::read_to_string(&path).ok()?)))
        .collect()
}

/// Whether the value is as the schema says, in all but patterns. A keyword that is not known here fails the test: a library for all of it
/// would bring more crates to build than Qbox itself has.
fn fits(document: &Value, schema: &Value, value: &Value) -> bool {
    schema
        .as_object()
        .unwrap()
        .iter()
        .all(|(keyword, argument)| match keyword.as_str() {
            "$ref" => {
                let target = argument.as_str().unwrap().strip_prefix('#').unwrap();
                fits(document, document.pointer(target).unwrap(), value)
            }
            "type" => match argument.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64(),
                "boolean" => value.is_boolean(),
                other => panic!("the type {other}"),
            },
            "enum" => argument.as_array().unwrap().contains(value),
            "const" => argument == value,
            "anyOf" => argument
                .as_array()
                .unwrap()
                .iter()
                .any(|one| fits(document, one, value)),
            "minimum" => value
                .as_i64()
                .is_none_or(|number| number >= argument.as_i64().unwrap()),
            "maximum" => value
                .as_i64()
                .is_none_or(|number| number <= argument.as_i64().unwrap()),
            "minItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 >= argument.as_u64().unwrap()),
            "maxItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 <= argument.as_u64().unwrap()),
            "items" => value
                .as_array()
                .into_iter()
                .flatten()
                .all(|item| fits(document, argument, item)),
            "required" => value.as_object().is_none_or(|map| {
                argument
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|key| map.contains_key(key.as_str().unwrap()))
            }),
            "properties" => value
                .as_object()
                .into_iter()
                .flatten()
                .all(|(key, item)| argument.get(key).is_none_or(|one| fits(document, one, item))),
            "additionalProperties" => value.as_object().into_iter().flatten().all(|(key, item)| {
                let known = schema
                    .get("properties")
                    .is_some_and(|properties| properties.get(key).is_some());
                known
                    || argument
                        .as_bool()
                        .unwrap_or_else(|| fits(document, argument, item))
            }),
            "pattern" | "description" | "title" | "$schema" | "$id" | "$defs" => true,
            other => panic!("the keyword {other}"),
        })
}

#[test]
fn the_file_is_current() {
    let path = root().join("config/saga.schema.json");
    let file = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        file,
        format!("{:#}\n", saga_schema()),
        "write it anew: qbox schema > config/saga.schema.json"
    );
}

#[test]
fn what_is_fit_to_run_is_valid() {
    let schema = saga_schema();
    let mut count = 0;
    for folder in ["config/sagas", "config/examples", "tests/src/chaos/sagas"] {
        for (path, text) in files(folder) {
            let document: Value = toml::from_str(&text).unwrap();
            assert!(fits(&schema, &schema, &document), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 12, "{count} files");
}

/// Files whose mistake is one of keys, types or words.
#[test]
fn mistakes_of_keys_types_and_words_are_found() {
    let schema = saga_schema();
    let mut count = 0;
    for (path, text) in files("config/invalid") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let found = load_saga(&text, name).err().unwrap_or_default();
        let plain = [Code::UnknownKey, Code::MissingKey, Code::WrongType, Code::Choice];
        let Ok(document) = toml::from_str::<Value>(&text) else {
            continue;
        };
        // A condition without a test lacks one key of three; a date is no JSON, which a schema sees as text.
        if name.starts_with("qbox-")
            || ["when-without-test.toml", "json-date.toml"].contains(&name)
            || !found.iter().any(|finding| plain.contains(&finding.code))
        {
            continue;
        }
        assert!(!fits(&schema, &schema, &document), "{name}");
        count += 1;
    }
    assert!(count >= 12, "{count} files");
}

/// What each table is asked for, as the finding of a key that no table has lists it.
#[test]
fn the_keys_are_those_that_are_read() {
    let trigger = "[trigger]\nurl = \"http://a/\"\n";
    let get = "method = \"GET\", url = \"http://a/\"";
    let step = format!("[[step]]\nname = \"a\"\nrequest = {{ {get} }}\n");
    let saga = format!("name = \"a\"\n{trigger}{step}");
    let at = |line: &str| format!("{saga}{line}\n");
    let texts = [
        ("saga", format!("\"?\" = 1\n{saga}")),
        ("trigger", saga.replace(trigger, &format!("{trigger}\"?\" = 1\n"))),
        ("step", at("\"?\" = 1")),
        ("request", saga.replace(get, &format!("{get}, \"?\" = 1"))),
        (
            "condition",
            at("when = [{ value = \"a\", present = true, \"?\" = 1 }]"),
        ),
        ("match", at("success = [{ status = 200, \"?\" = 1 }]")),
        ("retry", at("retry = { attempts = 2, \"?\" = 1 }")),
        (
            "probe",
            at(&format!("probe = {{ request = {{ {get} }}, \"?\" = 1 }}")),
        ),
        (
            "compensation",
            at(&format!("compensate = [{{ request = {{ {get} }}, \"?\" = 1 }}]")),
        ),
        ("reply", at("[reply]\n\"?\" = 1")),
        ("answer", at("[reply.success]\nstatus = 200\n\"?\" = 1")),
    ];
    let schema = saga_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    assert_eq!(definitions.len(), texts.len(), "`send` is in the place of `saga`");
    for (name, text) in texts {
        let found = load_saga(&text, "a.toml").unwrap_err();
        let finding = found
            .iter()
            .find(|finding| finding.code == Code::UnknownKey)
            .unwrap();
        let mut read: Vec<&str> = finding
            .help
            .strip_prefix("known here: ")
            .unwrap()
            .split(", ")
            .map(|key| key.trim_matches('`'))
            .collect();
        let of = if name == "saga" {
            &schema
        } else {
            &definitions[name]
        };
        let mut written: Vec<&str> = of["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        read.sort_unstable();
        read.dedup();
        written.sort_unstable();
        assert_eq!(read, written, "{name}");
    }
}
