//! As much of JSON Schema 2020-12 as docs/openapi.json uses; a keyword that isn't known here fails its test. A library for all of it
//! would bring more crates to build than Qbox itself has.

use serde_json::Value;

/// What is wrong with `value` by `schema`, each with its place; `document` is where `$ref` points into.
pub(super) fn errors(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Check {
        document,
        found: &mut found,
    }
    .schema(schema, value, "");
    found
}

/// Words for people.
const ANNOTATIONS: [&str; 3] = ["description", "default", "example"];

struct Check<'a> {
    document: &'a Value,
    found: &'a mut Vec<String>,
}

impl Check<'_> {
    fn wrong(&mut self, place: &str, what: &str, value: &Value) {
        self.found.push(format!("{place}: {what}: {value}"));
    }

    fn schema(&mut self, schema: &Value, value: &Value, place: &str) {
        for (keyword, argument) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "$ref" => {
                    let target = argument.as_str().unwrap().strip_prefix('#').unwrap();
                    let target = self.document.pointer(target).unwrap();
                    self.schema(target, value, place);
                }
                "type" if !is_one(argument, value) => self.wrong(place, &format!("not {argument}"), value),
                "type" => {}
                "enum" => {
                    if !argument.as_array().unwrap().contains(value) {
                        self.wrong(place, "not one of the words", value);
                    }
                }
                "const" => {
                    if argument != value {
                        self.wrong(place, &format!("not {argument}"), value);
                    }
                }
                "minimum" | "maximum" => {
                    let (bound, number) = (argument.as_f64().unwrap(), value.as_f64().unwrap_or(f64::NAN));
                    let within = match keyword.as_str() {
                        "minimum" => number >= bound,
                        _ => number <= bound,
                    };
                    if value.is_number() && !within {
                        self.wrong(place, &format!("beyond its {keyword}"), value);
                    }
                }
                "format" => {
                    let uuid = |text: &str| uuid::Uuid::parse_str(text).is_ok() && text.len() == 36;
                    assert_eq!(argument, "uuid", "a format that isn't known here");
                    if value.as_str().is_some_and(|text| !uuid(text)) {
                        self.wrong(place, "no UUID", value);
                    }
                }
                "pattern" => {
                    assert_eq!(argument, "^[0-9a-f]{64}$", "a pattern that isn't known here");
                    let digest = |text: &str| {
                        text.len() == 64 && text.bytes().all(|b| b"0123456789abcdef".contains(&b))
                    };
                    if value.as_str().is_some_and(|text| !digest(text)) {
                        self.wrong(place, "no digest", value);
                    }
                }
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.schema(argument, item, &format!("{place}/{number}"));
                    }
                }
                "required" => {
                    for name in argument.as_array().unwrap() {
                        if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                            self.wrong(place, &format!("without {name}"), value);
                        }
                    }
                }
                "properties" => {
                    for (name, member) in value.as_object().into_iter().flatten() {
                        if let Some(schema) = argument.get(name) {
                            self.schema(schema, member, &format!("{place}/{name}"));
                        }
                    }
                }
                "additionalProperties" => {
                    assert_eq!(argument, false);
                    let known = schema["properties"].as_object().unwrap();
                    for name in value.as_object().into_iter().flat_map(|members| members.keys()) {
                        if !known.contains_key(name) {
                            self.wrong(place, &format!("has `{name}`, which isn't described"), value);
                        }
                    }
                }
                "oneOf" | "anyOf" => {
                    let schemas = argument.as_array().unwrap().iter();
                    let tries: Vec<_> = schemas
                        .map(|schema| errors(self.document, schema, value))
                        .collect();
                    let met = tries.iter().filter(|errors| errors.is_empty()).count();
                    if met == 0 || (met > 1 && keyword == "oneOf") {
                        self.wrong(place, &format!("meets {met} of these: {tries:?}"), value);
                    }
                }
                other if ANNOTATIONS.contains(&other) => {}
                other => panic!("`{other}` isn't known here"),
            }
        }
    }
}

fn is_one(types: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("`{other}` is no type"),
    };
    match types {
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        name => is(name.as_str().unwrap()),
    }
}

#[cfg(test)]
mod tests {
    use super::errors;
    use serde_json::json;

    #[test]
    fn what_does_not_fit_is_found() {
        let document = json!({ "a": { "type": "integer", "minimum": 1, "maximum": 9 } });
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["n"],
            "properties": {
                "n": { "$ref": "#/a" },
                "words": { "type": "array", "items": { "enum": ["x", "y"] } },
                "maybe": { "anyOf": [{ "$ref": "#/a" }, { "type": "null" }] },
                "id": { "type": ["string", "null"], "format": "uuid" },
            },
        });
        let right =
            json!({ "n": 1, "words": ["x"], "maybe": null, "id": "019ac000-0000-7000-8000-000000000000" });
        assert_eq!(errors(&document, &schema, &right), Vec::<String>::new());
        for wrong in [
            json!([]),
            json!({}),
            json!({ "n": 0 }),
            json!({ "n": 10 }),
            json!({ "n": "1" }),
            json!({ "n": 1, "more": 1 }),
            json!({ "n": 1, "words": ["x", "z"] }),
            json!({ "n": 1, "maybe": "1" }),
            json!({ "n": 1, "id": "019ac" }),
            json!({ "n": 1, "id": 1 }),
        ] {
            assert_eq!(errors(&document, &schema, &wrong).len(), 1, "{wrong}");
        }
    }
}
