//! One request over HTTP/2 with prior knowledge (RFC 9113), on a connection of its own: for a forwarded trigger that came so,
//! since its service may speak nothing else.
//!
//! On `h2`. A byte that is written says little here, so what counts as not sent is what HTTP/2 itself says was not
//! processed (RFC 9113, 8.7), or what failed before the request was handed to the connection.

use super::client::{Answer, End, Outgoing};
use super::exchange::is_framing;
use super::wire::Wire;
use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use smol_str::SmolStr;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the service may send before it is read: an answer's body is kept, so it need not be held back.
const WINDOW: u32 = 1 << 20;
/// Bytes of an answer's fields, as over HTTP/1.
const HEAD: u32 = 64 << 10;

/// Sends `call` and reads the answer. `sent` is no longer 0 from when the request may have reached the service.
pub(super) async fn exchange(stream: Wire, call: &Outgoing<'_>, body_limit: usize, sent: &AtomicU64) -> End {
    let request = match prepare(call) {
        Ok(request) => request,
        Err(cause) => return End::NotSent(cause),
    };
    let handshake = client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(HEAD)
        .enable_push(false)
        .handshake(stream)
        .await;
    let (requests, connection) = match handshake {
        Ok(ends) => ends,
        Err(error) => return End::NotSent(format!("HTTP/2: {error}")),
    };
    let mut connection = Box::pin(connection);
    let answer = answer(requests, request, call.body.clone(), body_limit, sent);
    tokio::pin!(answer);
    // The connection moves both ways as long as it is polled; its end is the answer's, too.
    let result = tokio::select! {
        biased;
        result = &mut answer => result,
        _ = &mut connection => {
            // Not every end is told to its streams before it is dropped.
            drop(connection);
            answer.await
        }
    };
    match result {
        Ok(answer) => End::Answered(answer),
        Err(error) if sent.load(Ordering::Relaxed) == 0 || refused(&error) => {
            End::NotSent(format!("HTTP/2: {error}"))
        }
        Err(error) => End::Broken(format!("HTTP/2: {error}")),
    }
}

/// The service says that it has not processed the request (RFC 9113, 8.7).
fn refused(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)
}

async fn answer(
    requests: SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
    body_limit: usize,
    sent: &AtomicU64,
) -> Result<Answer, h2::Error> {
    let mut requests = requests.ready().await?;
    let (response, mut out) = requests.send_request(request, body.is_empty())?;
    sent.fetch_add(1, Ordering::Relaxed);
    let write = async {
        let mut left = body;
        while !left.is_empty() {
            out.reserve_capacity(left.len());
            let granted = match poll_fn(|context| out.poll_capacity(context)).await {
                Some(granted) => granted?.min(left.len()),
                None => return Ok(()),
            };
            let part = left.split_to(granted);
            out.send_data(part, left.is_empty())?;
        }
        Ok::<_, h2::Error>(())
    };
    let read = async {
        let (head, body) = response.await?.into_parts();
        let (body, truncated) = read(body, body_limit).await?;
        let headers = head.headers.iter();
        let headers = headers.map(|(name, value)| {
            (
                SmolStr::new(name.as_str()),
                Bytes::copy_from_slice(value.as_bytes()),
            )
        });
        Ok(Answer {
            status: head.status.as_u16(),
            headers: headers.filter(|(name, _)| !is_framing(name)).collect(),
            body,
            truncated,
        })
    };
    tokio::pin!(write, read);
    tokio::select! {
        biased;
        // An answer before the request's end is an answer.
        answer = &mut read => answer,
        // What stops it will be told by the other half, and better.
        _ = &mut write => read.await,
    }
}

async fn read(mut body: RecvStream, limit: usize) -> Result<(Bytes, bool), h2::Error> {
    let mut kept = Vec::new();
    while let Some(data) = body.data().await {
        let data = match data {
            // All of it was there; the service only did not want to hear the rest of the request (RFC 9113, 8.1).
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => break,
            data => data?,
        };
        body.flow_control().release_capacity(data.len())?;
        let room = limit - kept.len();
        kept.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        if data.len() > room {
            // The stream is reset: its rest is of no use.
            return Ok((kept.into(), true));
        }
    }
    Ok((kept.into(), false))
}

