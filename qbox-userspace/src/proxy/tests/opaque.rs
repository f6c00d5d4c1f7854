//! What is not HTTP/1, or stops being it, is copied through.

use super::*;

#[tokio::test]
async fn a_server_that_speaks_first() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    server.send("220 mail ready\r\n").await;
    client.expect("220 mail ready\r\n").await;
    client.send("EHLO a\r\n").await;
    server.expect("EHLO a\r\n").await;
    // Even what looks like a trigger is not one here.
    client.send("GET /take HTTP/1.1\r\n\r\n").await;
    server.expect("GET /take HTTP/1.1\r\n\r\n").await;
    assert_eq!(rig.proxy.counters().opaque.get(), 1);
}

#[tokio::test]
async fn bytes_that_are_not_http() {
    let rig = Rig::new().await;
    for hello in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\x16",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"*1\r\n$4\r\nPING\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
    ] {
        let (mut client, mut server) = rig.pair().await;
        client.send(hello).await;
        server.expect(hello).await;
        server.send(b"\x15\x03\xff\0binary").await;
        client.expect(b"\x15\x03\xff\0binary").await;
        client.send(b"more").await;
        client.finish().await;
        server.expect(b"more").await;
        server.expect_end().await;
        server.send(b"last").await;
        drop(server);
        client.expect(b"last").await;
        client.expect_end().await;
    }
    assert_eq!(rig.proxy.counters().opaque.get(), 5);
}

/// As FTP's ABOR has it. It comes at its place, and not out of band any more (RFC 6093, 4).
#[tokio::test]
async fn urgent_bytes_are_not_lost() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    server.send("220 ready\r\n").await;
    client.expect("220 ready\r\n").await;
    for _ in 0..3 {
        for end in [true, false] {
            let (from, to) = match end {
                true => (&mut client, &mut server),
                false => (&mut server, &mut client),
            };
            from.send("ABOR").await;
            let urgent = socket2::SockRef::from(&from.stream).send_out_of_band(b"\r\n");
            assert_eq!(urgent.unwrap(), 2);
            to.expect("ABOR\r\n").await;
            from.send("NOOP").await;
            to.expect("NOOP").await;
        }
    }
}

#[tokio::test]
async fn half_a_line_that_could_be_http_is_copied_when_time_is_up() {
    let rig = Rig::with(Settings {
        detect_timeout: Duration::from_millis(20),
        ..Settings::default()
    })
    .await;
    let (mut client, mut server) = rig.pair().await;
    client.send("HELLO").await;
    server.expect("HELLO").await;
    assert_eq!(rig.proxy.counters().undecided.get(), 1);
    server.send("OLLEH").await;
    client.expect("OLLEH").await;
}

#[tokio::test]
async fn half_a_line_and_the_end() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client.send("GET /ta").await;
    client.finish().await;
    server.expect("GET /ta").await;
    server.expect_end().await;
    assert_eq!(rig.proxy.counters().undecided.get(), 1);
    // Who has said nothing has left nothing to decide.
    let (client, mut server) = rig.pair().await;
    drop(client);
    server.expect_end().await;
    assert_eq!(rig.proxy.counters().undecided.get(), 1);
}

#[tokio::test]
async fn an_upgrade() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let ask = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    client.send(ask).await;
    server.expect(ask).await;
    server.send([agreed, "\u{1}frame"].concat()).await;
    client.expect([agreed, "\u{1}frame"].concat()).await;
    client.send("GET /take HTTP/1.1\r\n\r\n").await;
    server.expect("GET /take HTTP/1.1\r\n\r\n").await;
    server.send("\u{2}").await;
    client.expect("\u{2}").await;
    assert_eq!(rig.proxy.counters().tunnels.get(), 1);
    client.finish().await;
    server.expect_end().await;
    server.send("bye").await;
    drop(server);
    client.expect("bye").await;
    client.expect_end().await;
}

#[tokio::test]
async fn an_eager_client_of_an_upgrade() {
    let rig = Rig::new().await;
    let ask = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    // The second answer can't be read; still its server may have left HTTP.
    for answer in ["HTTP/1.1 101 Switching Protocols\r\n\r\n", "X/1.0 101\r\n\r\n"] {
        let (mut client, mut server) = rig.pair().await;
        client.send([ask, "no\nhttp\n\n"].concat()).await;
        server.expect(ask).await;
        server.send(answer).await;
        client.expect(answer).await;
        server.expect("no\nhttp\n\n").await;
    }
}

/// Its answer is one of HTTP all the same, if not one that can be followed: what comes next is no tunnel, and may be a trigger.
#[tokio::test]
async fn an_upgrade_that_is_refused_unreadably() {
    let rig = Rig::new().await;
    let ask = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "HTTP/1.1 404\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ] {
        let (mut client, mut server) = rig.pair().await;
        client.send(ask).await;
        server.expect(ask).await;
        server.send(answer).await;
        client.expect(answer).await;
        client.send("GET /take HTTP/1.1\r\n\r\n").await;
        client.expect_reset().await;
        server.expect_reset().await;
    }
    assert!(rig.taken().is_empty());
}

#[tokio::test]
async fn an_upgrade_that_is_refused_goes_on_as_http() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let ask = "GET /ws HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n";
    // What follows waits for the answer, since only that says what it is.
    client.send([ask, "GET /take HTTP/1.1\r\n\r\n"].concat()).await;
    server.expect(ask).await;
    server
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    client
        .expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    client.expect(echo("")).await;
}

#[tokio::test]
async fn connect_opens_a_tunnel() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client.send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").await;
    server
        .expect("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
        .await;
    server.send("HTTP/1.1 200 OK\r\n\r\n").await;
    client.expect("HTTP/1.1 200 OK\r\n\r\n").await;
    client.send(b"\x16\x03").await;
    server.expect(b"\x16\x03").await;
}

#[tokio::test]
async fn a_service_that_refuses() {
    let rig = Rig::with(Settings {
        detect_timeout: Duration::from_millis(20),
        ..Settings::default()
    })
    .await;
    let mut client = rig.client_of(nowhere().await).await;
    client.send(b"\x16\x03\x01").await;
    client.expect_reset().await;
    // A client that says nothing learns it, too.
    let mut client = rig.client_of(nowhere().await).await;
    client.expect_reset().await;
    assert_eq!(rig.proxy.counters().errors.dial.get(), 2);
}
