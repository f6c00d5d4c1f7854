//! The saga file as JSON Schema (2020-12), for editors: keys, types, words and bounds. What it can't say (names that must exist,
//! the order of steps, expressions) `qbox check` says.
//!
//! Made from the tables below, which a test holds to what the readers of a saga file ask for.

use serde_json::{Map, Value, json};

/// The schema's own id: where it stands in the project, not where it is to be fetched from.
const ID: &str = "urn:qbox:saga";

/// Every table of a saga file: its name in the schema, what it is, which keys must be there, and all its keys, each with its schema and
/// what it is for.
type Keys = Vec<(&'static str, Value, &'static str)>;

/// The schema.
#[must_use]
pub fn saga_schema() -> Value {
    let mut definitions = Map::new();
    for (name, about, required, keys) in tables() {
        definitions.insert(name.to_owned(), table(about, required, keys));
    }
    // Either "forward", or a request of the saga's own.
    definitions.insert(
        "send".to_owned(),
        json!({ "anyOf": [{ "const": "forward", "description": "The trigger itself, to where it was going." }, reference("request")] }),
    );
    let Some(Value::Object(saga)) = definitions.remove("saga") else {
        return Value::Null;
    };
    let mut schema = Map::new();
    schema.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    schema.insert("$id".to_owned(), json!(ID));
    schema.insert("title".to_owned(), json!("A saga of Qbox"));
    schema.extend(saga);
    schema.insert("$defs".to_owned(), Value::Object(definitions));
    Value::Object(schema)
}

