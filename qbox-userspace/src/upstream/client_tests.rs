//! The client against scripted services on the loopback: what is certain, and what is not.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/b/7?x=1", listener.local_addr().unwrap());
    (listener, url)
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn call(upstream: &Upstream, method: &str, url: &str, body: &'static str) -> End {
    let headers = [
        ("X-Qbox-TransactionID".into(), Bytes::from_static(b"1")),
        ("content-length".into(), Bytes::from_static(b"999")),
        ("x-b".into(), Bytes::from_static(b"2")),
    ];
    upstream
        .call(Outgoing {
            method,
            url,
            headers: &headers,
            body: Bytes::from_static(body.as_bytes()),
            via: &Via::Node,
            destination: None,
            http2: false,
            timeout: Duration::from_millis(400),
            credentials: true,
            patient: false,
        })
        .await
        .0
}

fn status(end: &End) -> u16 {
    match end {
        End::Answered(answer) => answer.status,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn writes_what_it_was_given_and_uses_the_connection_again() {
    let (listener, url) = listener().await;
    let authority = listener.local_addr().unwrap();
    let service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heads = Vec::new();
        for _ in 0..2 {
            heads.push(read_head(&mut stream).await);
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"body");
            stream.write_all(OK).await.unwrap();
        }
        heads
    });
    let upstream = Upstream::new(Settings::default());
    assert_eq!(status(&call(&upstream, "PUT", &url, "body").await), 200);
    assert_eq!(upstream.idle(), 1);
    assert_eq!(status(&call(&upstream, "PUT", &url, "body").await), 200);
    let expected = format!(
        "PUT /b/7?x=1 HTTP/1.1\r\nHost: {authority}\r\nX-Qbox-TransactionID: 1\r\nx-b: 2\r\nContent-Length: 4\r\n\r\n"
    );
    assert_eq!(service.await.unwrap(), [expected.clone(), expected]);
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_are_not_sent() {
    let (listener, url) = listener().await;
    drop(listener);
    let upstream = Upstream::new(Settings::default());
    let end = call(&upstream, "PUT", &url, "").await;
    assert!(
        matches!(&end, End::NotSent(cause) if cause.contains("refused")),
        "{end:?}"
    );
    let end = call(&upstream, "PUT", "http://no-such-name.invalid/", "").await;
    assert!(matches!(end, End::NotSent(_)), "{end:?}");
    let end = call(&upstream, "P T", &url, "").await;
    assert!(matches!(end, End::NotSent(_)), "{end:?}");
}

#[tokio::test]
async fn no_place_in_time_is_held_back() {
    let (listener, url) = listener().await;
    let settings = Settings {
        max_calls: 1,
        ..Settings::default()
    };
    let upstream = Upstream::new(settings);
    let other = upstream.clone();
    let other_url = url.clone();
    let first = tokio::spawn(async move { call(&other, "GET", &other_url, "").await });
    let (_held, _) = listener.accept().await.unwrap();
    let end = upstream
        .call(Outgoing {
            method: "GET",
            url: &url,
            headers: &[],
            body: Bytes::new(),
            via: &Via::Node,
            destination: None,
            http2: false,
            timeout: Duration::from_millis(50),
            credentials: true,
            patient: false,
        })
        .await
        .0;
    assert!(matches!(end, End::Held(_)), "{end:?}");
    assert_eq!(first.await.unwrap(), End::TimedOut);
}

#[tokio::test]
async fn silence_after_the_request_is_a_timeout() {
    let (listener, url) = listener().await;
    let upstream = Upstream::new(Settings::default());
    let service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _head = read_head(&mut stream).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(|_| ())
    });
    assert_eq!(call(&upstream, "PUT", &url, "").await, End::TimedOut);
    // The connection is closed, not kept: a late answer can't be taken for the next one's.
    let _closed = service.await.unwrap();
    assert_eq!(upstream.idle(), 0);
}

