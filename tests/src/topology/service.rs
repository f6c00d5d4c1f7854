//! One service of a topology, as a process of its own inside its pod: it keeps a ledger of ids, and one in the middle sends its own
//! trigger for those that it calls, with the headers that it got, as tracing headers are passed on. That is all that it knows of sagas.
//!
//! - `POST /run/ID`: of the root: sends its trigger, and passes the answer's status on.
//! - `PUT /work/ID`: books the id, then calls those below; answers 201, or 502 where they failed, and leaves its own booking to whoever
//!   asked.
//! - `DELETE /work/ID`: takes it out again, and books it never more.
//! - `GET /ledger`: the ids, as JSON.

use crate::world::PORT;
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Read;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, process, thread};
use tokio::net::{TcpListener, TcpStream};

/// What a request under way in a mesh hands on to those that it causes.
const PASSED_ON: [&str; 6] = [
    "x-qbox-transactionid",
    "x-qbox-step",
    "x-qbox-depth",
    "idempotency-key",
    "traceparent",
    "tracestate",
];

/// How long a call to those below may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a service is.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its name, which is its pod's.
    pub name: String,
    /// It calls others.
    pub calls: bool,
    /// It refuses everything.
    pub bad: bool,
}

struct Service {
    role: Role,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    booked: BTreeSet<String>,
    cancelled: BTreeSet<String>,
}

/// Serves until standard input ends.
///
/// # Errors
/// The port is taken.
pub fn serve(role: Role) -> Result<()> {
    thread::spawn(|| {
        // Whoever started this has gone when nothing can be read any more.
        let mut nothing = [0; 1];
        while io::stdin().lock().read(&mut nothing).is_ok_and(|read| read > 0) {}
        process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let service = Arc::new(Service {
        role,
        books: Mutex::default(),
    });
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await?;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // For want of descriptors, or because a client was faster.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let service = Arc::clone(&service);
            tokio::spawn(async move {
                let handler = service_fn(move |request| Arc::clone(&service).answer(request));
                // A client that goes away is its own affair.
                drop(
                    http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), handler)
                        .await,
                );
            });
        }
    })
}

impl Service {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        drop(body.collect().await?);
        let path = head.uri.path().to_owned();
        let (place, id) = path.rsplit_once('/').unwrap_or_default();
        let status = match (&head.method, place) {
            (&Method::GET, "") if id == "ledger" => {
                let booked = json!(self.books().booked);
                return Ok(Response::new(Full::new(Bytes::from(booked.to_string()))));
            }
            (&Method::POST, "/run") | (&Method::PUT, "/work") if self.role.bad => 409,
            (&Method::POST, "/run") => self.call(id, &HeaderMap::new()).await,
            (&Method::PUT, "/work") => self.work(id, &head.headers).await,
            (&Method::DELETE, "/work") => {
                let mut books = self.books();
                books.cancelled.insert(id.to_owned());
                if books.booked.remove(id) { 200 } else { 404 }
            }
            // A trigger that came past Qbox, which is not there now.
            (&Method::POST, "/all") => 503,
            _ => 400,
        };
        Ok(Response::builder().status(status).body(Full::default())?)
    }

    async fn work(&self, id: &str, headers: &HeaderMap) -> u16 {
        {
            let mut books = self.books();
            if books.cancelled.contains(id) {
                return 409;
            }
            books.booked.insert(id.to_owned());
        }
        if !self.role.calls {
            return 201;
        }
        match self.call(id, headers).await {
            200..300 => 201,
            _ => 502,
        }
    }

    /// Sends the own trigger; the answer's status, or 502.
    async fn call(&self, id: &str, headers: &HeaderMap) -> u16 {
        match tokio::time::timeout(PATIENCE, self.exchange(id, headers)).await {
            Ok(Ok(status)) => status,
            Ok(Err(_)) | Err(_) => 502,
        }
    }

    async fn exchange(&self, id: &str, headers: &HeaderMap) -> Result<u16> {
        let host = format!("{}.default.svc", self.role.name);
        let stream = TcpStream::connect((host.as_str(), PORT)).await?;
        let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::post(format!("/all/{id}")).header("host", format!("{host}:{PORT}"));
        for name in PASSED_ON {
            for value in headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        Ok(response.status().as_u16())
    }
}
