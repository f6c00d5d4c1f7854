//! HTTP/2 through the proxy, with another's client and server (`h2`) at its ends.

use super::*;
use bytes::Bytes;
use h2::{Reason, client, server};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use std::future::poll_fn;

type Send = client::SendRequest<Bytes>;
type Call = (Request<h2::RecvStream>, server::SendResponse<Bytes>);

/// A client, and a service that takes calls one by one.
pub(super) struct Ends {
    pub(super) rig: Rig,
    pub(super) client: Send,
    pub(super) calls: tokio::sync::mpsc::Receiver<Call>,
    /// Has the service say that it goes.
    pub(super) leave: Arc<Notify>,
    client_ended: tokio::task::JoinHandle<Result<(), h2::Error>>,
    pub(super) server: tokio::task::JoinHandle<()>,
}

async fn ends() -> Ends {
    ends_with(Settings::default(), server::Builder::new()).await
}

async fn ends_with(settings: Settings, builder: server::Builder) -> Ends {
    let rig = Rig::with(settings).await;
    let (client, service) = rig.pair().await;
    let (put, calls) = tokio::sync::mpsc::channel(2000);
    let leave = Arc::new(Notify::new());
    let leaves = Arc::clone(&leave);
    let server = tokio::spawn(async move {
        let Ok(mut connection) = builder.handshake(service.stream).await else {
            return;
        };
        loop {
            tokio::select! {
                call = connection.accept() => match call {
                    Some(Ok(call)) => put.send(call).await.unwrap(),
                    _ => return,
                },
                () = leaves.notified() => connection.graceful_shutdown(),
            }
        }
    });
    let (client, connection) = connect(client).await;
    Ends {
        rig,
        client,
        calls,
        leave,
        client_ended: tokio::spawn(connection),
        server,
    }
}

async fn connect(peer: Peer) -> (Send, client::Connection<TcpStream>) {
    timeout(PATIENCE, client::handshake(peer.stream))
        .await
        .unwrap()
        .unwrap()
}

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://trips:8080{path}"))
        .body(())
        .unwrap()
}

impl Ends {
    /// A request with a body, and the whole answer.
    async fn ask(&mut self, path: &str, body: &str) -> (StatusCode, HeaderMap, String) {
        let answer = self.send(path, body).await;
        whole(answer).await
    }

    async fn send(&mut self, path: &str, body: &str) -> client::ResponseFuture {
        poll_fn(|context| self.client.poll_ready(context)).await.unwrap();
        let request = request(Method::POST, path);
        let (answer, mut out) = self.client.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            out.send_data(body.to_owned().into(), true).unwrap();
        }
        answer
    }

    async fn call(&mut self) -> Call {
        timeout(PATIENCE, self.calls.recv())
            .await
            .expect("no call comes")
            .unwrap()
    }

    /// The service answers the next call with its path and body.
    async fn serve(&mut self) {
        let (request, mut respond) = self.call().await;
        let path = request.uri().path().to_owned();
        let (body, _) = read(request.into_body()).await;
        let mut out = respond.send_response(Response::new(()), false).unwrap();
        out.send_data(format!("{path} {body}").into(), true).unwrap();
    }

    /// As `ask` where the service answers.
    async fn exchange(&mut self, path: &str, body: &str) -> String {
        let answer = self.send(path, body).await;
        self.serve().await;
        whole(answer).await.2
    }
}

async fn read(mut body: h2::RecvStream) -> (String, Option<HeaderMap>) {
    let mut got = Vec::new();
    while let Some(data) = timeout(PATIENCE, body.data()).await.expect("no data comes") {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        got.extend_from_slice(&data);
    }
    let trailers = timeout(PATIENCE, body.trailers()).await.unwrap().unwrap();
    (String::from_utf8(got).unwrap(), trailers)
}

