//! A client's bytes, any at all, through the real proxy to hyper's server, and the same bytes straight to hyper's server.
//!
//! The input's first byte says how the bytes are cut into writes; the rest is what the client sends, and then its end. The
//! handler takes what is below `/take`. Whatever the bytes are:
//! - the service gets the very bytes, but for the requests that were taken, and but for HTTP/2's frames;
//! - each request that hyper reads without Qbox is read by the service or taken, in that order and with that body, or
//!   none from a certain one on, and then Qbox has answered with 4xx or 501, or has broken the connection;
//! - no request is taken that hyper would not have read as one: not out of a body, and not from the middle of a head.

use super::http2::PREFACE;
use crate::Target;
use crate::wire::{self, Rig, Tap};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use qbox::proxy::{Handled, Handler, Head, Proxy, Reply, Settings, Taken, Verdict};
use qbox::upstream::{Hosts, Via};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub(crate) const TARGET: Target = Target {
    name: "http1_requests",
    run,
    also: &[],
};

/// No input keeps a connection longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// The longest body that is taken.
const MAX_BODY: usize = 1 << 16;

/// One request, as its reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    method: String,
    target: String,
    body: Vec<u8>,
    /// To its end.
    whole: bool,
}

impl Request {
    fn is_takeable(&self) -> bool {
        takeable(&self.target)
    }
}

fn takeable(target: &str) -> bool {
    target.starts_with("/take")
}

type Log = Arc<Mutex<Vec<Request>>>;

#[derive(Debug, Default)]
struct Taker(Log);

impl Handler for Taker {
    fn inspect(&self, head: Head<'_>) -> Verdict {
        match takeable(head.target) {
            true => Verdict::Take { max_body: MAX_BODY },
            false => Verdict::Pass,
        }
    }

    fn listens(&self, _: Option<SocketAddr>) -> bool {
        false
    }

    async fn handle(&self, request: Taken) -> Handled {
        self.0.lock().unwrap().push(Request {
            method: request.method,
            target: request.target,
            body: request.body.to_vec(),
            whole: true,
        });
        Handled::Reply(Reply {
            status: 299,
            ..Reply::default()
        })
    }
}

/// hyper's server on one connection, to its end; whether it ended for a reason of its own rather than at the client's.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, log: &Log) -> bool {
    let service = service_fn(|request: hyper::Request<Incoming>| async {
        let (parts, mut body) = request.into_parts();
        let place = {
            let mut log = log.lock().unwrap();
            log.push(Request {
                method: parts.method.to_string(),
                target: parts.uri.to_string(),
                body: Vec::new(),
                whole: false,
            });
            log.len() - 1
        };
        loop {
            match body.frame().await {
                None => break log.lock().unwrap()[place].whole = true,
                Some(Err(_)) => break,
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        log.lock().unwrap()[place].body.extend_from_slice(data);
                    }
                }
            }
        }
        Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
    });
    let served = http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    match served {
        Ok(()) => true,
        Err(error) => !error.is_incomplete_message(),
    }
}

fn run(input: &[u8]) {
    let Some((&cuts, bytes)) = input.split_first() else {
        return;
    };
    wire::with_rig(async |rig| one(rig, cuts, bytes).await);
}

/// What went through Qbox.
struct Through {
    served: Vec<Request>,
    taken: Vec<Request>,
    /// What the service got.
    seen: Vec<u8>,
    /// What the client got; `None` behind it: a reset.
    got: Vec<u8>,
    reset: bool,
    opaque: bool,
}

async fn one(rig: &Rig, cuts: u8, bytes: &[u8]) {
    let through = timeout(PATIENCE, through(rig, cuts, bytes))
        .await
        .expect("a connection hangs");
    let straight = Log::default();
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (own_end, ()) = timeout(PATIENCE, async {
        tokio::join!(serve(server, &straight), async {
            // hyper may have ended before.
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        })
    })
    .await
    .expect("hyper hangs");
    let straight = straight.lock().unwrap().clone();
    judge(bytes, &through, &straight, own_end);
}

