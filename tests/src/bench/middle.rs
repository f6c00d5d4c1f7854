//! A service in the middle, a process of its own in its pod: what it is asked for it asks of those below it, by a trigger of its own over a
//! connection that it keeps, and hands on the headers that it got, as tracing headers are. Whether the hop or Qbox answers that, it
//! doesn't know: the hop is addressed directly, and Qbox captures what goes to the service itself.
//!
//! As little as that takes, on one thread: it is no part of what is measured. Errors: a connection breaks, or an answer is not 200.

use super::message;
use super::services::ANSWER;
use anyhow::{Context, Result, ensure};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Which one it is, and where it sends to.
#[derive(Debug)]
pub struct Middle {
    /// From 0.
    pub number: usize,
    /// Its own name and port, where Qbox stands.
    pub host: String,
    /// Its own address.
    pub own: SocketAddr,
    /// The hop's.
    pub hop: SocketAddr,
}

/// A way to those below, and its idle connections.
struct Way {
    address: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
}

struct Service {
    middle: Middle,
    by_hop: Way,
    by_qbox: Way,
}

/// Serves until it is killed.
///
/// # Errors
/// The port is taken.
pub fn run(middle: Middle) -> Result<()> {
    let way = |address| Way {
        address,
        idle: Mutex::default(),
    };
    let port = middle.own.port();
    let service = Arc::new(Service {
        by_hop: way(middle.hop),
        by_qbox: way(middle.own),
        middle,
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let service = Arc::clone(&service);
            tokio::spawn(async move {
                if let Err(error) = service.serve(stream).await {
                    eprintln!("in the middle: {error:#}");
                }
            });
        }
    })
}

impl Service {
    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::with_capacity(4096);
        loop {
            while let Some(length) = message::length(&buffer)? {
                let request = buffer.get(..length).unwrap_or_default();
                self.ask(request).await?;
                buffer.drain(..length);
                stream.write_all(ANSWER).await?;
            }
            // Whoever asked may go, and let go of connections that it doesn't need, as it likes.
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return Ok(());
            }
        }
    }

    async fn ask(&self, request: &[u8]) -> Result<()> {
        let (way, trigger) = self.trigger(request).context("what is asked of the middle")?;
        let kept = way.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let connection = TcpStream::connect(way.address).await?;
                connection.set_nodelay(true)?;
                connection
            }
        };
        connection.write_all(&trigger).await?;
        let mut answer = Vec::with_capacity(1024);
        while message::length(&answer)?.is_none() {
            ensure!(
                connection.read_buf(&mut answer).await? > 0,
                "the connection was closed"
            );
        }
        let fine = answer.starts_with(b"HTTP/1.1 200");
        ensure!(fine, "{}", String::from_utf8_lossy(&answer));
        let mut idle = way.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(connection);
        Ok(())
    }

    /// `PUT /WAY/SHAPE/TRIP` becomes `POST /WAY/SHAPE/of-N/TRIP`, to this host, with the same fields and body.
    fn trigger(&self, request: &[u8]) -> Option<(&Way, Vec<u8>)> {
        let end = request.windows(4).position(|four| four == b"\r\n\r\n")?;
        let (head, body) = request.split_at_checked(end)?;
        let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
        let path = lines.next()?.split(' ').nth(1)?;
        let (before, trip) = path.rsplit_once('/')?;
        let way = match path.starts_with("/hop/") {
            true => &self.by_hop,
            false => &self.by_qbox,
        };
        let mut text = format!(
            "POST {before}/of-{}/{trip} HTTP/1.1\r\nhost: {}",
            self.middle.number, self.middle.host
        );
        for line in lines {
            if !line
                .get(..5)
                .is_some_and(|name| name.eq_ignore_ascii_case("host:"))
            {
                text.push_str("\r\n");
                text.push_str(line);
            }
        }
        let mut trigger = text.into_bytes();
        trigger.extend_from_slice(body);
        Some((way, trigger))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_becomes_a_trigger() {
        let address = SocketAddr::from(([10, 0, 0, 1], 8080));
        let way = || Way {
            address,
            idle: Mutex::default(),
        };
        let service = Service {
            middle: Middle {
                number: 3,
                host: "middle-3:8080".to_owned(),
                own: address,
                hop: address,
            },
            by_hop: way(),
            by_qbox: way(),
        };
        let request = b"PUT /disk/2-1/7 HTTP/1.1\r\nHost: x\r\ntraceparent: 1\r\ncontent-length: 2\r\n\r\n{}";
        let (way, trigger) = service.trigger(request).unwrap();
        assert!(std::ptr::eq(way, &service.by_qbox));
        assert_eq!(
            String::from_utf8(trigger).unwrap(),
            "POST /disk/2-1/of-3/7 HTTP/1.1\r\nhost: middle-3:8080\r\ntraceparent: 1\r\ncontent-length: 2\r\n\r\n{}"
        );
        let (way, _) = service
            .trigger(b"PUT /hop/2-1/7 HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        assert!(std::ptr::eq(way, &service.by_hop));
        assert!(service.trigger(b"PUT").is_none());
    }
}
