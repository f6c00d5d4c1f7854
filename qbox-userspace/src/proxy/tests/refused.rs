//! Requests that two readers could take for different ones are answered 400, and go nowhere.

use super::*;

/// Sends `bytes`; what comes back begins with `status`, and the service gets nothing.
async fn refused(rig: &Rig, bytes: &str, status: u16) {
    let mut server = answered(rig, bytes, status).await;
    server.expect_end().await;
}

/// Sends `bytes`; what comes back begins with `status`. Returns the service's end.
async fn answered(rig: &Rig, bytes: &str, status: u16) -> Peer {
    let (mut client, server) = rig.pair().await;
    client.send(bytes).await;
    let answer = client.rest().await;
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{bytes:?}: {answer}"
    );
    assert!(
        answer.contains("\r\nConnection: close\r\n") && answer.contains(&format!("\"status\":{status}")),
        "{answer}"
    );
    server
}

#[tokio::test]
async fn smuggling() {
    let rig = Rig::new().await;
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "Host: a\r\nHost: b\r\n",
    ] {
        refused(
            &rig,
            &format!("POST / HTTP/1.1\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n"),
            400,
        )
        .await;
    }
    refused(
        &rig,
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    )
    .await;
    assert_eq!(rig.proxy.counters().errors.malformed.get(), 16);
    // What follows would be a body to one reader, a request to another.
    refused(
        &rig,
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\nhello",
        400,
    )
    .await;
    assert_eq!(rig.proxy.counters().passed.get(), 0);
}

#[tokio::test]
async fn a_malformed_chunk() {
    let rig = Rig::new().await;
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["5\nhello", "0x5\r\n", "2\r\nabc\r\n", "ffffffffffffffff1\r\n"] {
        // The head may have passed; the service is told that nothing whole follows it.
        let mut server = answered(&rig, &format!("{head}{body}"), 400).await;
        let mut got = Vec::new();
        let end = timeout(PATIENCE, server.stream.read_to_end(&mut got))
            .await
            .unwrap();
        assert_eq!(
            end.map_err(|error| error.kind()),
            Err(std::io::ErrorKind::ConnectionReset)
        );
    }
    let head = "POST /take HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(&rig, &format!("{head}2\r\nabc\r\n"), 400).await;
    assert!(rig.taken().is_empty());
}

#[tokio::test]
async fn a_malformed_chunk_behind_an_answer_resets() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
    client.send(head).await;
    server.expect(head).await;
    server
        .send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        .await;
    client
        .expect("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        .await;
    client.send("zz\r\n").await;
    client.expect_reset().await;
    server.expect_reset().await;
}

#[tokio::test]
async fn the_answer_waits_for_those_before_it() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let get = "GET / HTTP/1.1\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    client
        .send([get, "GET / HTTP/1.1\r\nbad field\r\n\r\n"].concat())
        .await;
    server.expect(get).await;
    server.send(ok).await;
    let answer = client.rest().await;
    assert!(answer.starts_with(&[ok, "HTTP/1.1 400 "].concat()), "{answer}");
}

#[tokio::test]
async fn heads_that_are_too_long() {
    let rig = Rig::new().await;
    let field = format!("X: {}\r\n", "y".repeat(70_000));
    refused(&rig, &format!("GET / HTTP/1.1\r\n{field}\r\n"), 431).await;
    refused(
        &rig,
        &format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)),
        431,
    )
    .await;
    assert_eq!(rig.proxy.counters().errors.head_too_large.get(), 2);
    // As long as may be.
    let (mut client, mut server) = rig.pair().await;
    let head = "GET / HTTP/1.1\r\nX: ";
    let most = format!("{head}{}\r\n\r\n", "y".repeat((64 << 10) - head.len() - 4));
    client.send(&most).await;
    server.expect(&most).await;
}

#[tokio::test]
async fn a_first_line_that_is_longer_than_a_head_may_be() {
    let rig = Rig::new().await;
    let line = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(70_000));
    refused(&rig, &line, 414).await;
    let (mut client, mut server) = rig.pair().await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    server.expect("GET / HTTP/1.1\r\n\r\n").await;
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    client.expect("HTTP/1.1 204 No Content\r\n\r\n").await;
    client.send(&line).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 414 "));
    assert_eq!(rig.proxy.counters().errors.head_too_large.get(), 2);
}

#[tokio::test]
async fn a_head_that_does_not_end() {
    let rig = Rig::with(Settings {
        head_timeout: Duration::from_millis(20),
        ..Settings::default()
    })
    .await;
    refused(&rig, "GET / HTTP/1.1\r\nHost: a", 408).await;
    // Between requests no time passes.
    let (mut client, mut server) = rig.pair().await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    server.expect("GET / HTTP/1.1\r\n\r\n").await;
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    client.expect("HTTP/1.1 204 No Content\r\n\r\n").await;
    let silence = timeout(Duration::from_millis(100), client.stream.peek(&mut [0])).await;
    assert!(silence.is_err(), "{silence:?}");
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    server.expect("GET / HTTP/1.1\r\n\r\n").await;
}

#[tokio::test]
async fn a_service_that_refuses() {
    let rig = Rig::new().await;
    let mut client = rig.client_of(nowhere().await).await;
    client.send("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && answer.contains("can't connect to 127."),
        "{answer}"
    );
    assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    let mut client = rig.client_of(nowhere().await).await;
    client.send("HEAD / HTTP/1.1\r\n\r\n").await;
    assert!(client.rest().await.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn a_service_that_does_not_answer_the_connect() {
    let rig = Rig::with(Settings {
        connect_timeout: Duration::from_millis(50),
        ..Settings::default()
    })
    .await;
    let deaf = Deaf::new();
    let mut client = rig.client_of(deaf.address()).await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 504 ") && answer.contains("no answer within 50ms"),
        "{answer}"
    );
}
