//! Spans as OTLP's messages, and a collector's answer.

use super::{Attribute, Kind, Span, Value};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as proto, ResourceSpans, ScopeSpans, Status};
use prost::Message;

/// `SpanFlags`: it is known whether the parent is another process's, and it is.
const KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// One request's body.
pub(super) fn encode(resource: &[Attribute], spans: impl Iterator<Item = Span>) -> Bytes {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: attributes(resource.to_vec()),
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "qbox".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans: spans.map(span).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    };
    request.encode_to_vec().into()
}

/// How many spans the collector has refused of those that it was sent. An answer that can't be read is taken for a whole success, as its
/// status says.
pub(super) fn rejected(answer: &Bytes) -> usize {
    let partial = ExportTraceServiceResponse::decode(answer.clone())
        .ok()
        .and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| usize::try_from(partial.rejected_spans).unwrap_or(0))
}

fn span(span: Span) -> proto::Span {
    let nanoseconds = |micros: u64| micros.saturating_mul(1000);
    let (trace, flags) = span.trace;
    let remote = match (span.kind, span.parent) {
        (Kind::Server, Some(_)) => REMOTE,
        _ => 0,
    };
    proto::Span {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: span.id.to_be_bytes().to_vec(),
        trace_state: span.state,
        parent_span_id: span.parent.map_or(Vec::new(), |id| id.to_be_bytes().to_vec()),
        flags: u32::from(flags) | KNOWN | remote,
        name: span.name,
        kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        }
        .into(),
        start_time_unix_nano: nanoseconds(span.time.0),
        end_time_unix_nano: nanoseconds(span.time.1),
        attributes: attributes(span.attributes),
        events: span
            .moments
            .into_iter()
            .map(|(at, name, known)| Event {
                time_unix_nano: nanoseconds(at),
                name: name.to_owned(),
                attributes: attributes(known),
                dropped_attributes_count: 0,
            })
            .collect(),
        status: span.failed.map(|message| Status {
            message,
            code: StatusCode::Error.into(),
        }),
        ..proto::Span::default()
    }
}

fn attributes(of: Vec<Attribute>) -> Vec<KeyValue> {
    of.into_iter()
        .map(|(key, value)| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue {
                value: Some(match value {
                    Value::Text(text) => any_value::Value::StringValue(text.into_owned()),
                    Value::Number(number) => any_value::Value::IntValue(number),
                }),
            }),
            ..KeyValue::default()
        })
        .collect()
}
