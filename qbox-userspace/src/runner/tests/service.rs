//! A participant on a loopback port: keeps what it was asked, and does what its script says.

use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A request, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, v)| v.as_str())
    }
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Status and JSON.
    Answer(u16, &'static str),
    /// Nothing, for ever.
    Hang,
    /// RST, once all of the request was read.
    Reset,
    /// 200 once the gate is open.
    Wait(watch::Receiver<bool>),
}

type Script = Arc<dyn Fn(&Seen) -> Act + Send + Sync>;

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    seen: watch::Sender<Vec<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script: Script = Arc::new(script);
        let seen = watch::Sender::default();
        let ledger = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, ledger) = (Arc::clone(&script), ledger.clone());
                // A connection that the client breaks off is no failure of the test.
                tokio::spawn(async move { drop(serve(stream, &script, &ledger).await) });
            }
        });
        Self { address, seen, task }
    }

    /// Answers everything with 200.
    pub(crate) async fn willing() -> Self {
        Self::start(|_| Act::Answer(200, "{}")).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    pub(crate) fn methods(&self) -> Vec<String> {
        self.seen.borrow().iter().map(|s| s.method.clone()).collect()
    }

    /// Waits until it was asked `count` times.
    pub(crate) async fn asked(&self, count: usize) {
        let mut seen = self.seen.subscribe();
        let waiting = seen.wait_for(|s| s.len() >= count);
        let limit = std::time::Duration::from_secs(10);
        tokio::time::timeout(limit, waiting)
            .await
            .expect("the service is not asked")
            .unwrap();
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &Script,
    ledger: &watch::Sender<Vec<Seen>>,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let seen = loop {
            if let Some((seen, length)) = parse(&buffer) {
                buffer.drain(..length);
                break seen;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let act = script(&seen);
        ledger.send_modify(|all| all.push(seen));
        let (status, body) = match act {
            Act::Answer(status, body) => (status, body),
            Act::Hang => return std::future::pending().await,
            Act::Reset => {
                socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
                return Ok(());
            }
            Act::Wait(mut gate) => {
                drop(gate.wait_for(|open| *open).await);
                (200, "{}")
            }
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
    }
}

fn parse(bytes: &[u8]) -> Option<(Seen, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(bytes).unwrap() else {
        return None;
    };
    let headers: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|f| (f.name.to_owned(), String::from_utf8(f.value.to_vec()).unwrap()))
        .collect();
    let length = headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, v)| v.parse::<usize>().unwrap());
    let body = bytes.get(head..head + length)?.to_vec();
    let seen = Seen {
        method: request.method?.to_owned(),
        target: request.path?.to_owned(),
        headers,
        body,
    };
    Some((seen, head + length))
}
