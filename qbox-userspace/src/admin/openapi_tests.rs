//! docs/openapi.json against the API itself: the same routes, and answers that are what it says they are.

use super::schema_tests::errors;
use super::tests::{exchange, node, node_with, refused, start};
use super::*;
use crate::observe::{Answer, Sighting};
use crate::runner::testing::{self, Act, Service, plan, runner, trigger};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap()
}

/// Holds an answer to a schema of the document.
fn check(schema: &Value, answer: &Value) {
    let errors = errors(&document(), schema, answer);
    assert!(errors.is_empty(), "{errors:#?}");
}

/// Holds a value to the schema of that name.
pub(super) fn check_component(name: &str, value: &Value) {
    check(&json!({ "$ref": format!("#/components/schemas/{name}") }), value);
}

/// An operation of the document that `path` (without its query) belongs to.
fn operation(document: &Value, method: &str, path: &str) -> Value {
    let matches = |pattern: &str| {
        let (mut left, mut right) = (pattern.split('/'), path.split('/'));
        loop {
            match (left.next(), right.next()) {
                (None, None) => return true,
                (Some(pattern), Some(_)) if pattern.starts_with('{') => {}
                (Some(pattern), Some(word)) if pattern == word => {}
                _ => return false,
            }
        }
    };
    let paths = document["paths"].as_object().unwrap();
    // One without a parameter goes first.
    let mut fitting: Vec<_> = paths.iter().filter(|(pattern, _)| matches(pattern)).collect();
    fitting.sort_by_key(|(pattern, _)| pattern.matches('{').count());
    let (_, item) = fitting
        .first()
        .unwrap_or_else(|| panic!("{path} isn't documented"));
    item.get(method)
        .unwrap_or_else(|| panic!("{method} {path} isn't documented"))
        .clone()
}

/// Asks, and holds the answer to the document: its status, its type, its shape.
fn ask(admin: &Admin, method: &str, target: &str, body: &str) -> (u16, Value) {
    let (status, head, text) = exchange(admin, method, target, body);
    let document = document();
    let (path, _) = target.split_once('?').unwrap_or((target, ""));
    let operation = operation(&document, &method.to_lowercase(), path);
    let mut response = &operation["responses"][status.to_string()];
    if let Some(place) = response["$ref"].as_str() {
        response = document.pointer(place.trim_start_matches('#')).unwrap();
    }
    assert!(
        response.is_object(),
        "{method} {target}: {status} isn't documented: {text}"
    );
    let kind = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "))
        .unwrap();
    let content = response["content"].as_object().unwrap();
    let found = content.iter().find(|(name, _)| kind.starts_with(name.as_str()));
    let (name, media) = found.unwrap_or_else(|| panic!("{method} {target}: {kind} isn't documented"));
    let value = match name.contains("json") {
        true if name.contains("ndjson") => {
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            let lines: Vec<Value> = lines.collect();
            lines.iter().for_each(|line| check(&media["schema"], line));
            Value::Array(lines)
        }
        true => {
            let value = serde_json::from_str(&text).unwrap();
            check(&media["schema"], &value);
            value
        }
        false => Value::String(text),
    };
    (status, value)
}

#[tokio::test]
async fn the_routes_and_the_document_agree() {
    let (admin, _folder) = start(&runner(), node());
    let document = document();
    let documented: BTreeMap<String, BTreeSet<String>> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            (
                path.clone(),
                methods.map(|method| method.to_uppercase()).collect(),
            )
        })
        .collect();
    let routed = super::routes::all().into_iter().map(|(path, _)| {
        let (status, head, _) = exchange(&admin, "DELETE", &path.replace(['{', '}'], ""), "");
        assert_eq!(status, 405, "{path}");
        let allow = head
            .lines()
            .find_map(|line| line.strip_prefix("allow: "))
            .unwrap();
        let methods = allow.split(',').map(str::trim).filter(|method| *method != "HEAD");
        (path.to_owned(), methods.map(str::to_owned).collect())
    });
    assert_eq!(routed.collect::<BTreeMap<_, BTreeSet<_>>>(), documented);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let (_, served) = ask(&admin, "GET", "/api/v1/openapi.json", "");
    assert_eq!(served, document);
}

