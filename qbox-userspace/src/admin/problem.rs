//! How the API says no: problem details (RFC 9457), so that a program can tell one from an answer, and a person is told what to
//! do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A problem on its way out of a handler.
#[derive(Debug)]
pub(super) struct Refusal(Box<Response>);

impl From<Response> for Refusal {
    fn from(response: Response) -> Self {
        Self(Box::new(response))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// A problem that has no type of its own: its title is then the status's own words (RFC 9457, 4.2.1).
pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    answer(status, json!({ "detail": detail }))
}

/// 400, of a parameter of the query.
pub(super) fn bad_parameter(name: &str, detail: &str) -> Response {
    let detail = format!("{name}: {detail}");
    answer(
        StatusCode::BAD_REQUEST,
        json!({ "detail": detail, "parameter": name }),
    )
}

fn answer(status: StatusCode, mut problem: Value) -> Response {
    if let Some(members) = problem.as_object_mut() {
        members.insert("title".to_owned(), status.canonical_reason().into());
        members.insert("status".to_owned(), status.as_u16().into());
    }
    let kind = HeaderValue::from_static("application/problem+json");
    (status, [(header::CONTENT_TYPE, kind)], problem.to_string()).into_response()
}