async fn whole(answer: client::ResponseFuture) -> (StatusCode, HeaderMap, String) {
    let answer = timeout(PATIENCE, answer).await.expect("no answer comes").unwrap();
    let (head, body) = answer.into_parts();
    (head.status, head.headers, read(body).await.0)
}

#[tokio::test]
async fn what_is_said_passes() {
    let mut ends = ends().await;
    let mut request = request(Method::PUT, "/a?b=%20");
    for (name, value) in [
        ("te", "trailers"),
        ("x-b", "1"),
        ("x-a", "2"),
        ("x-b", "3"),
        ("authorization", "s"),
    ] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let (answer, mut out) = ends.client.send_request(request.clone(), false).unwrap();
    out.send_data("body".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "4".parse().unwrap());
    out.send_trailers(trailers.clone()).unwrap();

    let (got, mut respond) = ends.call().await;
    assert_eq!((got.method(), got.uri()), (request.method(), request.uri()));
    assert_eq!(got.headers(), request.headers());
    assert_eq!(
        read(got.into_body()).await,
        ("body".to_owned(), Some(trailers.clone()))
    );
    let mut head = Response::builder().status(299).body(()).unwrap();
    head.headers_mut().append("set-cookie", "a".parse().unwrap());
    head.headers_mut().append("set-cookie", "b".parse().unwrap());
    let headers = head.headers().clone();
    let mut out = respond.send_response(head, false).unwrap();
    out.send_data("answer".into(), false).unwrap();
    out.send_trailers(trailers.clone()).unwrap();

    let answer = answer.await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()), (299, &headers));
    assert_eq!(
        read(answer.into_body()).await,
        ("answer".to_owned(), Some(trailers))
    );
    assert_eq!(ends.rig.proxy.counters().passed.get(), 1);
    assert_eq!(ends.rig.proxy.counters().relay.get().count(), 1);
    assert_eq!(ends.rig.proxy.counters().http2.get(), 1);
}

#[tokio::test]
async fn a_trigger_between_others() {
    let mut ends = ends().await;
    assert_eq!(ends.exchange("/1", "x").await, "/1 x");
    for round in 0..3 {
        let (status, headers, body) = ends.ask("/take", "trip").await;
        assert_eq!((status.as_u16(), body.as_str()), (201, "trip"));
        assert_eq!(
            (headers["x-saga"].as_bytes(), headers["content-length"].as_bytes()),
            (&b"7"[..], &b"4"[..])
        );
        assert_eq!(
            ends.exchange(&format!("/{round}"), "y").await,
            format!("/{round} y")
        );
    }
    let taken = ends.rig.taken();
    assert_eq!((taken.len(), &taken[0].body[..]), (3, &b"trip"[..]));
    assert_eq!(
        (taken[0].method.as_str(), taken[0].target.as_str()),
        ("POST", "/take")
    );
    assert_eq!(taken[0].headers[0], ("host".into(), "trips:8080".into()));
}

#[tokio::test]
async fn the_client_goes_and_what_it_started_goes_on() {
    let mut ends = ends().await;
    let answer = ends.send("/slow", "x").await;
    timeout(PATIENCE, ends.rig.script.begun.notified()).await.unwrap();
    drop(answer);
    assert_eq!(ends.exchange("/1", "x").await, "/1 x");
    ends.rig.script.go.notify_one();
    timeout(PATIENCE, ends.rig.script.finished.notified())
        .await
        .unwrap();
    assert_eq!(ends.exchange("/2", "x").await, "/2 x");
}

/// Read, and no trigger after all: it comes behind those that the service knows already.
#[tokio::test]
async fn no_trigger_after_all() {
    let mut ends = ends().await;
    for (path, body) in [("/maybe", "x"), ("/look", "y"), ("/maybe", "")] {
        let answer = ends.send(path, body).await;
        ends.serve().await;
        assert_eq!(whole(answer).await.2, format!("{path} {body}"));
        assert_eq!(ends.exchange("/1", "z").await, "/1 z");
        assert_eq!(ends.ask("/take", "trip").await.0, 201);
    }
    assert_eq!(ends.rig.taken().len(), 6);
}

