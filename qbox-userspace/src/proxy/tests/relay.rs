//! HTTP/1 that no trigger matches passes as the very bytes.

use super::*;

const GET: &str = "GET /a HTTP/1.1\r\nhOST: x\r\nX-b:  1 \r\nx-B: 2\r\n\r\n";
const OK: &str = "HTTP/1.1 200 Very  Fine\r\nconTENT-length: 2\r\nX-b:\t1\r\nx-B: 2\r\n\r\nhi";

#[tokio::test]
async fn keep_alive() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    for _ in 0..3 {
        client.send(GET).await;
        server.expect(GET).await;
        server.send(OK).await;
        client.expect(OK).await;
    }
    assert_eq!(rig.proxy.counters().passed.get(), 3);
    client.finish().await;
    server.expect_end().await;
    drop(server);
    client.expect_end().await;
}

#[tokio::test]
async fn pipelining() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let head = "HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n";
    client.send([GET, head, GET].concat()).await;
    server.expect([GET, head, GET].concat()).await;
    server.send([OK, answer, OK].concat()).await;
    client.expect([OK, answer, OK].concat()).await;
    assert_eq!(rig.proxy.counters().passed.get(), 3);
}

#[tokio::test]
async fn pipelining_is_bounded() {
    let rig = Rig::with(Settings {
        pipeline: 2,
        ..Settings::default()
    })
    .await;
    let (mut client, mut server) = rig.pair().await;
    client.send(GET.repeat(3)).await;
    server.expect(GET.repeat(2)).await;
    assert_eq!(rig.proxy.counters().passed.get(), 2);
    server.send(OK).await;
    server.expect(GET).await;
    client.expect(OK).await;
}

#[tokio::test]
async fn chunks_and_trailers() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let request = "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                   3\r\nabc\r\n0005;ext=\"1\"\r\nde\r\nf\r\n00\r\nX-Sum: 9\r\nx-sum:10\r\n\r\n";
    let response =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n";
    client.send(request).await;
    server.expect(request).await;
    server.send(response).await;
    client.expect(response).await;
    // The framing was followed: the next request is seen.
    client
        .send("POST /take HTTP/1.1\r\nContent-Length: 2\r\n\r\nyo")
        .await;
    client.expect(echo("yo")).await;
}

#[tokio::test]
async fn a_streamed_chunk_is_not_waited_for() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    for part in [
        "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3\r\nab",
        "c\r\n0\r\n\r\n",
    ] {
        client.send(part).await;
        server.expect(part).await;
    }
    for part in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "6\r\nevent1",
        "\r\n6\r\nevent2",
    ] {
        server.send(part).await;
        client.expect(part).await;
    }
}

#[tokio::test]
async fn responses_without_a_body() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    for response in [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
        client.send(GET).await;
        server.expect(GET).await;
        server.send(response).await;
        client.expect(response).await;
        client.send("GET /take HTTP/1.1\r\n\r\n").await;
        client.expect(echo("")).await;
    }
}

#[tokio::test]
async fn a_body_up_to_the_end_of_the_connection() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    server.expect("GET / HTTP/1.0\r\n\r\n").await;
    server.send("HTTP/1.0 200 OK\r\n\r\nas long as it").await;
    server.send(" takes").await;
    server.finish().await;
    client.expect("HTTP/1.0 200 OK\r\n\r\nas long as it takes").await;
    client.expect_end().await;
    client.finish().await;
    server.expect_end().await;
}

#[tokio::test]
async fn continue_comes_from_the_service() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let head = "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(head).await;
    server.expect(head).await;
    server.send("HTTP/1.1 100 Go  on\r\nX: y\r\n\r\n").await;
    client.expect("HTTP/1.1 100 Go  on\r\nX: y\r\n\r\n").await;
    client.send("body").await;
    server.expect("body").await;
    server.send(OK).await;
    client.expect(OK).await;
}

#[tokio::test]
async fn an_early_answer_passes_at_once() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let head = "PUT / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n";
    client.send(head).await;
    server.expect(head).await;
    server
        .send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await;
    server.finish().await;
    assert!(client.rest().await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn half_close() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client.send(GET).await;
    client.finish().await;
    server.expect(GET).await;
    server.expect_end().await;
    server.send(OK).await;
    server.finish().await;
    client.expect(OK).await;
    client.expect_end().await;
}

