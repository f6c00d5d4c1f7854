//! What the caller of a saga gets: the file's `[reply]`, or the two replies that stand where it gives none.

use super::id::SagaId;
use super::message::{Headers, Response};
use super::secrets::Secrets;
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// The answer to a trigger, without framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// Fields in order; none of those that belong to one connection (RFC 9110, 7.6.1).
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

/// One step of a summary.
pub(super) struct StepLine<'a> {
    pub(super) name: &'a str,
    /// `applied`, `refused`, …
    pub(super) state: &'a str,
    /// `undone`, `stuck`, …
    pub(super) compensation: &'a str,
}

/// What the two default replies tell.
pub(super) struct Summary<'a> {
    pub(super) saga: SagaId,
    pub(super) name: &'a str,
    /// `committed`, `compensated`, …
    pub(super) outcome: &'a str,
    pub(super) failed_step: Option<&'a str>,
    /// Why it failed, for people.
    pub(super) cause: Option<&'a str>,
    /// What the failed step answered, if it did.
    pub(super) answer: Option<&'a Response>,
    /// What of the answer is not repeated.
    pub(super) secrets: &'a Secrets,
    pub(super) steps: Vec<StepLine<'a>>,
}

/// How much of a failed step's answer a problem repeats.
const QUOTED: usize = 1024;

impl Reply {
    /// A step's response, unchanged but for what belongs to the connection that it came on.
    pub(super) fn from_response(response: &Response) -> Self {
        Self {
            status: response.status,
            headers: response.headers.end_to_end(),
            body: response.body.clone(),
        }
    }

    /// 200 and a JSON summary.
    pub(super) fn success(summary: &Summary<'_>) -> Self {
        let body = json!({
            "saga": summary.saga.to_string(),
            "name": summary.name,
            "outcome": summary.outcome,
            "steps": states(summary, |step| step.state),
        });
        Self::json(200, "application/json", &body)
    }

    /// 502 and an RFC 9457 problem: the saga, the step that failed, what it answered, each compensation's state.
    pub(super) fn failure(summary: &Summary<'_>) -> Self {
        let mut body = json!({
            // With this type the title is the status's own phrase (RFC 9457, 4.2.1).
            "type": "about:blank",
            "title": "Bad Gateway",
            "status": 502,
            "detail": detail(summary),
            "saga": summary.saga.to_string(),
            "name": summary.name,
            "outcome": summary.outcome,
            "failed_step": summary.failed_step,
            "steps": states(summary, |step| step.state),
            "compensations": states(summary, |step| step.compensation),
        });
        if let (Some(answer), Some(map)) = (summary.answer, body.as_object_mut()) {
            // Cut behind the hiding: what is cut can't be looked into.
            let mut answer = answer.clone();
            summary.secrets.response(&mut answer);
            let quoted = answer.body.get(..QUOTED).unwrap_or(&answer.body);
            map.insert(
                "answer".to_owned(),
                json!({ "status": answer.status, "body": String::from_utf8_lossy(quoted) }),
            );
        }
        Self::json(502, "application/problem+json", &body)
    }

    /// 500 and a problem: what would be answered held a secret, and a restart has not got it back.
    pub(super) fn gone(summary: &Summary<'_>, why: &str) -> Self {
        let body = json!({
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "detail": format!("The saga is {}. Its reply can't be given any more: {why}.", summary.outcome),
            "saga": summary.saga.to_string(),
            "name": summary.name,
            "outcome": summary.outcome,
        });
        Self::json(500, "application/problem+json", &body)
    }

    fn json(status: u16, content_type: &'static str, body: &Value) -> Self {
        let kind = Bytes::from_static(content_type.as_bytes());
        Self {
            status,
            headers: Headers(vec![("Content-Type".into(), kind)]),
            // No larger than it is: it may be kept for long.
            body: Bytes::from(body.to_string().into_bytes().into_boxed_slice()),
        }
    }
}

fn states<'a>(summary: &Summary<'a>, state: impl Fn(&StepLine<'a>) -> &'a str) -> Value {
    let pairs = summary
        .steps
        .iter()
        .map(|step| (step.name.to_owned(), Value::from(state(step))));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn detail(summary: &Summary<'_>) -> String {
    let why = summary.cause.unwrap_or("it did not end in time");
    match summary.failed_step {
        Some(step) => format!("Step `{step}` failed: {why}. The saga is {}.", summary.outcome),
        None => format!("The saga failed: {why}. It is {}.", summary.outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    fn summary<'a>(answer: Option<&'a Response>) -> Summary<'a> {
        static SECRETS: LazyLock<Secrets> = LazyLock::new(Secrets::default);
        Summary {
            secrets: &SECRETS,
            saga: SagaId(7),
            name: "book-trip",
            outcome: "compensated",
            failed_step: Some("car"),
            cause: Some("answered 409"),
            answer,
            steps: vec![
                StepLine {
                    name: "hotel",
                    state: "applied",
                    compensation: "undone",
                },
                StepLine {
                    name: "car",
                    state: "refused",
                    compensation: "none",
                },
            ],
        }
    }

    fn response(headers: &[(&str, &'static str)], body: &str) -> Response {
        let mut fields = Headers::default();
        for (name, value) in headers {
            fields.push(*name, *value);
        }
        Response {
            status: 409,
            headers: fields,
            body: Bytes::from(body.to_owned()),
            truncated: false,
        }
    }

    #[test]
    fn a_problem_names_the_saga_the_step_its_answer_and_each_compensation() {
        let answer = response(&[], "no car left");
        let reply = Reply::failure(&summary(Some(&answer)));
        assert_eq!(reply.status, 502);
        assert_eq!(
            reply.headers.get("content-type").unwrap(),
            "application/problem+json"
        );
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(body["failed_step"], "car");
        assert_eq!(body["saga"], SagaId(7).to_string());
        assert_eq!(body["answer"], json!({"status": 409, "body": "no car left"}));
        assert_eq!(body["compensations"], json!({"hotel": "undone", "car": "none"}));
        assert_eq!(
            body["detail"],
            "Step `car` failed: answered 409. The saga is compensated."
        );
    }

    #[test]
    fn secret_fields_of_an_answer_are_not_repeated() {
        let text = format!(
            "{{\"room\":7,\"password\":\"hunter2\",\"x\":\"{}\"}}",
            "y".repeat(5000)
        );
        let answer = response(&[], &text);
        let reply = Reply::failure(&summary(Some(&answer)));
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        let quoted = body["answer"]["body"].as_str().unwrap();
        assert!(
            quoted.starts_with("{\"room\":7,\"password\":\"[redacted]\","),
            "{quoted}"
        );
    }

    #[test]
    fn a_long_answer_is_quoted_in_part() {
        let answer = response(&[], &"x".repeat(5000));
        let body: Value = serde_json::from_slice(&Reply::failure(&summary(Some(&answer))).body).unwrap();
        assert_eq!(body["answer"]["body"].as_str().unwrap().len(), QUOTED);
    }

    #[test]
    fn the_fields_of_one_connection_are_not_passed_on() {
        let answer = response(
            &[
                ("X-A", "1"),
                ("Connection", "close, X-Own"),
                ("x-own", "2"),
                ("Transfer-Encoding", "chunked"),
            ],
            "b",
        );
        let reply = Reply::from_response(&answer);
        assert_eq!(reply.headers.0, [("X-A".into(), Bytes::from("1"))]);
        assert_eq!((reply.status, &reply.body[..]), (409, &b"b"[..]));
    }
}
