//! The proxy between a scripted client and a scripted service, over real sockets on loopback.

mod ends;
mod explicit;
mod http2;
mod http2_errors;
mod limits;
mod opaque;
mod refused;
mod relay;
mod splits;
mod taken;

use super::{Handled, Handler, Head, Heard, Listener, Proxy, Reply, Settings, Taken, Verdict};
use crate::upstream::{Hosts, Via};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

/// No step of a test takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest body that is taken.
const MAX_BODY: usize = 100;

/// Takes `/take` (echoes the body), `/slow` (the same, once `go` is notified) `/maybe` (passes after all); looks
/// at `/look`.
#[derive(Debug, Default)]
struct Script {
    taken: Mutex<Vec<Taken>>,
    begun: Notify,
    go: Notify,
    finished: Notify,
    /// Of requests that were looked at.
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Handler for Script {
    fn inspect(&self, head: Head<'_>) -> Verdict {
        let path = head.target.strip_prefix("http://upstream").unwrap_or(head.target);
        if path.starts_with("/look") {
            return Verdict::Look { max_body: MAX_BODY };
        }
        match ["/take", "/slow", "/maybe"]
            .iter()
            .any(|taken| path.starts_with(taken))
        {
            true => Verdict::Take { max_body: MAX_BODY },
            false => Verdict::Pass,
        }
    }

    fn listens(&self, _: Option<SocketAddr>) -> bool {
        true
    }

    async fn handle(&self, request: Taken) -> Handled {
        self.taken.lock().unwrap().push(request.clone());
        self.begun.notify_one();
        if request.target.contains("/slow") {
            self.go.notified().await;
            self.finished.notify_one();
        }
        if request.target.contains("/maybe") || request.target.contains("/look") {
            let heard = Arc::clone(&self.heard);
            return Handled::Pass(Some(Listener::new(move |what| heard.lock().unwrap().push(what))));
        }
        Handled::Reply(Reply {
            status: 201,
            // With its own date a reply's bytes are the same each time.
            headers: vec![("Date".into(), "D".into()), ("x-Saga".into(), "7".into())],
            body: request.body,
        })
    }
}

/// What `Script` answers.
fn echo(body: &str) -> String {
    format!(
        "HTTP/1.1 201 Created\r\nDate: D\r\nx-Saga: 7\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A proxy, its port, and the port of its service.
struct Rig {
    proxy: Proxy<Script>,
    script: Arc<Script>,
    front: TcpListener,
    service: TcpListener,
}

impl Rig {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let script = Arc::new(Script::default());
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut hosts = Hosts::default();
        hosts.insert("upstream", service.local_addr().unwrap().ip());
        Self {
            proxy: Proxy::new(Arc::clone(&script), settings, hosts),
            script,
            front: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            service,
        }
    }

    /// A captured connection to `destination`.
    async fn client_of(&self, destination: SocketAddr) -> Peer {
        let client = TcpStream::connect(self.front.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, peer) = self.front.accept().await.unwrap();
        let proxy = self.proxy.clone();
        tokio::spawn(async move {
            proxy
                .serve_captured(stream, peer, destination, Via::Node, Arc::default())
                .await
        });
        Peer::new(client)
    }

    /// A captured connection: its client and, since the proxy dials at once, its service.
    async fn pair(&self) -> (Peer, Peer) {
        let client = self.client_of(self.service.local_addr().unwrap()).await;
        (client, self.server().await)
    }

    /// A connection to the explicit port.
    async fn explicit(&self) -> Peer {
        let client = TcpStream::connect(self.front.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, peer) = self.front.accept().await.unwrap();
        let (proxy, listens) = (self.proxy.clone(), self.front.local_addr().unwrap());
        tokio::spawn(async move { proxy.serve_explicit(stream, peer, listens).await });
        Peer::new(client)
    }

    /// The service's end of the next connection to it.
    async fn server(&self) -> Peer {
        let (stream, _) = timeout(PATIENCE, self.service.accept())
            .await
            .expect("no connection came")
            .unwrap();
        Peer::new(stream)
    }

    fn heard(&self) -> Vec<Heard> {
        self.script.heard.lock().unwrap().clone()
    }

    fn taken(&self) -> Vec<Taken> {
        self.script.taken.lock().unwrap().clone()
    }
}

/// An address at which nobody listens.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A service that neither accepts nor refuses: its queue of one connection is full.
struct Deaf {
    listener: socket2::Socket,
    waiting: std::net::TcpStream,
}

impl Deaf {
    fn new() -> Self {
        let listener = crate::netns::tcp_socket(socket2::Domain::IPV4).unwrap();
        listener
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        Self {
            listener,
            waiting: std::net::TcpStream::connect(address).unwrap(),
        }
    }

    /// It has an ear again: the next connection that comes, but for its own.
    async fn next(&self) -> Peer {
        let own = self.waiting.local_addr().unwrap();
        let accepted = timeout(PATIENCE, async {
            loop {
                match self.listener.accept() {
                    Ok((_, peer)) if peer.as_socket() == Some(own) => {}
                    Ok((stream, _)) => break stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let stream = accepted.await.expect("no connection came");
        stream.set_nonblocking(true).unwrap();
        Peer::new(TcpStream::from_std(stream.into()).unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}

/// One end of a connection.
struct Peer {
    stream: TcpStream,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref()))
            .await
            .expect("nobody reads")
            .unwrap();
    }

    /// The next bytes are these.
    async fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        while got.len() < expected.len() && expected.starts_with(&got) {
            let most = buffer.len().min(expected.len() - got.len());
            let read = timeout(PATIENCE, self.stream.read(&mut buffer[..most])).await;
            match read {
                Ok(Ok(count)) if count > 0 => got.extend_from_slice(&buffer[..count]),
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&got)),
            }
        }
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected));
    }

    /// Everything up to the peer's FIN.
    async fn rest(&mut self) -> String {
        let mut got = Vec::new();
        timeout(PATIENCE, self.stream.read_to_end(&mut got))
            .await
            .expect("no end comes")
            .unwrap();
        String::from_utf8(got).unwrap()
    }

    /// The FIN is next.
    async fn expect_end(&mut self) {
        assert_eq!(self.rest().await, "");
    }

    /// A RST is next.
    async fn expect_reset(&mut self) {
        let mut buffer = [0; 64];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer))
            .await
            .expect("nothing comes");
        assert_eq!(
            read.map_err(|error| error.kind()),
            Err(std::io::ErrorKind::ConnectionReset)
        );
    }

    /// Sends FIN.
    async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Sends RST.
    fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}
