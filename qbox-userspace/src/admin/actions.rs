//! The routes by which operators decide: for one saga, and for all that a filter holds for.
//!
//! A browser must not be made to decide by a page from elsewhere (cross-site request forgery): a decision is JSON and says so,
//! which such a page can't send without asking first, and an `Origin` that isn't this API's own is refused.

use super::peer::Peer;
use super::problem::{Refusal, problem};
use super::query::Parameters;
use super::routes::Shared;
use crate::runner::{ActError, Acted, Action, Decision, Filter, NoAction};
use crate::saga::SagaId;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The most bytes of a decision.
pub(super) const LONGEST: usize = 16 * 1024;

/// The body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    step: Option<String>,
    who: Option<String>,
    why: String,
}

/// Refuses what a page from elsewhere could have a browser send.
pub(super) async fn no_forgery(request: Request, next: Next) -> Response {
    if !request.method().is_safe() {
        let headers = request.headers();
        if foreign(headers) {
            let detail = "a page from elsewhere can't decide here";
            return problem(StatusCode::FORBIDDEN, detail);
        }
        if !is_json(headers) {
            let detail = "send the decision as JSON, with `Content-Type: application/json`";
            return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
        }
    }
    next.run(request).await
}

/// Whether a browser says that the request comes from a page that isn't this API's: `Origin` (RFC 6454, 7), and in newer ones
/// `Sec-Fetch-Site` (W3C Fetch Metadata).
fn foreign(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map_or(&[][..], |host| host.as_bytes());
    let own = |origin: &[u8]| {
        origin
            .strip_prefix(b"http://")
            .is_some_and(|of| of.eq_ignore_ascii_case(host))
    };
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    headers
        .get_all(header::ORIGIN)
        .iter()
        .any(|origin| !own(origin.as_bytes()))
        || site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// A body, unless it is too long or breaks off.
type Sent = Result<Bytes, BytesRejection>;

/// A status, and what is wrong.
type Wrong = (StatusCode, String);

fn decision(action: &str, peer: Peer, body: Sent) -> Result<Decision, Wrong> {
    let action: Action = action
        .parse()
        .map_err(|error: NoAction| (StatusCode::NOT_FOUND, error.to_string()))?;
    let body = body.map_err(|error| (error.status(), error.body_text()))?;
    let wish: Wish = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("the decision can't be read: {error}");
        (StatusCode::BAD_REQUEST, detail)
    })?;
    Ok(Decision {
        action,
        step: wish.step,
        who: wish.who.unwrap_or_else(|| peer.name()),
        why: wish.why,
    })
}

fn status(error: &ActError) -> StatusCode {
    match error {
        ActError::Unknown => StatusCode::NOT_FOUND,
        ActError::Ended(_) | ActError::Halted(_) | ActError::NotNow(_) => StatusCode::CONFLICT,
        ActError::NoStep { .. } | ActError::Malformed(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ActError::Draining => StatusCode::SERVICE_UNAVAILABLE,
        ActError::Journal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn refused(error: &ActError) -> Response {
    problem(status(error), &error.to_string())
}

/// `POST /api/v1/sagas/{id}/{action}`: answers with the saga as it stands once the decision is durable.
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((id, action)): Path<(String, String)>,
    body: Sent,
) -> Response {
    let Ok(id) = id.parse::<SagaId>() else {
        return problem(StatusCode::BAD_REQUEST, "that is no saga's id");
    };
    let decision = match decision(&action, peer, body) {
        Ok(decision) => decision,
        Err((status, detail)) => return problem(status, &detail),
    };
    match shared.runner.act(id, &decision).await {
        Ok(summary) => Json(summary).into_response(),
        Err(error) => refused(&error),
    }
}

/// `POST /api/v1/sagas/{action}?…`: what became of the decision for each of the sagas that the query's filter holds for, of
/// those that have not ended. The parameters are the list's, and `dry_run=true`; `all=true` where there is no filter.
pub(super) async fn all(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(action): Path<String>,
    query: Parameters,
    body: Sent,
) -> Response {
    let decision = match decision(&action, peer, body) {
        Ok(decision) => decision,
        Err((status, detail)) => return problem(status, &detail),
    };
    let Which { filter, dry_run } = match which(query) {
        Ok(which) => which,
        Err(refusal) => return refusal.into_response(),
    };
    match shared.runner.act_all(&filter, &decision, dry_run).await {
        Ok(acted) => Json(report(decision.action, dry_run, &acted)).into_response(),
        Err(error) => refused(&error),
    }
}

/// Whom a query means.
#[derive(Debug)]
struct Which {
    filter: Filter,
    dry_run: bool,
}

/// What is missing must not turn into "all".
fn which(mut query: Parameters) -> Result<Which, Refusal> {
    let (dry_run, all) = (query.switch("dry_run")?, query.switch("all")?);
    let filter = query.filter()?;
    query.done()?;
    match filter == Filter::default() && !all {
        true => {
            let detail = "say which sagas: give a filter, or all=true";
            Err(problem(StatusCode::BAD_REQUEST, detail).into())
        }
        false => Ok(Which { filter, dry_run }),
    }
}

fn report(action: Action, dry_run: bool, acted: &[Acted]) -> Value {
    let sagas: Vec<Value> = acted
        .iter()
        .map(|Acted { summary, result }| {
            let mut saga = json!({
                "id": summary.id.to_string(),
                "name": summary.name,
                "state": summary.state,
                "done": result.is_ok(),
            });
            if let (Err(error), Some(saga)) = (result, saga.as_object_mut()) {
                saga.insert("status".to_owned(), status(error).as_u16().into());
                saga.insert("detail".to_owned(), error.to_string().into());
            }
            saga
        })
        .collect();
    let done = acted.iter().filter(|one| one.result.is_ok()).count();
    json!({
        "action": action.as_str(),
        "dry_run": dry_run,
        "done": done,
        "refused": acted.len() - done,
        "sagas": sagas,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn pages_from_elsewhere_are_foreign() {
        let host = ("host", "127.0.0.1:9901");
        for own in [
            &[host][..],
            &[
                host,
                ("origin", "http://127.0.0.1:9901"),
                ("sec-fetch-site", "same-origin"),
            ],
            &[host, ("sec-fetch-site", "none")],
        ] {
            assert!(!foreign(&headers(own)), "{own:?}");
        }
        for other in [
            &[host, ("origin", "null")][..],
            &[host, ("origin", "http://evil.example")],
            &[host, ("origin", "http://127.0.0.1:3000")],
            &[
                host,
                ("origin", "http://127.0.0.1:9901"),
                ("origin", "http://evil.example"),
            ],
            &[host, ("sec-fetch-site", "cross-site")],
        ] {
            assert!(foreign(&headers(other)), "{other:?}");
        }
    }

    #[test]
    fn only_json_is_json() {
        for json in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(is_json(&headers(&[("content-type", json)])));
        }
        for other in ["text/plain", "application/jsonp", "text/plain; application/json"] {
            assert!(!is_json(&headers(&[("content-type", other)])), "{other}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
