//! A collector: takes OTLP over HTTP as any other does, and keeps the spans that it gets.

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// One that listens for as long as this process lives.
#[derive(Debug, Clone, Default)]
pub struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    /// What was wrong with a request.
    wrong: Arc<Mutex<Vec<String>>>,
}

/// What is done with a request's body.
type Take = Arc<dyn Fn(Vec<u8>) -> Result<()> + Send + Sync>;

impl Collector {
    /// Keeps all spans.
    #[must_use]
    pub fn listen(on: TcpListener) -> Self {
        let collector = Self::default();
        let (spans, wrong) = (Arc::clone(&collector.spans), Arc::clone(&collector.wrong));
        let take = move |body: Vec<u8>| {
            let request = ExportTraceServiceRequest::decode(body.as_slice())?;
            let scopes = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
            let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
            spans.extend(scopes.flat_map(|scope| scope.spans));
            Ok(())
        };
        accept(on, Arc::new(take), wrong);
        collector
    }

    /// Reads, and forgets at once: as little work as a collector can be, beside what is measured.
    pub fn forgetful(on: TcpListener) {
        accept(on, Arc::new(|_| Ok(())), Arc::default());
    }

    /// What has come so far.
    ///
    /// # Errors
    /// A request was none of OTLP.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(wrong.is_empty(), "not OTLP: {wrong:?}");
        Ok(self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// An attribute's value as text.
#[must_use]
pub fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn accept(on: TcpListener, take: Take, wrong: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        for stream in on.incoming().map_while(Result::ok) {
            let (take, wrong) = (Arc::clone(&take), Arc::clone(&wrong));
            thread::spawn(move || {
                if let Err(error) = serve(&stream, &take) {
                    wrong
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(format!("{error:#}"));
                }
            });
        }
    });
}

/// One request after the other, until the client goes away.
fn serve(stream: &TcpStream, take: &Take) -> Result<()> {
    let mut from = BufReader::new(stream);
    let mut to = stream;
    let mut line = String::new();
    // A client may go away at any time between two.
    while from.read_line(&mut line).is_ok_and(|read| read > 0) {
        ensure!(line == "POST /v1/traces HTTP/1.1\r\n", "{line:?}");
        let (mut length, mut kind) = (None, String::new());
        loop {
            line.clear();
            ensure!(from.read_line(&mut line)? > 0, "no end of the head");
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse::<usize>()?),
                "content-type" => value.clone_into(&mut kind),
                _ => {}
            }
        }
        ensure!(kind == "application/x-protobuf", "{kind:?}");
        let mut body = vec![0; length.context("no length")?];
        from.read_exact(&mut body)?;
        if let Err(error) = take(body) {
            to.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
            bail!(error);
        }
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        write!(
            to,
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        )?;
        to.write_all(&answer)?;
        line.clear();
    }
    Ok(())
}