/// Of each stream its own, though statuses come to stand in the service's table; and that there was none.
#[tokio::test]
async fn who_listens_hears_what_a_stream_was_answered() {
    let mut ends = ends().await;
    let statuses = [201, 409, 200, 201, 409, 418];
    for status in statuses {
        for path in ["/1", "/look"] {
            let answer = ends.send(path, "x").await;
            let (_, mut respond) = ends.call().await;
            let response = Response::builder().status(status).body(()).unwrap();
            respond.send_response(response, true).unwrap();
            assert_eq!(whole(answer).await.0, status);
        }
    }
    let heard = || ends.rig.heard();
    assert_eq!(heard(), statuses.map(Heard::Status));
    let answer = ends.send("/look", "x").await;
    let (_, mut respond) = ends.call().await;
    respond.send_reset(Reason::INTERNAL_ERROR);
    assert!(timeout(PATIENCE, answer).await.unwrap().is_err());
    assert_eq!(ends.rig.heard().last(), Some(&Heard::Nothing));
}

/// What is too long to be looked at passes unseen, and goes on.
#[tokio::test]
async fn a_body_that_is_too_long_to_look_at() {
    let mut ends = ends().await;
    let (answer, mut out) = ends
        .client
        .send_request(request(Method::POST, "/look"), false)
        .unwrap();
    let long = "l".repeat(30_000);
    out.send_data(long.clone().into(), false).unwrap();
    // Another stream is opened meanwhile, so that the first one's number is another with the service.
    assert_eq!(ends.exchange("/1", "z").await, "/1 z");
    out.send_data("end".into(), true).unwrap();
    ends.serve().await;
    assert_eq!(whole(answer).await.2, format!("/look {long}end"));
    assert!(ends.rig.taken().is_empty());
    assert_eq!(ends.rig.proxy.counters().unseen.get(), 1);
}

#[tokio::test]
async fn a_trigger_that_is_too_long() {
    let mut ends = ends().await;
    for body in [101, 60_000, 200_000] {
        let (answer, mut out) = ends
            .client
            .send_request(request(Method::POST, "/take"), false)
            .unwrap();
        out.send_data("l".repeat(body).into(), true).unwrap();
        let (status, _, _) = whole(answer).await;
        assert_eq!(status, 413);
        assert_eq!(ends.exchange("/1", "z").await, "/1 z");
    }
    assert!(ends.rig.taken().is_empty());
    assert_eq!(ends.rig.proxy.counters().errors.body_too_large.get(), 3);
}

#[tokio::test]
async fn resets_pass_with_their_codes() {
    let mut ends = ends().await;
    let (_answer, mut out) = ends
        .client
        .send_request(request(Method::POST, "/1"), false)
        .unwrap();
    let (_, mut respond) = ends.call().await;
    out.send_reset(Reason::INADEQUATE_SECURITY);
    let reset = timeout(PATIENCE, poll_fn(|context| respond.poll_reset(context)))
        .await
        .unwrap();
    assert_eq!(reset.unwrap(), Reason::INADEQUATE_SECURITY);

    let (answer, _out) = ends
        .client
        .send_request(request(Method::POST, "/2"), false)
        .unwrap();
    let (_, mut respond) = ends.call().await;
    respond.send_reset(Reason::CONNECT_ERROR);
    let error = timeout(PATIENCE, answer).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CONNECT_ERROR));
    assert_eq!(ends.exchange("/3", "x").await, "/3 x");
}

