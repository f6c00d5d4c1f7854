//! Requests that the handler takes.

use super::*;
use bytes::Bytes;

#[tokio::test]
async fn a_reply_between_others() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let take = "POST /take?x=1 HTTP/1.1\r\nhOst: a\r\nX: 1\r\nx: 2\r\nContent-Length: 5\r\n\r\nhello";
    let get = "GET / HTTP/1.1\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    client.send([get, take, take, get].concat()).await;
    server.expect(get).await;
    // In the order of the requests, however early it was known.
    assert!(rig.taken().is_empty());
    server.send(ok).await;
    client.expect([ok, &echo("hello"), &echo("hello")].concat()).await;
    server.expect(get).await;
    server.send(ok).await;
    client.expect(ok).await;

    let taken = rig.taken().remove(0);
    assert_eq!(
        (&*taken.method, &*taken.target, &*taken.body),
        ("POST", "/take?x=1", &b"hello"[..])
    );
    let headers: Vec<_> = taken
        .headers
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect();
    let expected: [(&str, &[u8]); 4] = [("hOst", b"a"), ("X", b"1"), ("x", b"2"), ("Content-Length", b"5")];
    assert_eq!(headers, expected);
    assert_eq!(
        (taken.via, taken.destination),
        (Via::Node, Some(rig.service.local_addr().unwrap()))
    );
    assert_eq!(
        (
            rig.proxy.counters().taken.get(),
            rig.proxy.counters().passed.get()
        ),
        (2, 2)
    );
}

#[tokio::test]
async fn chunked() {
    let rig = Rig::new().await;
    let (mut client, _server) = rig.pair().await;
    client.send("POST /take HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n").await;
    client.expect(echo("hello")).await;
}

