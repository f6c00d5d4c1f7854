//! HTTP messages as the saga room sees them: plain data, whole, decoded from any framing.

use super::id::SagaId;
use super::octets;
use super::values::is_marked;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Header fields in the order and case in which they came. Names compare without case (RFC 9110, 5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Headers(#[serde(with = "octets::fields")] pub Vec<(SmolStr, Bytes)>);

impl Headers {
    /// The first value of `name`, without case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    /// Appends a field.
    pub fn push(&mut self, name: impl Into<SmolStr>, value: impl Into<Bytes>) {
        self.0.push((name.into(), value.into()));
    }

    /// Takes away every field of that name, without case.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }
}

/// Fields that are one connection's own, or the framing's (RFC 9110, 7.6.1).
const OF_CONNECTION: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Headers {
    /// The fields that are to be passed on: without those that are one connection's own, by their meaning or because
    /// `Connection` names them (RFC 9110, 7.6.1), and without the body's framing.
    #[must_use]
    pub fn end_to_end(&self) -> Self {
        let passed_on = end_to_end(self.0.iter().map(|(name, value)| (name.as_str(), &value[..])));
        let fields = self.0.iter().filter(|(name, _)| passed_on(name));
        Self(fields.cloned().collect())
    }
}

/// Tells of each name of these fields whether it is to be passed on; see [`Headers::end_to_end`].
pub(super) fn end_to_end<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> impl Fn(&str) -> bool {
    let named: Vec<_> = fields
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
        .flat_map(|(_, value)| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    move |name| {
        !OF_CONNECTION.iter().any(|known| name.eq_ignore_ascii_case(known))
            && !named
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// A request that Qbox sends, or that a pod sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// As `GET`; case matters (RFC 9110, 9.1).
    pub method: String,
    /// Absolute: `http://trips.default.svc:8080/trips/7?dry=0`.
    pub url: String,
    /// The fields, without those that frame the body (`Content-Length`, `Transfer-Encoding`) or name the host.
    pub headers: Headers,
    /// The whole body, any transfer coding taken off.
    #[serde(with = "octets")]
    pub body: Bytes,
}

impl Request {
    /// Whether it holds a [`super::MARK`].
    pub(super) fn is_marked(&self) -> bool {
        is_marked(self.url.as_bytes()) || is_marked(&self.body) || self.headers.is_marked()
    }
}

impl Headers {
    fn is_marked(&self) -> bool {
        self.0.iter().any(|(_, value)| is_marked(value))
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// 200 to 599: interim answers are not answers.
    pub status: u16,
    /// The fields, as in [`Request::headers`].
    pub headers: Headers,
    /// The body, up to `limits.response_body`.
    #[serde(with = "octets")]
    pub body: Bytes,
    /// The body was longer than the limit and the rest was read and dropped: an expression that reads it has no value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

impl Response {
    /// Whether it holds a [`super::MARK`].
    pub(super) fn is_marked(&self) -> bool {
        is_marked(&self.body) || self.headers.is_marked()
    }
}

/// A step of another saga, for which a trigger was sent: its request's headers name both, and whoever takes part in the step passes
/// them on, as tracing headers are passed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parent {
    /// `X-Qbox-TransactionID`.
    pub saga: SagaId,
    /// `X-Qbox-Step`.
    pub step: String,
}

impl Parent {
    /// What the headers of a request say. `None` where they name no saga and step, or more than one.
    #[must_use]
    pub fn of(headers: &Headers) -> Option<Self> {
        let only = |wanted: &str| {
            let mut values = headers
                .0
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            match (values.next(), values.next()) {
                (Some((_, value)), None) => std::str::from_utf8(value).ok().map(str::trim),
                _ => None,
            }
        };
        let saga = only("x-qbox-transactionid")?.parse().ok()?;
        // As a saga file names its steps.
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let step =
            only("x-qbox-step").filter(|step| matches!(step.len(), 1..=64) && step.bytes().all(named))?;
        let step = step.to_owned();
        Some(Self { saga, step })
    }
}

/// The intercepted request that started a saga, and what matching it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The request. Its URL is `http://` + its Host + its target.
    pub request: Request,
    /// The `{name}` segments of the trigger's URL template, percent-decoded, in order.
    pub path: Vec<(String, String)>,
    /// Where the pod's connection was going, as `10.96.0.7:8080`; `None` where it is not known (explicit mode).
    pub destination: Option<std::net::SocketAddr>,
    /// It came over HTTP/2, the only version that its service is known to speak.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http2: bool,
    /// How many sagas are above this one (`X-Qbox-Depth` of the trigger).
    pub depth: u8,
}

impl Trigger {
    /// The step that it was sent for: this saga is nested in that one.
    #[must_use]
    pub fn parent(&self) -> Option<Parent> {
        Parent::of(&self.request.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(fields: &[(&str, &'static str)]) -> Option<Parent> {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(*name, *value);
        }
        Parent::of(&headers)
    }

    #[test]
    fn headers_that_were_passed_on_name_the_parent() {
        const ID: &str = "018f2c1e-7a5b-7c3d-8e9f-0a1b2c3d4e5f";
        let found = parent(&[("x-qbox-transactionid", ID), ("X-QBOX-STEP", "hotel")]).unwrap();
        assert_eq!(
            (found.saga.to_string().as_str(), found.step.as_str()),
            (ID, "hotel")
        );
        let id = ("X-Qbox-TransactionID", ID);
        for none in [
            &[id][..],
            &[("X-Qbox-Step", "hotel")],
            &[id, ("X-Qbox-Step", "")],
            &[id, ("X-Qbox-Step", "a b")],
            &[id, ("X-Qbox-Step", "a"), ("X-Qbox-Step", "b")],
            &[id, id, ("X-Qbox-Step", "a")],
            &[("X-Qbox-TransactionID", "7"), ("X-Qbox-Step", "a")],
        ] {
            assert_eq!(parent(none), None, "{none:?}");
        }
    }
}