fn table(about: &str, required: &[&str], keys: Keys) -> Value {
    let properties: Map<String, Value> = keys
        .into_iter()
        .map(|(key, mut schema, about)| {
            if let Some(map) = schema.as_object_mut() {
                map.insert("description".to_owned(), json!(about));
            }
            (key.to_owned(), schema)
        })
        .collect();
    json!({
        "type": "object",
        "description": about,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn duration() -> Value {
    json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" })
}

fn words(words: &[&str]) -> Value {
    json!({ "enum": words })
}

fn list(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn filled(items: &Value) -> Value {
    json!({ "type": "array", "items": items, "minItems": 1 })
}

/// A table whose keys are the author's, and whose values are texts.
fn texts() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": "string" } })
}

fn anything() -> Value {
    json!({})
}

fn status() -> Value {
    json!({ "type": "integer", "minimum": 200, "maximum": 599 })
}

fn step_name() -> Value {
    json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" })
}

fn tables() -> Vec<(&'static str, &'static str, &'static [&'static str], Keys)> {
    let statuses = json!({ "anyOf": [status(), { "type": "string", "pattern": "^[2-5]xx$" }] });
    let status_set = json!({ "anyOf": [statuses, { "type": "array", "items": statuses, "minItems": 1 }] });
    let matches = filled(&reference("match"));
    let body = || {
        (
            "body",
            text(),
            "A text; expressions are filled in. Not beside `json`.",
        )
    };
    let json_body = || {
        (
            "json",
            anything(),
            "JSON; a string that is one whole expression keeps the type of its value.",
        )
    };
    let retry = || {
        (
            "retry",
            reference("retry"),
            "How often it is sent again, after what.",
        )
    };
    let timeout = || ("timeout", duration(), "One attempt. Default \"5s\".");
    vec![
        (
            "saga",
            "One saga: what starts it, its steps, what the caller gets.",
            &["name", "trigger", "step"],
            vec![
                (
                    "name",
                    json!({ "type": "string", "pattern": "^[a-z0-9-]{1,64}$" }),
                    "Unique among the loaded sagas.",
                ),
                (
                    "order",
                    words(&["parallel", "sequential"]),
                    "Default \"parallel\": a step begins when all of its `after` are done.",
                ),
                (
                    "timeout",
                    duration(),
                    "The whole forward phase; past it the saga turns to compensation. Default \"60s\".",
                ),
                (
                    "reply_timeout",
                    duration(),
                    "How long after compensation began the caller still waits. Default \"30s\".",
                ),
                (
                    "mode",
                    words(&["enforce", "observe"]),
                    "Default \"enforce\"; \"observe\": the trigger passes through unchanged.",
                ),
                (
                    "on_recovery",
                    words(&["compensate", "resume"]),
                    "What becomes of a running saga when Qbox has crashed. Default \"compensate\".",
                ),
                (
                    "durability",
                    words(&["disk", "none"]),
                    "Default \"disk\"; \"none\": kept in memory alone.",
                ),
                (
                    "lock",
                    text(),
                    "Sagas whose text is the same run one after the other.",
                ),
                (
                    "trigger",
                    reference("trigger"),
                    "The request that starts the saga.",
                ),
                (
                    "step",
                    json!({ "type": "array", "items": reference("step"), "minItems": 1, "maxItems": 256 }),
                    "The steps.",
                ),
                ("reply", reference("reply"), "What the caller gets."),
            ],
        ),
        (
            "trigger",
            "The intercepted request that starts the saga; all that is given must match.",
            &["url"],
            vec![
                ("method", text(), "As POST. Default: any."),
                (
                    "url",
                    json!({ "type": "string", "pattern": "^http://" }),
                    "http://HOST[:PORT]/PATH; {name} captures one segment of the path.",
                ),
                (
                    "headers",
                    texts(),
                    "Headers that must be there; names match without case.",
                ),
                ("query", texts(), "Parameters that must be there."),
                ("body", text(), "The exact body."),
                (
                    "json",
                    json!({ "type": "object" }),
                    "Fields of the body, read as JSON.",
                ),
                (
                    "priority",
                    json!({ "type": "integer", "minimum": -1_000_000, "maximum": 1_000_000 }),
                    "Higher goes first where two sagas can match. Default 0.",
                ),
                (
                    "dedupe",
                    text(),
                    "The key of a caller that sends no Idempotency-Key.",
                ),
            ],
        ),
        (
            "step",
            "One transaction: how it is judged, asked after and undone.",
            &["name", "request"],
            vec![
                ("name", step_name(), "Unique in the file."),
                (
                    "kind",
                    words(&["compensatable", "pivot", "retriable"]),
                    "Default \"compensatable\". \"pivot\": once applied the saga is not undone. \"retriable\": after the pivot, sent until applied.",
                ),
                ("after", list(&step_name()), "The steps that must be done first."),
                (
                    "when",
                    list(&reference("condition")),
                    "All must hold, or the step is skipped.",
                ),
                ("request", reference("send"), "What is sent."),
                ("success", matches.clone(), "Any of these: applied. Default 2xx."),
                (
                    "refused",
                    list(&reference("match")),
                    "Any of these: certainly not applied. Default 4xx less 408 and 429.",
                ),
                timeout(),
                retry(),
                ("probe", reference("probe"), "Asked when the outcome is unknown."),
                (
                    "compensate",
                    filled(&reference("compensation")),
                    "All are sent, in order, if the saga fails.",
                ),
                (
                    "compensate_when",
                    words(&["applied", "always"]),
                    "Default \"applied\" (or unknown); \"always\": also when not applied.",
                ),
            ],
        ),
        (
            "request",
            "A request of the saga's own.",
            &["method", "url"],
            vec![
                ("method", text(), "As PUT."),
                (
                    "url",
                    json!({ "type": "string", "pattern": "^https?://" }),
                    "Expressions may stand in its path and query.",
                ),
                ("headers", texts(), "Beside those that Qbox writes itself."),
                body(),
                json_body(),
            ],
        ),
        (
            "condition",
            "A value and one test.",
            &["value"],
            vec![
                ("value", text(), "As ${trigger.json.fly}."),
                ("equals", text(), "It is this text."),
                ("in", filled(&text()), "It is one of these."),
                ("present", json!({ "type": "boolean" }), "It is there, or not."),
            ],
        ),
        (
            "match",
            "What an answer must have: all of it.",
            &[],
            vec![
                ("status", status_set, "200, \"2xx\", or a list of such."),
                ("headers", texts(), "Headers with these values."),
                ("body", text(), "The exact body."),
                (
                    "json",
                    json!({ "type": "object" }),
                    "Fields of the body, read as JSON.",
                ),
            ],
        ),
        (
            "retry",
            "How often, after what, and for how long.",
            &[],
            vec![
                (
                    "attempts",
                    json!({ "type": "integer", "minimum": 1, "maximum": 1_000_000 }),
                    "In all, the first one too.",
                ),
                (
                    "on",
                    filled(&json!({ "anyOf": [
                        words(&["connect", "timeout", "reset", "5xx", "any"]),
                        { "type": "string", "pattern": "^[2-5][0-9][0-9]$" },
                        status(),
                    ] })),
                    "What is retried.",
                ),
                (
                    "backoff",
                    json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)\\.\\.[0-9]+(ms|s|m|h)$" }),
                    "The first wait and the longest, as \"50ms..2s\".",
                ),
                (
                    "max_elapsed",
                    duration(),
                    "No further attempt begins later than this after the first.",
                ),
            ],
        ),
        (
            "probe",
            "Asked when an outcome is unknown, before it is given up.",
            &["request"],
            vec![
                ("request", reference("request"), "What is asked."),
                ("applied", matches.clone(), "Any of these: applied. Default 2xx."),
                (
                    "refused",
                    list(&reference("match")),
                    "Any of these: not applied. Default 404 and 410.",
                ),
                timeout(),
                retry(),
            ],
        ),
        (
            "compensation",
            "What undoes the step.",
            &["request"],
            vec![
                ("request", reference("request"), "What is sent."),
                (
                    "success",
                    matches,
                    "Any of these: undone. Default 2xx, 404 and 410.",
                ),
                timeout(),
                retry(),
                (
                    "needs_response",
                    json!({ "type": "boolean" }),
                    "Without the step's own answer the step is stuck, rather than a request with a hole sent.",
                ),
            ],
        ),
        (
            "reply",
            "What the caller gets.",
            &[],
            vec![
                (
                    "success",
                    reference("answer"),
                    "Once the saga is committed. Default: 200 and a JSON summary.",
                ),
                (
                    "failure",
                    reference("answer"),
                    "Once it is compensated. Default: 502 and a problem that says what failed.",
                ),
            ],
        ),
        (
            "answer",
            "A step's answer (`from`), or one of the saga's own.",
            &[],
            vec![
                (
                    "from",
                    step_name(),
                    "That step's answer, unchanged; nothing stands beside it.",
                ),
                ("status", status(), "Default 200, of a failure 502."),
                ("headers", texts(), "Headers with expressions."),
                body(),
                json_body(),
            ],
        ),
    ]
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