#[tokio::test]
async fn head_and_old_clients() {
    let rig = Rig::new().await;
    let (mut client, _server) = rig.pair().await;
    client
        .send("HEAD /take HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    client.expect(echo("hi").strip_suffix("hi").unwrap()).await;
    client
        .send("GET /take HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    client
        .expect(echo("").replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"))
        .await;
    client.send("GET /take HTTP/1.0\r\n\r\n").await;
    assert_eq!(
        client.rest().await,
        echo("").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
    );
}

#[tokio::test]
async fn close_is_answered_with_close() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client
        .send("GET /take HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(
        client.rest().await,
        echo("").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
    );
    drop(client);
    server.expect_end().await;
}

#[tokio::test]
async fn half_close() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client.send("GET /take HTTP/1.1\r\n\r\n").await;
    client.finish().await;
    client.expect(echo("")).await;
    server.expect_end().await;
    drop(server);
    client.expect_end().await;
}

#[tokio::test]
async fn continue_is_ours() {
    let rig = Rig::new().await;
    let (mut client, _unused) = rig.pair().await;
    client
        .send("POST /take HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    client.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("hi").await;
    client.expect(echo("hi")).await;

    // Passed after all: the service's own 100 is one too many, its other interim answers are not.
    let head = "POST /maybe HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    client.send(head).await;
    client.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("hi").await;
    let mut server = rig.server().await;
    server.expect([head, "hi"].concat()).await;
    let rest = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    server
        .send(["HTTP/1.1 100 Continue\r\n\r\n", rest].concat())
        .await;
    client.expect(rest).await;
    // A client that has sent its body already is not told to.
    client
        .send("POST /take HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    client.expect(echo("hi")).await;
    client
        .send("POST /take HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nh")
        .await;
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    client.send("i").await;
    client.expect(echo("hi")).await;
}

#[tokio::test]
async fn passed_after_all_as_the_very_bytes() {
    let rig = Rig::new().await;
    let (mut client, _unused) = rig.pair().await;
    let mut server = None;
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    for request in [
        "\r\nPOST /maybe HTTP/1.1\r\nhOST:  x \r\nContent-length: 3\r\n\r\nabc",
        "POST /maybe HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n01;x=y\r\na\r\n2\r\nbc\r\n0\r\nt: 1\r\n\r\n",
        "GET /maybe HTTP/1.1\r\n\r\n",
    ] {
        client.send(request).await;
        if server.is_none() {
            server = Some(rig.server().await);
        }
        let server = server.as_mut().unwrap();
        server.expect(request).await;
        server.send(ok).await;
        client.expect(ok).await;
    }
    assert_eq!((rig.taken().len(), rig.proxy.counters().passed.get()), (3, 3));
    client.send("GET /take HTTP/1.1\r\n\r\n").await;
    client.expect(echo("")).await;
}

#[tokio::test]
async fn a_body_that_is_too_long_goes_nowhere() {
    let rig = Rig::new().await;
    let long = "x".repeat(MAX_BODY + 1);
    for request in [
        format!(
            "POST /take HTTP/1.1\r\nContent-Length: {}\r\n\r\n{long}",
            long.len()
        ),
        format!(
            "POST /take HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            long.len()
        ),
        format!("POST /take HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n{long}\r\n0\r\n\r\n"),
        format!(
            "POST /take HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            "1;aaaaaaaaaaaa\r\nx\r\n".repeat(9000)
        ),
    ] {
        let (mut client, mut server) = rig.pair().await;
        // The proxy may end it before it has heard all.
        let _ = client.stream.write_all(request.as_bytes()).await;
        client
            .expect("HTTP/1.1 413 Payload Too Large\r\nContent-Type: application/problem+json\r\n")
            .await;
        drop(client);
        server.expect_end().await;
    }
    assert!(rig.taken().is_empty());
    assert_eq!(rig.proxy.counters().errors.body_too_large.get(), 4);
    // As long as may be.
    let (mut client, _server) = rig.pair().await;
    let body = "x".repeat(MAX_BODY);
    client
        .send(format!(
            "POST /take HTTP/1.1\r\nContent-Length: {MAX_BODY}\r\n\r\n{body}"
        ))
        .await;
    client.expect(echo(&body)).await;
}

#[tokio::test]
async fn what_is_only_looked_at_passes_however_long() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let long = "x".repeat(MAX_BODY + 1);
    let chunked = "POST /look HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (request, seen) in [
        ("POST /look HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi".to_owned(), 1),
        (
            format!(
                "POST /look HTTP/1.1\r\nContent-Length: {}\r\n\r\n{long}",
                long.len()
            ),
            1,
        ),
        (format!("{chunked}65\r\n{long}\r\n0\r\nT: 1\r\n\r\n"), 1),
        (
            format!("{chunked}{}0\r\n\r\n", "1;aaaaaaaaaaaa\r\nx\r\n".repeat(9000)),
            1,
        ),
        (format!("{chunked}2;a=b\r\nhi\r\n0\r\nT: 1\r\n\r\n"), 2),
        (
            "POST /look HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
            2,
        ),
    ] {
        let sent = async { client.stream.write_all(request.as_bytes()).await.unwrap() };
        tokio::join!(sent, server.expect(&request));
        server.send(ok).await;
        client.expect(ok).await;
        assert_eq!(rig.taken().len(), seen);
    }
    assert_eq!(rig.proxy.counters().passed.get(), 6);
    assert_eq!(rig.proxy.counters().unseen.get(), 4);
    // Half of one, too.
    client.send(format!("{chunked}2\r\nh")).await;
    client.finish().await;
    server.expect(format!("{chunked}2\r\nh")).await;
    server.expect_end().await;
}

/// Each answer in its place, interim ones aside; and whatever keeps it from coming.
#[tokio::test]
async fn who_listens_hears_what_it_was_answered() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let look = "GET /look HTTP/1.1\r\n\r\n";
    let other = "GET /other HTTP/1.1\r\n\r\n";
    client.send(format!("{look}{other}")).await;
    server.expect(format!("{look}{other}")).await;
    assert_eq!(rig.heard(), []);
    let first = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    server.send(format!("{first}{second}")).await;
    client.expect(format!("{first}{second}")).await;
    assert_eq!(rig.heard(), [Heard::Status(404)]);
    // The service says what is no answer.
    client.send(look).await;
    server.expect(look).await;
    server.send("no answer\r\n\r\n").await;
    client.expect("no answer\r\n\r\n").await;
    assert_eq!(rig.heard(), [Heard::Status(404), Heard::Nothing]);

    // It ends; there is none.
    let (mut client, mut server) = rig.pair().await;
    client.send(look).await;
    server.expect(look).await;
    drop(server);
    client.expect_end().await;
    assert_eq!(rig.heard().len(), 3);
    let mut client = rig.client_of(nowhere().await).await;
    client.send(look).await;
    client.expect("HTTP/1.1 502").await;
    assert_eq!(rig.heard()[2..], [Heard::Nothing; 2]);

    // Both leave HTTP/1.
    let (mut client, mut server) = rig.pair().await;
    let upgrade = "GET /look HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    client.send(upgrade).await;
    server.expect(upgrade).await;
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    server.send(agreed).await;
    client.expect(agreed).await;
    assert_eq!(rig.heard()[4..], [Heard::Status(101)]);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let rig = Rig::with(Settings {
        head_timeout: Duration::from_millis(20),
        ..Settings::default()
    })
    .await;
    for body in [
        "Content-Length: 5\r\n\r\nhel",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ] {
        let (mut client, _server) = rig.pair().await;
        client.send(format!("POST /take HTTP/1.1\r\n{body}")).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert!(rig.taken().is_empty());
    // What is only looked at passes as it comes.
    let (mut client, mut server) = rig.pair().await;
    client
        .send("POST /look HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel")
        .await;
    server
        .expect("POST /look HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel")
        .await;
    client.send("lo").await;
    server.expect("lo").await;
}

#[tokio::test]
async fn half_a_request_goes_nowhere() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client
        .send("POST /take HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel")
        .await;
    client.finish().await;
    server.expect_end().await;
    assert!(rig.taken().is_empty());
}

