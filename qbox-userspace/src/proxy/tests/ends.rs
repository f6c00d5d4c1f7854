//! How connections end, or don't: resets in every state, each end's time-outs, one direction without the other, readers that
//! don't read.

use super::*;
use std::future::Future;
use tokio::io::Interest;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const TLS: &[u8] = b"\x16\x03\x01\x02\x00\x01";

impl Peer {
    /// The connection is broken, although nobody reads it: what a program that only waits (poll(2)) hears of a RST.
    pub(super) async fn expect_broken(&mut self) {
        let broken = self.stream.ready(Interest::ERROR);
        let ready = timeout(PATIENCE, broken).await.expect("no reset comes").unwrap();
        assert!(ready.is_error());
    }

    /// Sends until nobody takes any more. How much that was.
    async fn stuff(&mut self) -> usize {
        let block = vec![b'x'; 1 << 16];
        let mut sent = 0;
        while let Ok(count) = timeout(Duration::from_millis(300), self.stream.write(&block)).await {
            sent += count.unwrap();
            assert!(sent < 256 << 20, "all of it was taken in");
        }
        sent
    }
}

/// Client and service while something is under way.
async fn played<F: Future<Output = (Peer, Peer)>>(rig: &Rig, play: impl Fn(Peer, Peer) -> F) -> (Peer, Peer) {
    let (client, server) = rig.pair().await;
    play(client, server).await
}

async fn idle(mut client: Peer, mut server: Peer) -> (Peer, Peer) {
    client.send(GET).await;
    server.expect(GET).await;
    server.send(OK).await;
    client.expect(OK).await;
    (client, server)
}

async fn copied(mut client: Peer, mut server: Peer) -> (Peer, Peer) {
    client.send(TLS).await;
    server.expect(TLS).await;
    server.send("binary").await;
    client.expect("binary").await;
    (client, server)
}

async fn copied_since_the_server_spoke(mut client: Peer, mut server: Peer) -> (Peer, Peer) {
    server.send("220 ready\r\n").await;
    client.expect("220 ready\r\n").await;
    (client, server)
}

async fn a_tunnel(mut client: Peer, mut server: Peer) -> (Peer, Peer) {
    let ask = "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let yes = "HTTP/1.1 101 Yes\r\n\r\n";
    client.send(ask).await;
    server.expect(ask).await;
    server.send(yes).await;
    client.expect(yes).await;
    (client, server)
}

async fn half_a_body(mut client: Peer, mut server: Peer) -> (Peer, Peer) {
    let post = "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf";
    client.send(post).await;
    server.expect(post).await;
    (client, server)
}

#[tokio::test]
async fn a_reset_is_one_whatever_is_under_way() {
    let rig = Rig::new().await;
    let (client, mut server) = played(&rig, idle).await;
    client.reset();
    server.expect_reset().await;
    let (mut client, server) = played(&rig, idle).await;
    server.reset();
    client.expect_reset().await;
    let (client, mut server) = played(&rig, copied).await;
    client.reset();
    server.expect_reset().await;
    let (mut client, server) = played(&rig, copied).await;
    server.reset();
    client.expect_reset().await;
    let (client, mut server) = played(&rig, copied_since_the_server_spoke).await;
    client.reset();
    server.expect_reset().await;
    let (mut client, server) = played(&rig, copied_since_the_server_spoke).await;
    server.reset();
    client.expect_reset().await;
    let (client, mut server) = played(&rig, a_tunnel).await;
    client.reset();
    server.expect_reset().await;
    let (mut client, server) = played(&rig, a_tunnel).await;
    server.reset();
    client.expect_reset().await;
    let (client, mut server) = played(&rig, half_a_body).await;
    client.reset();
    server.expect_reset().await;
    let (mut client, server) = played(&rig, half_a_body).await;
    server.reset();
    client.expect_reset().await;
    // Nothing was said yet.
    let (client, mut server) = rig.pair().await;
    client.reset();
    server.expect_reset().await;
    let (mut client, server) = rig.pair().await;
    server.reset();
    client.expect_reset().await;
}

/// What one end has finished it doesn't read any more; that the other breaks it is heard all the same.
#[tokio::test]
async fn a_reset_behind_an_end() {
    let rig = Rig::new().await;
    for copy in [false, true] {
        let pair = || async {
            match copy {
                false => played(&rig, half_a_body).await,
                true => played(&rig, copied).await,
            }
        };
        let (mut client, mut server) = pair().await;
        client.finish().await;
        server.expect_end().await;
        client.reset();
        server.expect_broken().await;
        let (mut client, mut server) = pair().await;
        server.finish().await;
        client.expect_end().await;
        server.reset();
        client.expect_broken().await;
    }
}

