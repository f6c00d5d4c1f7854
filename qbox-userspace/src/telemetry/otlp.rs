//! OTLP's messages, written as they are told, field by field (opentelemetry/proto/trace/v1/trace.proto and those that it names): a span is one
//! piece of memory and no tree of texts, so that telling one costs a saga next to nothing. Also a collector's answer.

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// `SpanFlags`: it is known whether the parent is another process's, and it is.
const KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;
/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;
/// What most spans fit in.
const USUAL: usize = 640;

/// Whose part a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of the one that was asked, by another one.
    Server,
    /// Of the one that asks another one.
    Client,
    /// Of one alone.
    Internal,
}

/// What is known of a span. Names are those of OpenTelemetry's semantic conventions, or begin with `qbox.`.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A text.
    pub fn text(&mut self, name: &str, value: &str) {
        text(&mut self.0, 9, name, value);
    }

    /// A number.
    pub fn number(&mut self, name: &str, value: u32) {
        number(&mut self.0, 9, name, value.into());
    }
}

/// Moments in a span.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    bytes: Vec<u8>,
    /// How many.
    pub count: usize,
}

impl Moments {
    /// One more: when, in microseconds since 1970, what, and what is known of it.
    pub fn add(&mut self, at: u64, what: &str, known: &[(&str, &str)]) {
        let mut event = Vec::new();
        fixed64(&mut event, 1, nanoseconds(at));
        bytes(&mut event, 2, what.as_bytes());
        for (name, value) in known {
            text(&mut event, 3, name, value);
        }
        bytes(&mut self.bytes, 11, &event);
        self.count += 1;
    }
}

/// What happened to one part of a trace, from its beginning to its end.
#[derive(Debug, Clone)]
pub struct Span(Attributes);

impl Span {
    /// Its trace and that one's flags, its own id, and the span that it belongs to, if it does; what it is called (one of few, whatever
    /// happens), in parts; from when to when, in microseconds since 1970.
    #[must_use]
    pub fn new(
        (trace, flags): (u128, u8),
        (id, parent): (u64, Option<u64>),
        kind: Kind,
        name: &[&str],
        (from, to): (u64, u64),
    ) -> Self {
        let mut out = Vec::with_capacity(USUAL);
        bytes(&mut out, 1, &trace.to_be_bytes());
        bytes(&mut out, 2, &id.to_be_bytes());
        if let Some(parent) = parent {
            bytes(&mut out, 4, &parent.to_be_bytes());
        }
        encode_key(5, WireType::LengthDelimited, &mut out);
        encode_varint(name.iter().map(|part| part.len() as u64).sum(), &mut out);
        name.iter().for_each(|part| out.put_slice(part.as_bytes()));
        let (kind, remote) = match kind {
            Kind::Internal => (1, 0),
            Kind::Server => (2, if parent.is_some() { REMOTE } else { 0 }),
            Kind::Client => (3, 0),
        };
        encode_key(6, WireType::Varint, &mut out);
        encode_varint(kind, &mut out);
        fixed64(&mut out, 7, nanoseconds(from));
        fixed64(&mut out, 8, nanoseconds(to));
        encode_key(16, WireType::ThirtyTwoBit, &mut out);
        out.put_u32_le(u32::from(flags) | KNOWN | remote);
        Self(Attributes(out))
    }

    /// `tracestate`, as one list.
    pub fn state(&mut self, state: &str) {
        if !state.is_empty() {
            bytes(&mut self.0.0, 3, state.as_bytes());
        }
    }

    /// It failed, and why.
    pub fn failed(&mut self, why: &str) {
        let mut status = Vec::with_capacity(why.len() + 8);
        bytes(&mut status, 2, why.as_bytes());
        encode_key(3, WireType::Varint, &mut status);
        encode_varint(ERROR, &mut status);
        bytes(&mut self.0.0, 15, &status);
    }

    /// What is known of it, one by one.
    pub fn known(&mut self) -> &mut Attributes {
        &mut self.0
    }

    /// What is known of it, from elsewhere.
    pub fn knows(&mut self, more: &Attributes) {
        self.0.0.extend_from_slice(&more.0);
    }

    /// Moments in it.
    pub fn moments(&mut self, moments: &Moments) {
        self.0.0.extend_from_slice(&moments.bytes);
    }

    /// As a field of `ScopeSpans`.
    pub(super) fn put(&self, to: &mut Vec<u8>) {
        bytes(to, 2, &self.0.0);
    }
}

