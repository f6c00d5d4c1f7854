//! The bound: a stateless hop. It takes a request, sends one to each of so many services at once over connections that it
//! keeps, and answers when all have answered. hyper on both sides, and tokio as Qbox has it. No log, nothing is undone.

use super::shape::Shape;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Idle connections kept to each service.
const IDLE: usize = 64;

/// A service, and the connections to it that nobody uses.
struct Service {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

type Services = Arc<[Arc<Service>]>;

/// All that can be called.
#[derive(Clone)]
struct Hop {
    below: Services,
    middle: Services,
}

/// Listens at `listen` until it is killed, and calls the services as a path of `Shape` says.
///
/// # Errors
/// The address is taken.
pub fn run(listen: SocketAddr, below: Vec<SocketAddr>, middle: Vec<SocketAddr>) -> Result<()> {
    let services = |addresses: Vec<SocketAddr>| -> Services {
        let service = |address| {
            Arc::new(Service {
                address,
                idle: Mutex::default(),
            })
        };
        addresses.into_iter().map(service).collect()
    };
    let hop = Hop {
        below: services(below),
        middle: services(middle),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let hop = hop.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, hop.clone()));
                let connection = server::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A client that goes away is its own affair.
                drop(connection.await);
            });
        }
    })
}

async fn answer(request: Request<Incoming>, hop: Hop) -> Result<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let mut segments = path.split('/').skip(2);
    let key = segments.next().unwrap_or_default();
    let shape = Shape::from_key(key)?;
    let next = segments.next().unwrap_or_default();
    let (all, first, count, target) = match (next.strip_prefix("of-"), shape.each) {
        (Some(number), each) => {
            let trip = segments.next().unwrap_or_default();
            let first = number.parse::<usize>()?.saturating_mul(each);
            (&hop.below, first, each, format!("/{}/{trip}", shape.pace()))
        }
        (None, 0) => (&hop.below, 0, shape.calls, format!("/{}/{next}", shape.pace())),
        (None, _) => (&hop.middle, 0, shape.calls, format!("/hop/{key}/{next}")),
    };
    request.into_body().collect().await?;
    let mut calls = JoinSet::new();
    for service in all.iter().skip(first).take(count) {
        calls.spawn(call(Arc::clone(service), target.clone()));
    }
    while let Some(ended) = calls.join_next().await {
        ensure!(ended?? == StatusCode::OK, "a service refused");
    }
    let body = Bytes::from(format!("{{\"path\":\"{path}\",\"calls\":{count}}}"));
    Ok(Response::builder()
        .header("content-type", "application/json")
        .body(Full::new(body))?)
}

async fn call(service: Arc<Service>, target: String) -> Result<StatusCode> {
    let idle = || service.idle.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = idle().pop();
    let mut connection = match kept.filter(|connection| !connection.is_closed()) {
        Some(connection) => connection,
        None => connect(service.address).await?,
    };
    let request = Request::builder()
        .method("PUT")
        .uri(target)
        .header("host", service.address.to_string())
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(b"{\"trip\":\"7\"}")))?;
    connection.ready().await?;
    let answer = connection.send_request(request).await?;
    let status = answer.status();
    answer.into_body().collect().await?;
    let mut idle = idle();
    if idle.len() < IDLE {
        idle.push(connection);
    }
    Ok(status)
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