/// While one end takes nothing, nothing is read of the other; that it breaks is heard all the same.
#[tokio::test]
async fn a_reset_of_who_is_held_back() {
    let rig = Rig::new().await;
    for begin in [&b"PUT / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n"[..], TLS] {
        let (mut client, mut server) = rig.pair().await;
        client.send(begin).await;
        server.expect(begin).await;
        client.stuff().await;
        client.reset();
        server.expect_broken().await;
        assert_eq!(
            rig.proxy.counters().errors.client.get(),
            1 + u64::from(begin == TLS)
        );
    }
}

/// A service that sends much, and breaks off: who reads gets what was under way, and then the reset; who doesn't gets it
/// soon.
#[tokio::test]
async fn a_reset_of_a_service_whose_client_does_not_read() {
    let rig = Rig::new().await;
    for begin in [GET.as_bytes(), TLS] {
        let (mut client, mut server) = rig.pair().await;
        client.send(begin).await;
        server.expect(begin).await;
        server
            .send("HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
            .await;
        server.stuff().await;
        server.reset();
        client.expect_broken().await;
    }
}

/// A client that goes while the service thinks about an upgrade.
#[tokio::test]
async fn an_upgrade_whose_client_goes() {
    let rig = Rig::new().await;
    let ask = "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let yes = "HTTP/1.1 101 Yes\r\n\r\n";
    let (mut client, mut server) = rig.pair().await;
    client.send(ask).await;
    server.expect(ask).await;
    client.finish().await;
    server.expect_end().await;
    server.send([yes, "last"].concat()).await;
    drop(server);
    assert_eq!(client.rest().await, [yes, "last"].concat());

    for more in ["", "eager"] {
        let (mut client, mut server) = rig.pair().await;
        client.send([ask, more].concat()).await;
        server.expect(ask).await;
        client.reset();
        server.expect_reset().await;
    }
    // Its end waits behind what it has said.
    let (mut client, mut server) = rig.pair().await;
    client.send([ask, "eager"].concat()).await;
    client.finish().await;
    server.expect(ask).await;
    server.send(yes).await;
    server.expect("eager").await;
    server.expect_end().await;
}

#[tokio::test]
async fn a_client_that_goes_while_its_answers_are_waited_for() {
    let rig = Rig::with(Settings {
        pipeline: 2,
        ..Settings::default()
    })
    .await;
    let two = [GET, GET].concat();
    for (before, behind) in [
        (GET, "GET /take HTTP/1.1\r\n\r\n"),
        (GET, "GET / HTTP/1.1\nX: y\n\n"),
        // As many as may be.
        (&two, GET),
    ] {
        let (mut client, mut server) = rig.pair().await;
        client.send([before, behind].concat()).await;
        server.expect(before).await;
        client.reset();
        server.expect_reset().await;
    }
    assert!(rig.taken().is_empty());
}

/// What the handler has begun goes on; the connection to the service is not kept for it.
#[tokio::test]
async fn a_caller_that_breaks_off() {
    let rig = Rig::new().await;
    let (mut client, mut server) = played(&rig, idle).await;
    client
        .send("POST /slow HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    rig.script.begun.notified().await;
    client.reset();
    server.expect_reset().await;
    rig.script.go.notify_one();
    timeout(PATIENCE, rig.script.finished.notified()).await.unwrap();
}

/// A client that leaves while its service does not answer the connect is not connected later.
#[tokio::test]
async fn a_client_that_breaks_before_its_service_is_there() {
    let deaf = Deaf::new();
    let rig = Rig::with(Settings {
        connect_timeout: Duration::from_secs(600),
        ..Settings::default()
    })
    .await;
    for begin in [GET.as_bytes(), TLS] {
        let mut client = rig.client_of(deaf.address()).await;
        client.send(begin).await;
        timeout(PATIENCE, async {
            while rig.proxy.open() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        client.reset();
        timeout(PATIENCE, rig.proxy.inner.none_open()).await.unwrap();
    }
}

/// A client that has said nothing and closes its socket wants no connection any more; one that ends its own direction alone, or
/// has said something, gets it.
#[tokio::test]
async fn a_client_that_ends_before_its_service_is_there() {
    let deaf = Deaf::new();
    let rig = Rig::with(Settings {
        connect_timeout: Duration::from_secs(600),
        ..Settings::default()
    })
    .await;
    let silent = rig.client_of(deaf.address()).await;
    let mut half = rig.client_of(deaf.address()).await;
    let mut hasty = rig.client_of(deaf.address()).await;
    half.finish().await;
    hasty.send(TLS).await;
    drop((silent, hasty));
    timeout(PATIENCE, async {
        while rig.proxy.counters().connections.get() < 3 || rig.proxy.open() > 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it is not noticed that a client has gone");
    let mut heard = Vec::new();
    for _ in 0..2 {
        heard.push(deaf.next().await.rest_bytes().await);
    }
    heard.sort();
    assert_eq!(heard, [b"", TLS]);
    drop(half);
}

#[tokio::test]
async fn one_direction_ends_and_the_other_goes_on() {
    let rig = Rig::new().await;
    for play in [0, 1, 2] {
        let pair = || async {
            match play {
                0 => played(&rig, copied).await,
                1 => played(&rig, copied_since_the_server_spoke).await,
                _ => played(&rig, a_tunnel).await,
            }
        };
        let (mut client, mut server) = pair().await;
        server.finish().await;
        client.expect_end().await;
        for word in ["one", "two"] {
            client.send(word).await;
            server.expect(word).await;
        }
        client.finish().await;
        server.expect_end().await;

        let (mut client, mut server) = pair().await;
        client.finish().await;
        server.expect_end().await;
        for word in ["one", "two"] {
            server.send(word).await;
            client.expect(word).await;
        }
        server.finish().await;
        client.expect_end().await;
    }
    // An answer that is all there before the request is: the rest of it goes on.
    let (mut client, mut server) = played(&rig, half_a_body).await;
    server.send(OK).await;
    server.finish().await;
    assert_eq!(client.rest().await, OK);
    client.send(" more").await;
    server.expect(" more").await;
    client.finish().await;
    server.expect_end().await;
}

/// Neither end of a connection that idles is closed by anyone but the other, however long that takes.
#[tokio::test]
async fn who_idles_is_left_alone() {
    let rig = Rig::with(Settings {
        detect_timeout: Duration::from_millis(5),
        head_timeout: Duration::from_millis(5),
        ..Settings::default()
    })
    .await;
    let (mut client, mut server) = rig.pair().await;
    for _ in 0..3 {
        // As long as the longest of the time-outs, many times.
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send(GET).await;
        server.expect(GET).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.send(OK).await;
        client.expect(OK).await;
    }
    // The service's own time-out.
    server.finish().await;
    client.expect_end().await;
    drop(client);
    server.expect_end().await;
    // The client's own.
    let (client, mut server) = played(&rig, idle).await;
    drop(client);
    server.expect_end().await;
    assert_eq!(rig.proxy.counters().undecided.get(), 0);
}

/// A service that closes an idle connection while a request on it is looked at: nothing of it was sent, so it goes on another.
#[tokio::test]
async fn a_service_that_has_idled_out_loses_no_request_that_is_held() {
    let rig = Rig::new().await;
    for (explicit, how) in [(false, "reset"), (false, "end"), (false, "408"), (true, "end")] {
        let request = "POST /slow/maybe HTTP/1.1\r\nHost: upstream:PORT\r\nContent-Length: 2\r\n\r\nhi";
        let request = request.replace("PORT", &rig.service.local_addr().unwrap().port().to_string());
        let first = request.replace("/slow/maybe", "/");
        let (mut client, mut server) = if explicit {
            let mut client = rig.explicit().await;
            client.send(&first).await;
            (client, rig.server().await)
        } else {
            let (mut client, server) = rig.pair().await;
            client.send(&first).await;
            (client, server)
        };
        server.expect(&first).await;
        server.send(OK).await;
        client.expect(OK).await;
        client.send(&request).await;
        rig.script.begun.notified().await;
        match how {
            "reset" => server.reset(),
            "408" => {
                let late = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
                server.send(late).await;
                drop(server);
            }
            _ => drop(server),
        }
        rig.script.go.notify_one();
        let mut server = rig.server().await;
        server.expect(&request).await;
        server.send(OK).await;
        client.expect(OK).await;
        client.finish().await;
        server.expect_end().await;
        drop(server);
        client.expect_end().await;
    }
}

/// However much a service sends, what its client doesn't read is left with the service.
#[tokio::test]
async fn a_client_that_does_not_read_holds_its_service() {
    let rig = Rig::new().await;
    for begin in [GET.as_bytes(), TLS] {
        let (mut client, mut server) = rig.pair().await;
        client.send(begin).await;
        server.expect(begin).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n";
        server.send(head).await;
        let sent = server.stuff().await;
        client.expect(head).await;
        let mut got = 0;
        let mut buffer = vec![0; 1 << 16];
        while got < sent {
            let read = timeout(PATIENCE, client.stream.read(&mut buffer)).await;
            got += read.expect("no more comes").unwrap();
        }
        assert_eq!(got, sent);
    }
}
