//! The HTTP side of a service: hyper, under TLS or not, on a thread and a runtime of its own.

use super::{Act, Asked, Books, lock};
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::json;
use socket2::Socket;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// Longer bodies than this are counted, not kept.
const KEPT_BODY: usize = 64 * 1024;

/// The thread that serves. Dropping it closes the listeners and all connections.
pub(super) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(
        name: &'static str,
        books: Arc<Mutex<Books>>,
        listeners: Vec<TcpListener>,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self> {
        let tls = tls.map(TlsAcceptor::from);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime")?;
        let listeners = {
            let _inside = runtime.enter();
            let open = |listener: TcpListener| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            };
            listeners.into_iter().map(open).collect::<io::Result<Vec<_>>>()?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(format!("service-{name}"))
            .spawn(move || {
                runtime.block_on(async {
                    for listener in listeners {
                        tokio::spawn(accept(name, listener, Arc::clone(&books), tls.clone()));
                    }
                    drop(stopped.await);
                });
                runtime.shutdown_timeout(Duration::from_secs(1));
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn accept(
    name: &'static str,
    listener: tokio::net::TcpListener,
    books: Arc<Mutex<Books>>,
    tls: Option<TlsAcceptor>,
) {
    while let Ok((stream, peer)) = listener.accept().await {
        let (books, tls) = (Arc::clone(&books), tls.clone());
        tokio::spawn(async move {
            // A client that goes away is its own affair, and a reset is meant.
            drop(serve(name, stream, peer.ip().to_canonical(), books, tls).await);
        });
    }
}

async fn serve(
    name: &'static str,
    stream: tokio::net::TcpStream,
    peer: IpAddr,
    books: Arc<Mutex<Books>>,
    tls: Option<TlsAcceptor>,
) -> Result<()> {
    let stream = stream.into_std()?;
    // A second descriptor of the same socket, to have it reset when both are closed.
    let socket = Arc::new(Socket::from(stream.try_clone()?));
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let handler = |shown: Option<Vec<u8>>| {
        service_fn(move |request| {
            let whom = (peer, shown.clone());
            answer(name, request, whom, Arc::clone(&books), Arc::clone(&socket))
        })
    };
    let http = http1::Builder::new();
    match tls {
        None => http.serve_connection(TokioIo::new(stream), handler(None)).await?,
        Some(tls) => {
            let stream = tls.accept(stream).await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let shown = shown.map(|certificate| certificate.to_vec());
            http.serve_connection(TokioIo::new(stream), handler(shown))
                .await?;
        }
    }
    Ok(())
}

async fn answer(
    name: &'static str,
    request: Request<Incoming>,
    (peer, certificate): (IpAddr, Option<Vec<u8>>),
    books: Arc<Mutex<Books>>,
    socket: Arc<Socket>,
) -> Result<Response<Full<Bytes>>> {
    let (head, mut body) = request.into_parts();
    let mut kept = Vec::new();
    let mut length = 0_u64;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.len() as u64;
            if kept.len() + data.len() <= KEPT_BODY {
                kept.extend_from_slice(&data);
            }
        }
    }
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let asked = Asked {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: String::from_utf8_lossy(&kept).into_owned(),
        peer,
        certificate,
    };
    let act = {
        let mut books = lock(&books);
        books.asked.push(asked.clone());
        (books.script)(&asked)
    };
    let refused = |status| {
        let body = json!({ "service": name, "id": asked.id(), "refused": true });
        respond(status, &[("content-type", "application/json")], body.to_string())
    };
    if let Act::Refuse(status) = act {
        return refused(status);
    }
    let (status, booked) = match act {
        Act::ServeAfter(delay) => {
            let (asked, books) = (asked.clone(), Arc::clone(&books));
            // A task of its own: what is under way goes on when the connection is closed.
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                book(&asked, &books)
            })
            .await?
        }
        _ => book(&asked, &books),
    };
    match act {
        Act::Answer(status, headers, body) => return respond(status, &headers, body.to_owned()),
        Act::ServeLate(delay) => tokio::time::sleep(delay).await,
        Act::ServeAndReset => {
            // Without lingering, close(2) sends RST (socket(7), tcp(7)).
            socket.set_linger(Some(Duration::ZERO))?;
            anyhow::bail!("reset on purpose");
        }
        Act::Serve | Act::ServeAfter(_) | Act::Refuse(_) => {}
    }
    let body = json!({
        "service": name, "id": asked.id(), "booked": booked, "peer": peer.to_string(), "length": length,
    });
    respond(
        status,
        &[("content-type", "application/json"), ("x-service", name)],
        body.to_string(),
    )
}

/// Does what was asked, and says the status and whether the id is booked now.
fn book(asked: &Asked, books: &Mutex<Books>) -> (u16, bool) {
    let mut books = lock(books);
    let id = asked.id();
    match asked.method.as_str() {
        "PUT" | "POST" => {
            books.booked.insert(id.to_owned());
            (201, true)
        }
        "DELETE" if books.booked.remove(id) => (200, false),
        _ if books.booked.contains(id) => (200, true),
        _ => (404, false),
    }
}

fn respond(status: u16, headers: &[(&str, &str)], body: String) -> Result<Response<Full<Bytes>>> {
    let response = headers
        .iter()
        .fold(Response::builder().status(status), |response, (name, value)| {
            response.header(*name, *value)
        });
    Ok(response.body(Full::new(Bytes::from(body)))?)
}