async fn through(rig: &Rig, cuts: u8, bytes: &[u8]) -> Through {
    let taken = Log::default();
    let served = Log::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let settings = Settings {
        // Only inputs that never come to their end would need it.
        detect_timeout: Duration::from_secs(5),
        ..Settings::default()
    };
    let handler = Arc::new(Taker(Arc::clone(&taken)));
    let proxy = Proxy::new(handler, settings, Hosts::default());
    let (mut client, accepted, peer) = rig.connection().await;
    let relay = proxy.serve_captured(accepted, peer, rig.places[1], Via::Node, Arc::default());
    // Qbox dials at once, and again behind a request that it took.
    let service = async {
        loop {
            let (stream, _) = rig.service.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            serve(Tap { stream, seen }, &served).await;
        }
    };
    let talk = async {
        let (mut reader, mut writer) = client.split();
        let send = async {
            if wire::send(&mut writer, cuts, bytes).await.is_ok() {
                let _ = writer.shutdown().await;
            }
        };
        let mut got = Vec::new();
        let receive = async {
            let read = reader.read_to_end(&mut got).await;
            read.is_err()
        };
        let ((), reset) = tokio::join!(send, receive);
        (got, reset)
    };
    let both = async { tokio::join!(relay, talk) };
    let (got, reset) = tokio::select! {
        ((), talked) = both => talked,
        () = service => unreachable!("it accepts for ever"),
    };
    let opaque = proxy.counters().opaque.get() + proxy.counters().undecided.get() > 0;
    Through {
        served: served.lock().unwrap().clone(),
        taken: taken.lock().unwrap().clone(),
        seen: seen.lock().unwrap().clone(),
        got,
        reset,
        opaque,
    }
}

fn judge(bytes: &[u8], through: &Through, straight: &[Request], own_end: bool) {
    let Through {
        served,
        taken,
        seen,
        got,
        reset,
        opaque,
    } = through;
    let refused = *reset
        || ["HTTP/1.1 4", "HTTP/1.1 501"]
            .iter()
            .any(|begin| holds(got, begin));
    // Of a frame of HTTP/2 one bit means nothing, and is sent unset (RFC 9113, 4.1); what else may differ `http2` knows.
    if taken.is_empty() && !bytes.starts_with(PREFACE) {
        assert!(
            bytes.starts_with(seen),
            "other bytes reached the service: {}",
            seen.escape_ascii()
        );
    }
    if *opaque {
        assert!(taken.is_empty(), "taken from a connection that is copied");
        agree(served, straight, refused, own_end, "served");
        return;
    }
    let (to_take, to_serve): (Vec<_>, Vec<_>) = straight.iter().cloned().partition(Request::is_takeable);
    agree(served, &to_serve, refused, own_end, "served");
    agree(taken, &to_take, refused, own_end, "taken");
}

/// What happened through Qbox against what hyper read without it.
fn agree(through: &[Request], straight: &[Request], refused: bool, own_end: bool, what: &str) {
    for (through, straight) in through.iter().zip(straight) {
        assert_eq!(
            (&through.method, &through.target),
            (&straight.method, &straight.target),
            "another request was {what}"
        );
        let (short, long) = match through.body.len() <= straight.body.len() {
            true => (through, straight),
            false => (straight, through),
        };
        assert!(long.body.starts_with(&short.body), "another body was {what}");
        if through.whole {
            assert!(
                straight.whole || own_end,
                "half a request was {what} as a whole one"
            );
            assert!(
                !straight.whole || through.body == straight.body,
                "another body was {what}"
            );
        } else {
            assert!(
                refused || !straight.whole,
                "a whole request was {what} as half a one"
            );
        }
    }
    let half = straight.last().is_some_and(|last| !last.whole);
    if through.len() > straight.len() {
        assert!(own_end && !half, "what hyper takes for no request was {what}");
    }
    if through.len() < straight.len() {
        let missing = &straight[through.len()];
        // Half a request that would have been taken goes nowhere.
        assert!(
            refused || (!missing.whole && missing.is_takeable()),
            "a request was not {what}: {missing:?}"
        );
    }
}

fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}