/// The service's last word; what is under way ends, its own and the saga.
#[tokio::test]
async fn the_service_goes() {
    let mut ends = ends().await;
    let slow = ends.send("/slow", "x").await;
    timeout(PATIENCE, ends.rig.script.begun.notified()).await.unwrap();
    let passed = ends.send("/1", "y").await;
    let call = ends.call().await;
    ends.leave.notify_one();
    // The client's connection knows once no new request can be sent.
    timeout(PATIENCE, async {
        while poll_fn(|context| ends.client.poll_ready(context)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("no GOAWAY comes");
    let (request, mut respond) = call;
    assert_eq!(read(request.into_body()).await.0, "y");
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(whole(passed).await.0, 200);
    ends.rig.script.go.notify_one();
    assert_eq!(whole(slow).await.0, 201);
    drop(ends.client);
    timeout(PATIENCE, ends.client_ended)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

/// The service's connection breaks while a saga runs.
#[tokio::test]
async fn the_service_is_gone() {
    let mut ends = ends().await;
    let slow = ends.send("/slow", "x").await;
    timeout(PATIENCE, ends.rig.script.begun.notified()).await.unwrap();
    let passed = ends.send("/1", "y").await;
    drop(ends.call().await);
    ends.server.abort();
    let error = timeout(PATIENCE, passed).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{error}");
    ends.rig.script.go.notify_one();
    assert_eq!(whole(slow).await.0, 201);
    drop(ends.client);
    timeout(PATIENCE, ends.client_ended)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn without_a_service() {
    let rig = Rig::new().await;
    let (mut client, connection) = connect(rig.client_of(nowhere().await).await).await;
    let ended = tokio::spawn(connection);
    let (taken, mut out) = client
        .send_request(request(Method::POST, "/take"), false)
        .unwrap();
    out.send_data("trip".into(), true).unwrap();
    let (status, _, body) = whole(taken).await;
    assert_eq!((status.as_u16(), body.as_str()), (201, "trip"));
    let (passed, _) = client.send_request(request(Method::GET, "/1"), true).unwrap();
    let (status, headers, body) = whole(passed).await;
    assert_eq!(
        (status, headers["content-type"].as_bytes()),
        (StatusCode::BAD_GATEWAY, &b"application/problem+json"[..])
    );
    assert!(body.contains("can't connect"), "{body}");
    // It may be there again for the next connection.
    drop(client);
    timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
    assert_eq!(rig.proxy.counters().errors.dial.get(), 1);
}

#[tokio::test]
async fn a_drain_lets_streams_end() {
    let mut ends = ends().await;
    let slow = ends.send("/slow", "x").await;
    timeout(PATIENCE, ends.rig.script.begun.notified()).await.unwrap();
    let passed = ends.send("/1", "y").await;
    let (request, mut respond) = ends.call().await;
    let proxy = ends.rig.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain(PATIENCE).await });
    timeout(PATIENCE, async {
        while poll_fn(|context| ends.client.poll_ready(context)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("no GOAWAY comes");
    assert_eq!(read(request.into_body()).await.0, "y");
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(whole(passed).await.0, 200);
    assert!(!drained.is_finished());
    ends.rig.script.go.notify_one();
    assert_eq!(whole(slow).await.0, 201);
    timeout(PATIENCE, drained)
        .await
        .expect("the drain does not end")
        .unwrap();
    assert_eq!(ends.rig.proxy.counters().errors.aborted.get(), 0);
}

#[tokio::test]
async fn a_thousand_streams() {
    let mut ends = ends().await;
    let mut answers = Vec::new();
    for at in 0..1000 {
        let path = if at % 10 == 0 {
            "/take".to_owned()
        } else {
            format!("/{at}")
        };
        answers.push((path.clone(), ends.send(&path, "x").await));
    }
    let mut calls = Vec::new();
    for _ in 0..900 {
        calls.push(ends.call().await);
    }
    for (request, mut respond) in calls.into_iter().rev() {
        let path = request.uri().path().to_owned();
        let mut out = respond.send_response(Response::new(()), false).unwrap();
        out.send_data(path.into(), true).unwrap();
    }
    for (path, answer) in answers {
        let (status, _, body) = whole(answer).await;
        let expected = if path == "/take" {
            (201, "x")
        } else {
            (200, path.as_str())
        };
        assert_eq!((status.as_u16(), body.as_str()), expected);
    }
    assert_eq!(ends.rig.proxy.counters().relay.get().count(), 900);
}

/// What the service may send is what the client takes, and the proxy keeps next to nothing of it.
#[tokio::test]
async fn a_slow_reader_holds_the_sender_back() {
    let mut ends = ends().await;
    let answer = ends.send("/1", "").await;
    let (_, mut respond) = ends.call().await;
    let mut out = respond.send_response(Response::new(()), false).unwrap();
    out.reserve_capacity(1 << 20);
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    let mut sent = 0;
    // The client's window, and not a byte more.
    while sent < 65_535 {
        let granted = timeout(PATIENCE, poll_fn(|context| out.poll_capacity(context)))
            .await
            .unwrap();
        let granted = granted.unwrap().unwrap().min(65_535);
        out.send_data(vec![1; granted].into(), false).unwrap();
        sent += granted;
    }
    assert_eq!(sent, 65_535);
    assert_eq!(out.capacity(), 0);
    // A saga's answer does not fit either, and waits.
    let taken = ends.send("/take", "trip").await;
    let mut body = answer.into_body();
    let mut got = 0;
    while got < 65_535 {
        let data = timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        got += data.len();
    }
    assert_eq!(whole(taken).await.2, "trip");
    assert!(
        timeout(PATIENCE, poll_fn(|context| out.poll_capacity(context)))
            .await
            .unwrap()
            .is_some()
    );
}

/// A service whose window is smaller than what was read of a request that passes after all.
#[tokio::test]
async fn late_and_larger_than_the_services_window() {
    let mut builder = server::Builder::new();
    builder.initial_window_size(30);
    let mut ends = ends_with(Settings::default(), builder).await;
    assert_eq!(ends.exchange("/0", "x").await, "/0 x");
    let body = "b".repeat(90);
    for _ in 0..3 {
        let answer = ends.send("/maybe", &body).await;
        ends.serve().await;
        assert_eq!(whole(answer).await.2, format!("/maybe {body}"));
        assert_eq!(ends.exchange("/1", &body).await, format!("/1 {body}"));
    }
}

/// A server that speaks first is heard by a client that does not, yet.
#[tokio::test]
async fn the_service_speaks_first() {
    let rig = Rig::new().await;
    let (mut client, mut service) = rig.pair().await;
    service.send(b"\0\0\0\x04\0\0\0\0\0").await;
    // Nothing is known of the client.
    let mut nothing = [0; 1];
    let silent = timeout(Duration::from_millis(100), client.stream.read(&mut nothing)).await;
    assert!(silent.is_err(), "{silent:?}");
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // The proxy adds the longest list of fields that it takes.
    client.expect(b"\0\0\x06\x04\0\0\0\0\0\0\x06\0\x01\0\0").await;
    service.expect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(rig.proxy.counters().opaque.get(), 0);
}

/// A service that is none of HTTP/2 is heard as without Qbox.
#[tokio::test]
async fn the_service_speaks_something_else() {
    let rig = Rig::new().await;
    let (mut client, mut service) = rig.pair().await;
    client
        .send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    service
        .expect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    service.send(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    drop(service);
    assert_eq!(client.rest().await, "HTTP/1.1 400 Bad Request\r\n\r\n");
}

#[tokio::test]
async fn the_explicit_port_asks_for_http_1() {
    let rig = Rig::new().await;
    let (mut client, connection) = connect(rig.explicit().await).await;
    let (answer, _) = client.send_request(request(Method::GET, "/1"), true).unwrap();
    let ended = tokio::spawn(connection);
    let error = timeout(PATIENCE, answer).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::HTTP_1_1_REQUIRED), "{error}");
    let _ = ended.await;
}
