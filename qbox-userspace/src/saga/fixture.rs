//! A saga half way, for the tests of filling and matching: a trigger, and the first of two steps answered.

use super::derived::Derived;
use super::expr::{Place, Scope, Template};
use super::id::{SagaId, StepId};
use super::message::{Headers, Request, Response, Trigger};
use super::plan::{
    BodyTemplate, CompensateWhen, Durability, Kind, Mode, OnRecovery, Plan, RequestPlan, RequestTemplate,
    RetryOn, RetryPolicy, Scheme, Segment, Step, TriggerPattern, UrlTemplate,
};
use super::values::{Exchange, Values};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Fixture {
    pub(super) plan: Plan,
    pub(super) trigger: Trigger,
    pub(super) exchanges: Vec<Exchange>,
}

/// A template as it would stand in `[reply.*]`, where every source can be named.
pub(super) fn template(text: &str) -> Template {
    let steps = ["hotel".to_owned(), "flight".to_owned()];
    let scope = Scope {
        steps: &steps,
        place: Place::Reply,
    };
    Template::parse(text, &scope).unwrap()
}

/// A GET of `http://hotel:8080` and the path, `?` and query behind it.
pub(super) fn get(target: &str) -> RequestTemplate {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(template(query))),
        None => (target, None),
    };
    RequestTemplate {
        method: "GET".to_owned(),
        url: UrlTemplate {
            scheme: Scheme::Http,
            authority: "hotel:8080".to_owned(),
            path: template(path),
            query,
        },
        headers: Vec::new(),
        body: BodyTemplate::Empty,
    }
}

pub(super) fn headers(fields: &[(&str, &[u8])]) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in fields {
        headers.push(*name, Bytes::copy_from_slice(value));
    }
    headers
}

pub(super) fn response(status: u16, fields: &[(&str, &[u8])], body: &[u8]) -> Response {
    Response {
        status,
        headers: headers(fields),
        body: Bytes::copy_from_slice(body),
        truncated: false,
    }
}

/// So many attempts after any of these causes, and waits of 50 ms to 2 s between them.
pub(super) fn retry(attempts: Option<u32>, on: &[RetryOn]) -> RetryPolicy {
    RetryPolicy {
        attempts,
        on: on.to_vec(),
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_secs(2),
        max_elapsed: None,
    }
}

/// `POST http://trips:8080/trips/{trip}`.
pub(super) fn pattern() -> TriggerPattern {
    TriggerPattern {
        method: Some("POST".to_owned()),
        host: "trips".to_owned(),
        port: 8080,
        path: vec![
            Segment::Literal("trips".to_owned()),
            Segment::Capture("trip".to_owned()),
        ],
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        json: Vec::new(),
        priority: 0,
        dedupe: None,
    }
}

impl Fixture {
    /// Triggered with this body; `hotel` answered 201 with that one.
    pub(super) fn new(trigger: impl Into<Bytes>, answer: &[u8]) -> Self {
        let step = |name: &str| Step {
            name: name.to_owned(),
            kind: Kind::Compensatable,
            after: Vec::new(),
            when: Vec::new(),
            request: RequestPlan::Send(get("/")),
            success: Vec::new(),
            refused: Vec::new(),
            timeout: Duration::from_secs(1),
            retry: RetryPolicy {
                attempts: Some(1),
                on: Vec::new(),
                backoff_min: Duration::ZERO,
                backoff_max: Duration::ZERO,
                max_elapsed: None,
            },
            probe: None,
            compensations: Vec::new(),
            compensate_when: CompensateWhen::Applied,
        };
        let sent = Request {
            method: "PUT".to_owned(),
            url: "http://hotel:8080/bookings/7".to_owned(),
            headers: headers(&[("X-Sent", b"yes")]),
            body: Bytes::from_static(br#"{"nights":2}"#),
        };
        Self {
            plan: Plan {
                name: "book-trip".to_owned(),
                timeout: Duration::from_secs(60),
                reply_timeout: Duration::from_secs(30),
                mode: Mode::Enforce,
                on_recovery: OnRecovery::Compensate,
                durability: Durability::Disk,
                lock: None,
                trigger: pattern(),
                steps: vec![step("hotel"), step("flight")],
                reply_success: None,
                reply_failure: None,
                derived: Derived::default(),
            },
            trigger: Trigger {
                request: Request {
                    method: "POST".to_owned(),
                    url: "http://trips:8080/trips/7?dry=0&name=J%C3%BCrgen+K&bad=%ff".to_owned(),
                    headers: headers(&[("X-Tenant", b"acme"), ("X-Latin", b"caf\xe9")]),
                    body: trigger.into(),
                },
                path: vec![("trip".to_owned(), "7".to_owned())],
                destination: None,
                http2: false,
                depth: 0,
            },
            exchanges: vec![
                Exchange {
                    request: Some(Arc::new(sent)),
                    response: Some(Arc::new(response(201, &[("X-Room", b"12")], answer))),
                },
                Exchange::default(),
            ],
        }
    }

    /// A fixture whose trigger captured this as `trip`, sent it as the field `X-Value`, and as `value` in its JSON body.
    pub(super) fn with_value(value: &str) -> Self {
        let body = serde_json::json!({ "value": value }).to_string();
        let mut fixture = Self::new(body, b"{}");
        fixture.trigger.path = vec![("trip".to_owned(), value.to_owned())];
        fixture.trigger.request.headers.push("X-Value", value.to_owned());
        fixture
    }

    pub(super) fn values(&self) -> Values<'_> {
        Values {
            saga: SagaId(7),
            plan: &self.plan,
            trigger: &self.trigger,
            document: None,
            exchanges: &self.exchanges,
            failed_step: Some(StepId(1)),
            gap: None,
            outcome: Some("compensated"),
        }
    }
}