fn prepare(call: &Outgoing<'_>) -> Result<Request<()>, String> {
    let uri: Uri = call
        .url
        .parse()
        .map_err(|error| format!("the URL can't be sent over HTTP/2: {error}"))?;
    let method =
        Method::from_bytes(call.method.as_bytes()).map_err(|_| "the method is no token".to_owned())?;
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    for (name, value) in call.headers {
        if is_framing(name) || name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case("expect") {
            continue;
        }
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| "a header's name is no token".to_owned())?;
        let value = HeaderValue::from_bytes(value)
            .map_err(|_| "a header's value holds a control character".to_owned())?;
        headers.append(name, value);
    }
    if !call.body.is_empty() || matches!(call.method, "POST" | "PUT" | "PATCH") {
        headers.insert(http::header::CONTENT_LENGTH, call.body.len().into());
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Settings, Upstream, Via};
    use h2::server;
    use std::time::Duration;
    use tokio::net::TcpListener;

    async fn call(listener: &TcpListener, body: &'static str, headers: &[(SmolStr, Bytes)]) -> End {
        let destination = Some(listener.local_addr().unwrap());
        let settings = Settings {
            response_body: 100_000,
            ..Settings::default()
        };
        Upstream::new(settings)
            .call(Outgoing {
                method: "POST",
                url: "http://trips.svc:8080/trips/7?a=%20b",
                headers,
                body: Bytes::from_static(body.as_bytes()),
                via: &Via::Node,
                destination,
                http2: true,
                credentials: false,
                timeout: Duration::from_secs(20),
                patient: false,
            })
            .await
            .0
    }

    /// A service that does with the one call it gets what is said.
    async fn serve(
        listener: &TcpListener,
        act: impl AsyncFnOnce(Request<RecvStream>, server::SendResponse<Bytes>),
    ) {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = server::handshake(stream).await.unwrap();
        let (request, respond) = connection.accept().await.unwrap().unwrap();
        let act = act(request, respond);
        tokio::pin!(act);
        let mut acting = true;
        loop {
            tokio::select! {
                () = &mut act, if acting => acting = false,
                next = connection.accept() => {
                    assert!(next.is_none_or(|next| next.is_err()), "a second call");
                    return;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_request_and_its_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let headers = [
            ("Idempotency-Key".into(), Bytes::from_static(b"k")),
            ("host".into(), "other".into()),
            ("te".into(), "trailers".into()),
            ("x-b".into(), "2".into()),
        ];
        let body = &*Box::leak("b".repeat(100_000).into_boxed_str());
        let service = serve(&listener, async |request, mut respond| {
            assert_eq!(request.uri(), "http://trips.svc:8080/trips/7?a=%20b");
            let names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["idempotency-key", "x-b", "content-length"]);
            let (got, _) = read(request.into_body(), usize::MAX).await.unwrap();
            let response = http::Response::builder().status(201).header("x-a", "1").body(());
            let mut out = respond.send_response(response.unwrap(), false).unwrap();
            out.send_data(got, true).unwrap();
        });
        let (end, ()) = tokio::join!(call(&listener, body, &headers), service);
        let End::Answered(answer) = end else {
            panic!("{end:?}");
        };
        assert_eq!((answer.status, answer.truncated), (201, false));
        assert_eq!(answer.headers, [("x-a".into(), Bytes::from_static(b"1"))]);
        assert!(answer.body == body);
    }

    /// What is certain, and what is not (RFC 9113, 8.7).
    #[tokio::test]
    async fn resets() {
        for (reason, certain) in [(Reason::REFUSED_STREAM, true), (Reason::INTERNAL_ERROR, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let service = serve(&listener, async |_, mut respond| respond.send_reset(reason));
            let (end, ()) = tokio::join!(call(&listener, "b", &[]), service);
            assert_eq!(matches!(end, End::NotSent(_)), certain, "{end:?}");
            assert_eq!(matches!(end, End::Broken(_)), !certain, "{end:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = serve(&listener, async |_, mut respond| {
            let mut out = respond.send_response(http::Response::new(()), false).unwrap();
            out.send_data(vec![b'a'; 100_001].into(), true).unwrap();
        });
        let (end, ()) = tokio::join!(call(&listener, "", &[]), service);
        let End::Answered(answer) = end else {
            panic!("{end:?}");
        };
        assert_eq!((answer.body.len(), answer.truncated), (100_000, true));
    }

    /// No HTTP/2 there: the request may have been read by then.
    #[tokio::test]
    async fn a_service_that_speaks_http_1() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = async {
            let (stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
            stream.try_write(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        };
        let (end, ()) = tokio::join!(call(&listener, "b", &[]), service);
        assert!(matches!(end, End::Broken(_)), "{end:?}");
    }
}