/// `ExportTraceServiceRequest` of spans that are fields already.
pub(super) fn batch(resource: &[(&'static str, String)], spans: &[u8]) -> Bytes {
    let mut about = Vec::new();
    for (name, value) in resource {
        text(&mut about, 1, name, value);
    }
    let mut scope = Vec::new();
    bytes(&mut scope, 1, b"qbox");
    bytes(&mut scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
    let mut head = Vec::new();
    bytes(&mut head, 1, &scope);
    let scope_spans = head.len() + spans.len();
    let mut outer = Vec::new();
    bytes(&mut outer, 1, &about);
    encode_key(2, WireType::LengthDelimited, &mut outer);
    encode_varint(scope_spans as u64, &mut outer);
    let mut out = Vec::with_capacity(outer.len() + scope_spans + 16);
    encode_key(1, WireType::LengthDelimited, &mut out);
    encode_varint((outer.len() + scope_spans) as u64, &mut out);
    out.extend_from_slice(&outer);
    out.extend_from_slice(&head);
    out.extend_from_slice(spans);
    out.into()
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
struct Taken {
    #[prost(message, optional, tag = "1")]
    partial: Option<Partial>,
}

/// `ExportTracePartialSuccess`, without its words.
#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    rejected: i64,
}

/// How many spans the collector has refused of those that it was sent. An answer that can't be read is taken for a whole success, as its
/// status says.
pub(super) fn rejected(answer: &Bytes) -> usize {
    let partial = Taken::decode(answer.clone()).ok().and_then(|taken| taken.partial);
    partial.map_or(0, |partial| usize::try_from(partial.rejected).unwrap_or(0))
}

fn nanoseconds(micros: u64) -> u64 {
    micros.saturating_mul(1000)
}

fn fixed64(out: &mut Vec<u8>, tag: u32, value: u64) {
    encode_key(tag, WireType::SixtyFourBit, out);
    out.put_u64_le(value);
}

fn bytes(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Of a field with so many bytes and a tag below 16.
fn field(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// `KeyValue` up to its value's own field.
fn key(out: &mut Vec<u8>, tag: u32, name: &str, value: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint((field(name.len()) + field(value)) as u64, out);
    bytes(out, 1, name.as_bytes());
    encode_key(2, WireType::LengthDelimited, out);
    encode_varint(value as u64, out);
}

fn text(out: &mut Vec<u8>, tag: u32, name: &str, value: &str) {
    key(out, tag, name, field(value.len()));
    bytes(out, 1, value.as_bytes());
}

fn number(out: &mut Vec<u8>, tag: u32, name: &str, value: u64) {
    key(out, tag, name, 1 + encoded_len_varint(value));
    encode_key(3, WireType::Varint, out);
    encode_varint(value, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use opentelemetry_proto::tonic::common::v1::any_value::Value;

    #[test]
    fn what_is_written_is_what_its_own_project_reads() {
        let long = "é".repeat(300);
        let mut more = Attributes::default();
        more.text("long", &long);
        let mut moments = Moments::default();
        moments.add(3, "stuck", &[("qbox.step", "hotel")]);
        let mut span = Span::new((7 << 64, 1), (8, Some(9)), Kind::Server, &["a", " b"], (1, 2));
        span.state("congo=t61");
        span.known().number("n", 70_000);
        span.knows(&more);
        span.moments(&moments);
        span.failed("why");
        let mut spans = Vec::new();
        span.put(&mut spans);
        Span::new((1, 0), (2, None), Kind::Client, &[""], (0, 0)).put(&mut spans);
        let read =
            ExportTraceServiceRequest::decode(batch(&[("service.name", "qbox".to_owned())], &spans)).unwrap();
        let [of] = &read.resource_spans[..] else {
            panic!("{read:?}")
        };
        assert_eq!(of.resource.as_ref().unwrap().attributes[0].key, "service.name");
        let scope = &of.scope_spans[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, "qbox");
        let [first, second] = &scope.spans[..] else {
            panic!("{scope:?}")
        };
        assert_eq!(first.trace_id, (7u128 << 64).to_be_bytes());
        assert_eq!((&first.span_id[7], &first.parent_span_id[7]), (&8, &9));
        assert_eq!(
            (first.name.as_str(), first.trace_state.as_str()),
            ("a b", "congo=t61")
        );
        assert_eq!(
            (first.start_time_unix_nano, first.end_time_unix_nano),
            (1000, 2000)
        );
        assert_eq!((first.kind, first.flags), (2, 0x301));
        let values: Vec<_> = first
            .attributes
            .iter()
            .map(|known| (known.key.as_str(), known.value.clone().unwrap().value.unwrap()))
            .collect();
        assert_eq!(
            values,
            [
                ("n", Value::IntValue(70_000)),
                ("long", Value::StringValue(long.clone()))
            ]
        );
        let event = &first.events[0];
        assert_eq!((event.time_unix_nano, event.name.as_str()), (3000, "stuck"));
        assert_eq!(event.attributes[0].key, "qbox.step");
        let status = first.status.as_ref().unwrap();
        assert_eq!((status.message.as_str(), status.code), ("why", 2));
        assert!(second.parent_span_id.is_empty() && second.status.is_none() && second.kind == 3);
    }

    #[test]
    fn a_collector_says_how_many_it_refused() {
        let answer = |partial_success| {
            ExportTraceServiceResponse { partial_success }
                .encode_to_vec()
                .into()
        };
        let some = ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: "too old".to_owned(),
        };
        assert_eq!(rejected(&answer(Some(some))), 3);
        assert_eq!(rejected(&answer(None)), 0);
        assert_eq!(rejected(&Bytes::from_static(b"no protobuf")), 0);
    }
}
