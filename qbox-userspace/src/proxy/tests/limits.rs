//! Limits, draining, and memory.

use super::*;

#[tokio::test]
async fn one_connection_too_many() {
    let rig = Rig::with(Settings {
        connections: 1,
        ..Settings::default()
    })
    .await;
    let (mut client, mut server) = rig.pair().await;
    let mut second = rig.client_of(rig.service.local_addr().unwrap()).await;
    second.expect_reset().await;
    assert_eq!((rig.proxy.counters().over_limit.get(), rig.proxy.open()), (1, 1));
    client.finish().await;
    server.finish().await;
    client.expect_end().await;
    rig.proxy.inner.none_open().await;
    let (_client, _server) = rig.pair().await;
}

#[tokio::test]
async fn a_drain_lets_exchanges_end() {
    let rig = Rig::new().await;
    let (mut idle, mut idle_server) = rig.pair().await;
    idle.send("GET / HTTP/1.1\r\n\r\n").await;
    idle_server.expect("GET / HTTP/1.1\r\n\r\n").await;
    idle_server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    idle.expect("HTTP/1.1 204 No Content\r\n\r\n").await;
    let (mut busy, mut server) = rig.pair().await;
    let (mut taking, _taking_server) = rig.pair().await;
    busy.send("GET / HTTP/1.1\r\n\r\n").await;
    server.expect("GET / HTTP/1.1\r\n\r\n").await;
    taking.send("GET /slow HTTP/1.1\r\n\r\n").await;
    rig.script.begun.notified().await;

    let proxy = rig.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain(PATIENCE).await });
    idle.expect_end().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await;
    busy.expect("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n")
        .await;
    server.send("hi").await;
    busy.expect("hi").await;
    busy.expect_end().await;
    rig.script.go.notify_one();
    assert!(taking.rest().await.contains("\r\nConnection: close\r\n"));
    drop(taking);
    timeout(PATIENCE, drained).await.unwrap().unwrap();
    assert_eq!(
        (rig.proxy.open(), rig.proxy.counters().errors.aborted.get()),
        (0, 0)
    );
}

/// A connection whose first request is still on its way: it is served, unless it stays silent.
#[tokio::test]
async fn a_drain_serves_those_that_have_just_come() {
    let rig = Rig::new().await;
    let (mut fresh, mut server) = rig.pair().await;
    let (mut silent, _silent_server) = rig.pair().await;
    let proxy = rig.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain(PATIENCE).await });
    while rig.proxy.inner.phase() == crate::proxy::Phase::Running {
        tokio::task::yield_now().await;
    }
    fresh.send("GET / HTTP/1.1\r\n\r\n").await;
    server.expect("GET / HTTP/1.1\r\n\r\n").await;
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    fresh
        .expect("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        .await;
    fresh.expect_end().await;
    silent.expect_end().await;
    timeout(PATIENCE, drained).await.unwrap().unwrap();
}

/// A client that is in the middle of many requests loses none: the drain ends with an answer, and says so in it.
#[tokio::test]
async fn a_drain_hears_what_is_on_its_way() {
    let rig = Rig::with(Settings {
        detect_timeout: PATIENCE,
        ..Settings::default()
    })
    .await;
    let (mut new, mut server) = rig.pair().await;
    let (mut kept, mut other) = rig.pair().await;
    let (mut quick, mut third) = rig.pair().await;
    kept.send("GET / HTTP/1.1\r\n\r\n").await;
    other.expect("GET / HTTP/1.1\r\n\r\n").await;
    other.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    kept.expect("HTTP/1.1 204 No Content\r\n\r\n").await;
    let proxy = rig.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain(PATIENCE).await });
    while rig.proxy.inner.phase() == crate::proxy::Phase::Running {
        tokio::task::yield_now().await;
    }
    for (client, server) in [(&mut kept, &mut other), (&mut new, &mut server)] {
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        server.expect("GET / HTTP/1.1\r\n\r\n").await;
        server
            .send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi")
            .await;
        client
            .expect("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi")
            .await;
        client.expect_end().await;
    }
    // Only the last of several says it.
    quick.send("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n").await;
    third
        .expect("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        .await;
    third
        .send("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    quick
        .expect("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    quick.expect_end().await;
    timeout(PATIENCE, drained).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_has_a_deadline() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    server.expect("GET / HTTP/1.1\r\n\r\n").await;
    rig.proxy.drain(Duration::from_millis(10)).await;
    client.expect_reset().await;
    server.expect_reset().await;
    assert_eq!(rig.proxy.counters().errors.aborted.get(), 1);
}

#[tokio::test]
async fn a_service_that_does_not_read_holds_its_client() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let total = 64 << 20;
    client
        .send(format!("PUT / HTTP/1.1\r\nContent-Length: {total}\r\n\r\n"))
        .await;
    let block = vec![b'x'; 1 << 16];
    let mut sent = 0;
    // Until the kernel's buffers are full, which the proxy's own would not be if it went on reading.
    while let Ok(count) = timeout(Duration::from_secs(1), client.stream.write(&block)).await {
        sent += count.unwrap();
        assert!(sent < total, "the whole body was taken in");
    }
    let mut got = 0;
    let mut buffer = vec![0; 1 << 16];
    while got < sent {
        got += server.stream.read(&mut buffer).await.unwrap();
    }
}

#[test]
fn a_connection_is_small() {
    let proxy = Proxy::new(Arc::new(Script::default()), Settings::default(), Hosts::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let future = proxy.serve_captured(
            stream,
            nowhere().await,
            nowhere().await,
            Via::Node,
            Arc::default(),
        );
        assert!(size_of_val(&future) <= 4096, "{} bytes", size_of_val(&future));
    });
}