#[tokio::test]
async fn a_reset_of_either_side_reaches_the_other() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client.send(GET).await;
    server.expect(GET).await;
    server.reset();
    client.expect_reset().await;

    let (mut client, mut server) = rig.pair().await;
    client.send(GET).await;
    server.expect(GET).await;
    client.reset();
    server.expect_reset().await;
}

#[tokio::test]
async fn half_a_response_and_a_reset() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client.send(GET).await;
    server.expect(GET).await;
    server.send("HTTP/1.1 200 OK\r\nContent-Le").await;
    server.send("ngth: 10\r\n\r\nabc").await;
    client
        .expect("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        .await;
    server.reset();
    client.expect_reset().await;
}

#[tokio::test]
async fn a_response_that_can_not_be_framed_passes_and_no_trigger_follows_it() {
    let rig = Rig::with(Settings {
        pipeline: 1,
        ..Settings::default()
    })
    .await;
    let (mut client, mut server) = rig.pair().await;
    let odd = "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi";
    for _ in 0..3 {
        client.send(GET).await;
        server.expect(GET).await;
        server.send(odd).await;
        client.expect(odd).await;
    }
    assert_eq!(rig.proxy.counters().errors.response.get(), 1);
    client.send("GET /take HTTP/1.1\r\n\r\n").await;
    client.expect_reset().await;
    server.expect_reset().await;
    assert!(rig.taken().is_empty());
}

#[tokio::test]
async fn no_trigger_passes_once_the_service_has_finished() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client.send(GET).await;
    server.expect(GET).await;
    server.send(OK).await;
    client.expect(OK).await;
    server.finish().await;
    client.expect_end().await;
    client.send("GET /take HTTP/1.1\r\n\r\n").await;
    server.expect_reset().await;
    assert!(rig.taken().is_empty());
}

#[tokio::test]
async fn an_unasked_answer_of_an_idle_server_passes() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client.send(GET).await;
    server.expect(GET).await;
    server.send(OK).await;
    client.expect(OK).await;
    let timeout = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    server.send(timeout).await;
    drop(server);
    assert_eq!(client.rest().await, timeout);
}

#[tokio::test]
async fn nothing_follows_an_answer_that_ends_the_connection() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    client.send([GET, "GET /take HTTP/1.1\r\n\r\n"].concat()).await;
    server.expect(GET).await;
    server.send(last).await;
    client.expect(last).await;
    client.send("more").await;
    server.finish().await;
    client.expect_end().await;
    client.finish().await;
    server.expect_end().await;
    assert!(rig.taken().is_empty());
}

#[tokio::test]
async fn a_server_that_says_it_closes_and_does_not() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    client.send([GET, "GET /take HTTP/1.1\r\n\r\n"].concat()).await;
    server.expect(GET).await;
    server.send(last).await;
    client.expect(last).await;
    // The client's end still reaches it.
    client.finish().await;
    server.expect_end().await;
}

#[tokio::test]
async fn no_trigger_behind_a_request_that_said_it_is_the_last() {
    let rig = Rig::new().await;
    for last in [
        "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.0\r\n\r\n",
    ] {
        for beyond in [
            "GET /take HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nbad field\r\n\r\n",
        ] {
            let (mut client, mut server) = rig.pair().await;
            client.send([last, beyond].concat()).await;
            server.expect(last).await;
            // The service does not say that it closes.
            server.send(OK).await;
            client.expect(OK).await;
            server.finish().await;
            client.expect_end().await;
            client.finish().await;
            server.expect_end().await;
        }
    }
    assert!(rig.taken().is_empty());
}

#[tokio::test]
async fn an_upgrade_in_the_last_request() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let last = "GET /a HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    client.send(last).await;
    server.expect(last).await;
    client.send("GET /take HTTP/1.1\r\n\r\n").await;
    server.send("HTTP/1.1 101 Yes\r\n\r\n").await;
    client.expect("HTTP/1.1 101 Yes\r\n\r\n").await;
    server.expect("GET /take HTTP/1.1\r\n\r\n").await;
}