#[tokio::test]
async fn a_reset_after_reading_and_half_an_answer_are_broken() {
    let (listener, url) = listener().await;
    let upstream = Upstream::new(Settings::default());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _head = read_head(&mut stream).await;
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        let _head = read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok")
            .await
            .unwrap();
    });
    let end = call(&upstream, "PUT", &url, "").await;
    assert!(
        matches!(&end, End::Broken(how) if how.contains("reset")),
        "{end:?}"
    );
    let end = call(&upstream, "PUT", &url, "").await;
    assert!(
        matches!(&end, End::Broken(how) if how.contains("middle")),
        "{end:?}"
    );
}

#[tokio::test]
async fn an_idle_connection_that_died_is_not_used() {
    let (listener, url) = listener().await;
    let upstream = Upstream::new(Settings::default());
    let service = tokio::spawn(async move {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _head = read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            // Closed while it is idle.
        }
    });
    for _ in 0..3 {
        assert_eq!(status(&call(&upstream, "GET", &url, "").await), 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    service.await.unwrap();
}

#[tokio::test]
async fn idle_connections_are_bounded_and_closed_in_time() {
    let (listener, url) = listener().await;
    let settings = Settings {
        max_idle_per_upstream: 1,
        idle_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let upstream = Upstream::new(settings);
    tokio::spawn(async move {
        // Both requests are in flight before either is answered.
        let (mut a, _) = listener.accept().await.unwrap();
        let (mut b, _) = listener.accept().await.unwrap();
        for stream in [&mut a, &mut b] {
            let _head = read_head(stream).await;
        }
        a.write_all(OK).await.unwrap();
        b.write_all(OK).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
    });
    let (a, b) = tokio::join!(call(&upstream, "GET", &url, ""), call(&upstream, "GET", &url, ""));
    assert_eq!((status(&a), status(&b), upstream.idle()), (200, 200, 1));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(upstream.idle(), 0);
}

#[tokio::test]
async fn a_forced_destination_keeps_the_host() {
    let (listener, _) = listener().await;
    let destination = listener.local_addr().unwrap();
    let service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        head
    });
    let end = Upstream::new(Settings::default())
        .call(Outgoing {
            method: "GET",
            url: "http://trips.default.svc:8080/",
            headers: &[],
            body: Bytes::new(),
            via: &Via::Node,
            destination: Some(destination),
            http2: false,
            timeout: Duration::from_secs(1),
            credentials: true,
            patient: false,
        })
        .await
        .0;
    assert_eq!(status(&end), 200);
    assert_eq!(
        service.await.unwrap(),
        "GET / HTTP/1.1\r\nHost: trips.default.svc:8080\r\n\r\n"
    );
}

/// The breaker that opens at the second failure, for that long.
fn quick(open_for: u64) -> Upstream {
    Upstream::new(Settings {
        breaker: Breaker {
            failures: 2,
            open_for: Duration::from_millis(open_for),
        },
        ..Settings::default()
    })
}

#[tokio::test]
async fn a_service_that_is_not_there_is_let_alone_until_it_is() {
    let (listener, url) = listener().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let upstream = quick(100);
    for _ in 0..2 {
        let end = call(&upstream, "PUT", &url, "").await;
        assert!(
            matches!(&end, End::NotSent(cause) if cause.contains("refused")),
            "{end:?}"
        );
    }
    let end = call(&upstream, "PUT", &url, "").await;
    let held = |end: &End| matches!(end, End::Held(cause) if cause.contains(&address.to_string()));
    assert!(held(&end), "{end:?}");
    let stats = upstream.stats();
    assert_eq!((stats.opened, stats.held, stats.open.len()), (1, 1, 1));
    // It comes back.
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _head = read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        }
    });
    let patient = Outgoing {
        method: "DELETE",
        url: &url,
        headers: &[],
        body: Bytes::new(),
        via: &Via::Node,
        destination: None,
        http2: false,
        timeout: Duration::from_secs(2),
        credentials: true,
        patient: true,
    };
    assert_eq!(status(&upstream.call(patient).await.0), 200);
    assert_eq!(status(&call(&upstream, "PUT", &url, "").await), 200);
    assert_eq!(upstream.stats().open, []);
}

#[tokio::test]
async fn what_nobody_knows_stays_unknown_and_opens_no_circuit() {
    let (listener, url) = listener().await;
    let upstream = quick(60_000);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(listener.accept().await.unwrap());
        }
    });
    for _ in 0..3 {
        assert_eq!(call(&upstream, "PUT", &url, "").await, End::TimedOut);
    }
    assert_eq!(upstream.stats().opened, 0);
}

