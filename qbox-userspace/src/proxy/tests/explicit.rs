//! Explicit mode: requests name their own places.

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn by_host() {
    let rig = Rig::new().await;
    let mut client = rig.explicit().await;
    let place = rig.service.local_addr().unwrap();
    let request = format!(
        "POST /x HTTP/1.1\r\nHost: Upstream:{}\r\nContent-Length: 2\r\n\r\nhi",
        place.port()
    );
    client.send(&request).await;
    let mut server = rig.server().await;
    for _ in 0..2 {
        server.expect(&request).await;
        server.send(OK).await;
        client.expect(OK).await;
        client.send(&request).await;
    }
}

#[tokio::test]
async fn by_an_absolute_target() {
    let rig = Rig::new().await;
    let mut client = rig.explicit().await;
    let place = rig.service.local_addr().unwrap();
    let get = |target: &str| format!("GET http://{target} HTTP/1.1\r\nHost: {place}\r\n\r\n");
    client
        .send(get(&format!("{place}/a?b")) + &get(&format!("{place}?c")) + &get(&place.to_string()))
        .await;
    let mut server = rig.server().await;
    for path in ["/a?b", "/?c", "/"] {
        server
            .expect(format!("GET {path} HTTP/1.1\r\nHost: {place}\r\n\r\n"))
            .await;
        server.send(OK).await;
        client.expect(OK).await;
    }
}

#[tokio::test]
async fn from_place_to_place() {
    let rig = Rig::new().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = rig.explicit().await;
    let to = |listener: &TcpListener| {
        format!(
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n",
            listener.local_addr().unwrap().port()
        )
    };
    // Pipelined: the second place is gone to when the first owes nothing.
    client.send(to(&rig.service) + &to(&other)).await;
    let mut server = rig.server().await;
    server.expect(to(&rig.service)).await;
    server.send(OK).await;
    client.expect(OK).await;
    let mut second = Peer::new(timeout(PATIENCE, other.accept()).await.unwrap().unwrap().0);
    second.expect(to(&other)).await;
    second.send(OK).await;
    client.expect(OK).await;
    server.expect_end().await;
}

#[tokio::test]
async fn taken() {
    let rig = Rig::new().await;
    let mut client = rig.explicit().await;
    let port = rig.service.local_addr().unwrap().port();
    client
        .send(format!(
            "POST /take HTTP/1.1\r\nHost: upstream:{port}\r\nContent-Length: 2\r\n\r\nhi"
        ))
        .await;
    client.expect(echo("hi")).await;
    assert_eq!(rig.taken()[0].destination, None);
    client
        .send(format!(
            "POST http://upstream:{port}/maybe HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"
        ))
        .await;
    let mut server = rig.server().await;
    assert_eq!(rig.taken().len(), 1);
    server.expect("POST ").await;
}

#[tokio::test]
async fn what_it_does_not_do() {
    let rig = Rig::new().await;
    let own = rig.front.local_addr().unwrap();
    let free = nowhere().await;
    for (request, status) in [
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_owned(), 501),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: {own}\r\n\r\n"), 508),
        (format!("GET / HTTP/1.1\r\nHost: {free}\r\n\r\n"), 502),
        (
            "GET / HTTP/1.1\r\nHost: no.such.name.invalid\r\n\r\n".to_owned(),
            502,
        ),
    ] {
        let mut client = rig.explicit().await;
        client.send(&request).await;
        let answer = client.rest().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
    }
}

#[tokio::test]
async fn an_upgrade() {
    let rig = Rig::new().await;
    let mut client = rig.explicit().await;
    let place = rig.service.local_addr().unwrap();
    let ask = format!("GET / HTTP/1.1\r\nHost: {place}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.send(&ask).await;
    let mut server = rig.server().await;
    server.expect(&ask).await;
    server.send("HTTP/1.1 101 Switching Protocols\r\n\r\n\u{1}").await;
    client
        .expect("HTTP/1.1 101 Switching Protocols\r\n\r\n\u{1}")
        .await;
    client.send("\u{2}").await;
    server.expect("\u{2}").await;
}

#[tokio::test]
async fn what_follows_an_upgrade_without_an_answer_goes_nowhere() {
    let rig = Rig::new().await;
    let mut client = rig.explicit().await;
    let place = rig.service.local_addr().unwrap();
    let ask = format!("GET / HTTP/1.1\r\nHost: {place}\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    client.send(&ask).await;
    let mut server = rig.server().await;
    server.expect(&ask).await;
    server.send("X/1.0 101\r\n\r\n").await;
    client.expect("X/1.0 101\r\n\r\n").await;
    client.send("for whom?").await;
    client.finish().await;
    server.expect_end().await;
}

#[tokio::test]
async fn what_is_this_machines_own_is_not_reached_through_it() {
    let private = nowhere().await;
    let rig = Rig::with(Settings {
        private: Some(private),
        ..Settings::default()
    })
    .await;
    let port = private.port();
    for request in [
        format!("GET /api HTTP/1.1\r\nHost: {private}\r\n\r\n"),
        format!("GET /api HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"),
        format!(
            "GET http://[::ffff:127.0.0.1]:{port}/api HTTP/1.1\r\nHost: [::ffff:127.0.0.1]:{port}\r\n\r\n"
        ),
    ] {
        let mut client = rig.explicit().await;
        client.send(&request).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{request}: {answer}");
    }
}

/// The port is Qbox's own on its own address alone.
#[tokio::test]
async fn another_address_with_the_listeners_port() {
    let rig = Rig::new().await;
    let port = rig.front.local_addr().unwrap().port();
    let other = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let mut client = rig.explicit().await;
    let request = format!("GET / HTTP/1.1\r\nHost: 127.0.0.2:{port}\r\n\r\n");
    client.send(&request).await;
    let mut server = Peer::new(timeout(PATIENCE, other.accept()).await.unwrap().unwrap().0);
    server.expect(&request).await;
    server.send(OK).await;
    client.expect(OK).await;
}
