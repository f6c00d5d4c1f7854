//! The transparent proxy: HTTP/1 relayed byte for byte, HTTP/2 frame by frame, a request taken out where the [`Handler`]
//! wants it, anything else copied through.
//!
//! Each client connection has one upstream connection, which is dialled at once, from inside the pod's namespace: the
//! service sees the pod's address, and a server that speaks first is heard. (If the first request is taken it is given
//! back, and dialled again when a request passes.) httparse only observes; what goes out are the very bytes that came in.
//! Memory per connection is bounded: two buffers of up to 64 KiB, none while nothing is said, and a request that is taken. A
//! service that can't be reached is a 502 (504 if it does not answer the connect) to HTTP, a reset to all else.
//!
//! Knows no saga. No errors leave this room: what goes wrong with a connection is seen by its two ends, as HTTP or as a
//! reset, and by the [`Counters`].

mod buffer;
mod chunk;
mod connection;
mod counters;
mod detect;
mod explicit;
mod framing;
mod handler;
mod head;
mod http2;
mod inner;
mod listener;
mod orphan;
mod reply;
mod request;
mod response;
mod sock;
#[cfg(test)]
mod tests;

pub use counters::{Counter, Counters, Errors};
pub use handler::{Handled, Handler, Head, Reply, Taken, Verdict};
pub use listener::{Heard, Listener};

use crate::upstream::{Hosts, Via};
use inner::{Inner, Phase};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::net::TcpStream;

/// The proxy's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a message's head; a longer one of a request is answered 431, or 414 if its first line is.
    pub head: usize,
    /// Connections that are open at once; one more is reset, at once.
    pub connections: usize,
    /// Responses that one connection may be owed; its client is not read from meanwhile.
    pub pipeline: usize,
    /// Streams that are open at once on one HTTP/2 connection; one more is refused, and may be sent again.
    pub streams: usize,
    /// How long a first line that has begun is waited for; after that the connection is copied through. Also how long a
    /// connection whose service can't be reached may wait before it asks for anything.
    pub detect_timeout: Duration,
    /// How long a request's head that has begun may take, and how long more of a body may be waited for that the handler
    /// is to see; after that it is answered 408.
    pub head_timeout: Duration,
    /// How long the upstream may take to accept a connection.
    pub connect_timeout: Duration,
    /// An address of this machine that explicit requests are not sent to (403): the admin API trusts whoever reaches it,
    /// and would take this machine's own connection for its owner's.
    pub private: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            head: 64 << 10,
            connections: 10_000,
            pipeline: 64,
            streams: 4096,
            detect_timeout: Duration::from_secs(1),
            head_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            private: None,
        }
    }
}

/// From where a connection came and where it was going.
#[derive(Debug)]
struct Origin {
    peer: SocketAddr,
    via: Via,
    /// `None`: each request says itself.
    destination: Option<SocketAddr>,
    /// Where the listener is that requests which name their place must not lead back to.
    listens: Option<SocketAddr>,
    /// Its pod is captured no more.
    left: Arc<AtomicBool>,
}

/// Serves connections; a handle, to be cloned freely.
#[derive(Debug)]
pub struct Proxy<H> {
    inner: Arc<Inner<H>>,
}

impl<H> Clone for Proxy<H> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<H: Handler> Proxy<H> {
    /// A proxy without a connection. `hosts` is asked before DNS for the names in explicit requests.
    #[must_use]
    pub fn new(handler: Arc<H>, settings: Settings, hosts: Hosts) -> Self {
        Self {
            inner: Arc::new(Inner::new(handler, settings, hosts)),
        }
    }

    /// Serves a captured connection to its end. `destination` is where the client wanted to go, `via` the namespace it
    /// is in. Once `left` holds it ends as soon as nothing is under way on it, as all do when the proxy drains.
    pub async fn serve_captured(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        destination: SocketAddr,
        via: Via,
        left: Arc<AtomicBool>,
    ) {
        self.serve(
            stream,
            Origin {
                peer,
                via,
                destination: Some(destination),
                listens: None,
                left,
            },
        )
        .await;
    }

    /// Serves a connection to the explicit port to its end: each request says itself where it goes, by its target or its
    /// Host, and goes there from this node. CONNECT is answered 501, a request that would come back to the listener (on `listens`)
    /// 508, one for [`Settings::private`] 403.
    pub async fn serve_explicit(&self, stream: TcpStream, peer: SocketAddr, listens: SocketAddr) {
        sock::keep_alive(&stream);
        self.serve(
            stream,
            Origin {
                peer,
                via: Via::Node,
                destination: None,
                listens: Some(listens),
                left: Arc::default(),
            },
        )
        .await;
    }

    async fn serve(&self, client: TcpStream, from: Origin) {
        let Some(open) = self.inner.admit() else {
            self.inner.counters.over_limit.add();
            tracing::debug!(peer = %from.peer, "too many connections: reset");
            sock::reset_on_close(&client);
            return;
        };
        self.inner.counters.connections.add();
        // Small messages are not to wait for an acknowledgement. If it can't be set, they do.
        let _ = client.set_nodelay(true);
        connection::run(&self.inner, open.id, client, &from).await;
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.inner.count()
    }

    /// Has every connection look whether it is left.
    pub fn look(&self) {
        self.inner.wake();
    }

    /// Ends what is served: each connection with its next response, which says so, or once nothing was asked on it for
    /// [`Settings::detect_timeout`]; all that are left after `grace`. What the handler has begun goes on. The listeners are to be
    /// closed before.
    pub async fn drain(&self, grace: Duration) {
        self.inner.enter(Phase::Draining);
        if tokio::time::timeout(grace, self.inner.none_open()).await.is_err() {
            self.inner.enter(Phase::Aborting);
            self.inner.none_open().await;
        }
    }
}