#[test]
fn the_document_names_nothing_that_is_not_there() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut named = BTreeSet::new();
    references(&document, &mut named);
    for place in &named {
        assert!(
            document.pointer(place.trim_start_matches('#')).is_some(),
            "{place}"
        );
    }
    let mut operations = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(operations.insert(id), "{id} twice");
        }
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(
            named.contains(&format!("#/components/schemas/{name}")),
            "{name} is used nowhere"
        );
    }
    // The enumerations are those of the code.
    let words = |schema: &str, place: &str| -> BTreeSet<String> {
        let words = document
            .pointer(&format!("/components/schemas/{schema}{place}/enum"))
            .unwrap();
        words
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    let states = crate::runner::State::ALL.map(|state| state.as_str().to_owned());
    assert_eq!(words("State", ""), BTreeSet::from(states));
    let actions = crate::runner::Action::ALL.map(|action| action.as_str().to_owned());
    assert_eq!(words("Event", "/properties/action"), BTreeSet::from(actions));
}

#[tokio::test]
async fn answers_are_what_the_document_says() {
    let (refused, _services) = refused().await;
    let stubborn = Service::start(|asked| match asked.method.as_str() {
        "DELETE" => Act::Answer(400, "{\"error\":\"no\"}"),
        _ => Act::Answer(201, "{}"),
    })
    .await;
    let stuck = plan(&format!(
        "name = \"stubborn\"\n[trigger]\nurl = \"http://trips/stubborn/{{trip}}\"\n\
         [[step]]\nname = \"hotel\"\nrequest = {{ method = \"PUT\", url = \"{}\" }}\n\
         [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"{}\" }}\nretry = {{ attempts = 1 }}\n\
         [[step]]\nname = \"car\"\nafter = [\"hotel\"]\nrequest = {{ method = \"PUT\", url = \"http://127.0.0.1:1/\" }}\n",
        stubborn.url("/7"),
        stubborn.url("/7"),
    ));
    let runner = runner();
    let (unusable, _folder) = start(&runner, node());
    assert_eq!(ask(&unusable, "POST", "/api/v1/reload", "{}").0, 422);
    let (admin, _folder) = start(&runner, node_with(&refused));
    assert_eq!(ask(&admin, "POST", "/api/v1/reload", "{}").0, 200);
    for target in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/status",
        "/api/v1/pods",
        "/api/v1/definitions",
        "/api/v1/log",
    ] {
        assert_eq!(ask(&admin, "GET", target, "").0, 200, "{target}");
    }
    let log = |body: &str| ask(&admin, "PUT", "/api/v1/log", body);
    assert_eq!(
        log("{\"filter\":\"qbox=debug\"}"),
        (200, json!({ "filter": "qbox=debug" }))
    );
    for wrong in ["{\"filter\":\"x=y=z\"}", "{\"filtre\":\"info\"}", "debug", ""] {
        assert_eq!(log(wrong).0, 400, "{wrong}");
    }
    let mut ids = Vec::new();
    for (saga, path) in [(&refused, "7"), (&stuck, "8")] {
        let handle = testing::start(&runner, saga, trigger(path, None, "")).unwrap();
        ids.push(handle.id);
        drop(handle.reply().await);
    }
    let stuck_id = ids[1];
    tokio::time::timeout(Duration::from_secs(10), async {
        while runner.saga(stuck_id).unwrap().unwrap().summary.stuck.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();

    let (_, page) = ask(&admin, "GET", "/api/v1/sagas?limit=1", "");
    assert!(page["next"].is_string());
    let (_, page) = ask(&admin, "GET", "/api/v1/sagas", "");
    assert!(page["next"].is_null());
    assert_eq!(page["sagas"].as_array().map(Vec::len), Some(2));
    for id in &ids {
        ask(&admin, "GET", &format!("/api/v1/sagas/{id}"), "");
    }
    assert_eq!(ask(&admin, "GET", "/api/v1/sagas/x", "").0, 400);
    let nobody = "/api/v1/sagas/00000000-0000-0000-0000-000000000000";
    assert_eq!(ask(&admin, "GET", nobody, "").0, 404);
    assert_eq!(ask(&admin, "GET", "/api/v1/sagas?limit=x", "").0, 400);
    assert_eq!(ask(&admin, "GET", "/api/v1/events?limit=x", "").0, 400);

    // Decisions block on the sagas' tasks, which run on this thread.
    let admin = tokio::task::spawn_blocking(move || {
        let one = |action: &str, body: &str| {
            ask(
                &admin,
                "POST",
                &format!("/api/v1/sagas/{stuck_id}/{action}"),
                body,
            )
            .0
        };
        assert_eq!(one("skip", "{"), 400);
        assert_eq!(one("skip", "{\"step\":\"hotel\",\"why\":\"\"}"), 422);
        assert_eq!(one("skip", "{\"step\":\"nothing\",\"why\":\"x\"}"), 422);
        assert_eq!(one("resume", "{\"why\":\"x\"}"), 409);
        assert_eq!(
            ask(&admin, "POST", &format!("{nobody}/retry"), "{\"why\":\"x\"}").0,
            404
        );
        let all = |query: &str| {
            ask(
                &admin,
                "POST",
                &format!("/api/v1/sagas/skip?{query}"),
                "{\"step\":\"hotel\",\"why\":\"x\"}",
            )
        };
        assert_eq!(all("").0, 400);
        assert_eq!(all("state=stuck&dry_run=true").1["done"], 1);
        assert_eq!(
            one("skip", "{\"step\":\"hotel\",\"who\":\"ada\",\"why\":\"by hand\"}"),
            200
        );
        admin
    })
    .await
    .unwrap();
    let (_, events) = ask(&admin, "GET", "/api/v1/events?limit=1000", "");
    let kinds: BTreeSet<&str> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["kind"].as_str().unwrap())
        .collect();
    for kind in [
        "began",
        "sending",
        "ended",
        "step_failed",
        "failed",
        "compensating",
        "undone",
        "stuck",
        "decided",
        "replied",
    ] {
        assert!(kinds.contains(kind), "no {kind} in {kinds:?}");
    }
    let (_, told) = ask(&admin, "GET", &format!("/api/v1/sagas/{stuck_id}"), "");
    let decided = told["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["kind"] == "decided")
        .unwrap();
    assert_eq!(
        (&decided["who"], &decided["why"]),
        (&"ada".into(), &"by hand".into())
    );
    check(
        &json!({ "$ref": "#/components/schemas/Missed" }),
        &json!({ "kind": "missed", "missed": 7, "text": "7 events were missed" }),
    );
    runner.drain(Duration::ZERO).await;
    assert_eq!(ask(&admin, "GET", "/readyz", "").0, 503);
}

#[tokio::test]
async fn what_is_observed_is_what_the_document_says() {
    let plan = plan(
        "name = \"x\"\nmode = \"observe\"\n[trigger]\nurl = \"http://trips/trips/{trip}\"\n[[step]]\nname = \"hotel\"\n\
         request = { method = \"PUT\", url = \"http://hotel/${trigger.path.trip}\", body = \"${trigger.body}\" }\n",
    );
    let node = node();
    let observer = node.observer.clone();
    let (admin, _folder) = start(&runner(), node);
    let body = "x".repeat(1000);
    let mut large = trigger("7", None, "");
    large.request.body = body.into();
    let deep = crate::saga::Trigger {
        depth: 9,
        ..trigger("8", None, "")
    };
    for (trigger, answer) in [
        (large, Some(Answer::Status(201))),
        (deep, Some(Answer::None)),
        (trigger("9", None, ""), None),
    ] {
        let witness = observer.observe(&plan.0, plan.1, trigger, 8).unwrap();
        if let Some(answer) = answer {
            witness.answered(answer);
        }
    }
    let known = async {
        let done = |one: &Sighting| one.state.is_some() || one.unrehearsed.is_some();
        while !observer.list(None, None, 10).iter().all(done) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known)
        .await
        .unwrap();
    let (_, page) = ask(&admin, "GET", "/api/v1/observed?limit=2&name=x", "");
    let cursor = page["next"].as_str().unwrap();
    let (_, rest) = ask(&admin, "GET", &format!("/api/v1/observed?cursor={cursor}"), "");
    assert!(rest["next"].is_null());
    let ids = [&page["observed"][0], &page["observed"][1], &rest["observed"][0]].map(|one| one["id"].clone());
    for id in &ids {
        let path = format!("/api/v1/observed/{}", id.as_str().unwrap());
        let (status, record) = ask(&admin, "GET", &path, "");
        assert_eq!((status, &record["id"]), (200, id));
    }
    assert_eq!(rest["observed"][0]["status"], 201);
    let nobody = "/api/v1/observed/00000000-0000-0000-0000-000000000000";
    assert_eq!(ask(&admin, "GET", nobody, "").0, 404);
    assert_eq!(ask(&admin, "GET", "/api/v1/observed/x", "").0, 400);
    assert_eq!(ask(&admin, "GET", "/api/v1/observed?state=stuck", "").0, 400);
    assert_eq!(ask(&admin, "GET", "/api/v1/observed?cursor=x", "").0, 400);
    let (_, metrics) = ask(&admin, "GET", "/metrics", "");
    let metrics = metrics.as_str().unwrap();
    for line in ["recorded", "unseen"].map(|fate| format!("qbox_observed_total{{fate=\"{fate}\"}} 3")) {
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
}