#[tokio::test]
async fn the_caller_going_away_ends_nothing() {
    let rig = Rig::new().await;
    let (mut client, _server) = rig.pair().await;
    client
        .send("POST /slow HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    rig.script.begun.notified().await;
    client.reset();
    rig.proxy.drain(Duration::ZERO).await;
    rig.script.go.notify_one();
    timeout(PATIENCE, rig.script.finished.notified())
        .await
        .expect("the handler was cancelled");
}

#[tokio::test]
async fn a_trigger_needs_no_service() {
    let rig = Rig::new().await;
    let mut client = rig.client_of(nowhere().await).await;
    for _ in 0..2 {
        client
            .send("POST /take HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
            .await;
        client.expect(echo("hi")).await;
    }
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn a_service_that_leaves_meanwhile() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let ok = "HTTP/1.1 204 No Content\r\n\r\n";
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    server.expect("GET / HTTP/1.1\r\n\r\n").await;
    server.send(ok).await;
    client.expect(ok).await;
    client
        .send("POST /slow HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    rig.script.begun.notified().await;
    server.reset();
    rig.script.go.notify_one();
    client.expect("HTTP/1.1 201 ").await;
}

#[tokio::test]
async fn a_service_that_serves_one_connection_at_a_time_is_not_kept_waiting() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client
        .send("POST /slow HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    // Else it would not hear what the saga has to say to it.
    server.expect_end().await;
    drop(server);
    rig.script.go.notify_one();
    client.expect(echo("hi")).await;
    // A request that passes gets another connection.
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let get = "GET / HTTP/1.1\r\n\r\n";
    for request in [get, "GET /maybe HTTP/1.1\r\n\r\n"] {
        client.send(request).await;
    }
    let mut server = rig.server().await;
    server.expect(get).await;
    server.send(ok).await;
    client.expect(ok).await;
    // That one has been of use: it stays.
    server.expect("GET /maybe HTTP/1.1\r\n\r\n").await;
    server.send(ok).await;
    client.expect(ok).await;
}

#[tokio::test]
async fn what_a_service_that_was_left_says_is_not_heard() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client
        .send("POST /take HTTP/1.1\r\nContent-Length: 2\r\n\r\nh")
        .await;
    let _ = server
        .stream
        .write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        .await;
    drop(server);
    client.send("i").await;
    client.expect(echo("hi")).await;
    client.finish().await;
    client.expect_end().await;
}

#[tokio::test]
async fn nothing_of_the_service_comes_before_a_reply() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let ok = "HTTP/1.1 204 No Content\r\n\r\n";
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    server.expect("GET / HTTP/1.1\r\n\r\n").await;
    server.send(ok).await;
    client.expect(ok).await;
    client
        .send("POST /slow HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    rig.script.begun.notified().await;
    // Such as an idle server sends before it closes.
    let timeout = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
    server.send(timeout).await;
    server.finish().await;
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    rig.script.go.notify_one();
    let all = client.rest().await;
    assert!(all.starts_with("HTTP/1.1 201 "), "{all}");
}

#[tokio::test]
async fn a_caller_that_has_its_answer_is_not_reset() {
    let rig = Rig::with(Settings {
        connect_timeout: Duration::from_millis(50),
        ..Settings::default()
    })
    .await;
    let deaf = Deaf::new();
    let mut client = rig.client_of(deaf.address()).await;
    client.send("GET /take HTTP/1.1\r\n\r\n").await;
    client.expect(echo("")).await;
    client.finish().await;
    client.expect_end().await;
}

#[tokio::test]
async fn passed_after_all_without_a_service() {
    let rig = Rig::new().await;
    let mut client = rig.client_of(nowhere().await).await;
    client
        .send("POST /maybe HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    assert!(client.rest().await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn a_second_coding_can_not_be_taken() {
    let rig = Rig::new().await;
    let (mut client, _server) = rig.pair().await;
    client
        .send("POST /take HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
        .await;
    client.expect("HTTP/1.1 501 ").await;
    assert!(rig.taken().is_empty());
}

#[tokio::test]
async fn a_reply_is_dated() {
    let reply = Reply {
        status: 200,
        headers: vec![("A".into(), Bytes::from_static(b"b"))],
        body: Bytes::new(),
    };
    let bytes = super::super::reply::serialize(
        &reply,
        super::super::reply::Terms::default(),
        std::time::SystemTime::now(),
    );
    assert!(String::from_utf8(bytes).unwrap().contains("\r\nDate: "));
}