#[tokio::test]
async fn who_waited_for_a_place_has_half_of_its_time_left() {
    let (listener, url) = listener().await;
    let upstream = Upstream::new(Settings {
        max_calls_per_upstream: 1,
        ..Settings::default()
    });
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(listener.accept().await.unwrap());
        }
    });
    // Each takes the place for 400 ms; whoever comes meanwhile waits for 200 ms at the most.
    let (a, b) = tokio::join!(call(&upstream, "PUT", &url, ""), call(&upstream, "PUT", &url, ""));
    assert_eq!(a, End::TimedOut);
    assert!(
        matches!(&b, End::Held(cause) if cause.starts_with("as many calls as may be are in flight to ")),
        "{b:?}"
    );
    assert_eq!(upstream.stats().in_flight, 0);
}

/// A service that answers its first two requests when it is told to, and the call to it that is over before.
async fn overdue(settings: Settings) -> (Upstream, (End, Option<Late>), tokio::sync::oneshot::Sender<()>) {
    let (listener, url) = listener().await;
    let (answer, told) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _head = read_head(&mut stream).await;
        drop(told.await);
        // Where nobody listens any more this fails.
        drop(stream.write_all(OK).await);
        std::future::pending::<()>().await;
    });
    let upstream = Upstream::new(settings);
    let ended = upstream
        .call(Outgoing {
            method: "PUT",
            url: &url,
            headers: &[],
            body: Bytes::new(),
            via: &Via::Node,
            destination: None,
            http2: false,
            timeout: Duration::from_millis(50),
            credentials: true,
            patient: false,
        })
        .await;
    (upstream, ended, answer)
}

#[tokio::test]
async fn an_answer_after_its_time_is_heard_and_takes_no_calls_place() {
    let settings = Settings {
        max_calls: 1,
        ..Settings::default()
    };
    let (upstream, (end, late), answer) = overdue(settings).await;
    assert_eq!(end, End::TimedOut);
    let stats = upstream.stats();
    assert_eq!((stats.lingering, stats.in_flight), (1, 0));
    answer.send(()).unwrap();
    assert_eq!(status(&late.unwrap().end().await), 200);
    let stats = upstream.stats();
    assert_eq!((stats.lingering, stats.unheard), (0, 0));
    // The connection is as good as any.
    assert_eq!(upstream.idle(), 1);
}

#[tokio::test]
async fn nobody_is_listened_to_for_ever_nor_are_too_many() {
    let settings = Settings {
        linger: Duration::from_millis(50),
        max_lingering: 1,
        ..Settings::default()
    };
    let (upstream, (end, late), _answer) = overdue(settings).await;
    assert_eq!(end, End::TimedOut);
    assert_eq!(late.unwrap().end().await, End::TimedOut);
    assert_eq!(upstream.stats().unheard, 1);
    for (linger, max_lingering, unheard) in [(1, 0, 1), (0, 1, 0)] {
        let settings = Settings {
            linger: Duration::from_secs(linger),
            max_lingering,
            ..Settings::default()
        };
        let (upstream, (end, late), _answer) = overdue(settings).await;
        assert_eq!(end, End::TimedOut);
        assert!(late.is_none());
        assert_eq!(upstream.stats().unheard, unheard);
    }
}

#[tokio::test]
async fn half_a_request_is_not_left_to_be_read_later() {
    let (listener, url) = listener().await;
    let upstream = Upstream::new(Settings::default());
    let call = upstream.call(Outgoing {
        method: "PUT",
        url: &url,
        headers: &[],
        // More than the kernel takes for a service that doesn't read.
        body: Bytes::from(vec![b'x'; 64 * 1024 * 1024]),
        via: &Via::Node,
        destination: None,
        http2: false,
        timeout: Duration::from_millis(200),
        credentials: true,
        patient: false,
    });
    let (ended, _accepted) = tokio::join!(call, listener.accept());
    assert_eq!(ended.0, End::TimedOut);
    assert!(ended.1.is_none());
}
