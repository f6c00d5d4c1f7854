//! A service's bytes, any at all, through the real proxy to hyper's client, which sends one request after the other and a
//! trigger at last.
//!
//! The input's first byte says how the service cuts its bytes into writes, the second what is asked, two bits a request; the
//! rest are the answers, each ended by a byte 0xfe. Whatever the bytes are:
//! - the client gets the very bytes of the service and nothing else, but for Qbox's own reply to the trigger;
//! - nobody waits for ever;
//! - where the answers are plain ones by a reader of this file's own, the client reads each as it is, and the trigger's reply
//!   is the next: none is lost, none is another's.

use crate::Target;
use crate::wire::{self, Rig, Tap};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use qbox::proxy::{Handled, Handler, Head, Proxy, Reply, Settings, Taken, Verdict};
use qbox::upstream::{Hosts, Via};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const TARGET: Target = Target {
    name: "http1_responses",
    run,
    also: &[],
};

/// No input keeps a connection longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a service waits for the next request when its answer is such that a client may well wait for more of it.
const STALL: Duration = Duration::from_millis(15);
/// Behind each answer.
const END: u8 = 0xfe;
/// What of an input's answers is played.
const MOST: usize = 4;
/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Get,
    Head,
    Post,
    /// To leave HTTP/1.
    Upgrade,
}

/// An answer, as its reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Taker {
    taken: Mutex<u32>,
    /// In its reply alone: another each time, so that no input can have it.
    mark: String,
}

impl Taker {
    fn new() -> Self {
        Self {
            taken: Mutex::default(),
            mark: format!("{:016x}", RandomState::new().hash_one(0)),
        }
    }
}

impl Handler for Taker {
    fn inspect(&self, head: Head<'_>) -> Verdict {
        match head.target {
            "/take" => Verdict::Take { max_body: 1 << 16 },
            _ => Verdict::Pass,
        }
    }

    fn listens(&self, _: Option<SocketAddr>) -> bool {
        false
    }

    async fn handle(&self, request: Taken) -> Handled {
        assert_eq!(&request.body[..], b"trigger");
        *self.taken.lock().unwrap() += 1;
        Handled::Reply(Reply {
            status: 299,
            headers: vec![("x-own".into(), self.mark.clone().into())],
            body: Bytes::from_static(b"own"),
        })
    }
}

fn run(input: &[u8]) {
    let [cuts, kinds, bytes @ ..] = input else {
        return;
    };
    let answers: Vec<&[u8]> = bytes.split(|byte| *byte == END).take(MOST).collect();
    let asked = |number: usize| match (kinds >> (2 * number)) & 3 {
        0 => Asked::Get,
        1 => Asked::Head,
        2 => Asked::Post,
        _ => Asked::Upgrade,
    };
    let scenes: Vec<(Asked, &[u8])> = (answers.into_iter().enumerate())
        .map(|(number, answer)| (asked(number), answer))
        .collect();
    wire::with_rig(async |rig| {
        timeout(PATIENCE, one(rig, *cuts, &scenes))
            .await
            .expect("a connection hangs");
    });
}

async fn one(rig: &Rig, cuts: u8, scenes: &[(Asked, &[u8])]) {
    let plain: Option<Vec<Answer>> = scenes.iter().map(|(asked, bytes)| plain(*asked, bytes)).collect();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = Arc::new(Taker::new());
    let proxy = Proxy::new(Arc::clone(&handler), Settings::default(), Hosts::default());
    let (client, accepted, peer) = rig.connection().await;
    let relay = proxy.serve_captured(accepted, peer, rig.places[1], Via::Node, Arc::default());
    let service = async {
        // Qbox dials at once, and no second time: the first request is no trigger.
        let (mut stream, _) = rig.service.accept().await.unwrap();
        serve(&mut stream, cuts, scenes, plain.is_some()).await;
    };
    let tapped = Tap {
        stream: client,
        seen: Arc::clone(&seen),
    };
    let ((), (), (answers, own)) = tokio::join!(relay, service, ask(tapped, scenes));

    let got = seen.lock().unwrap().clone();
    let sent: Vec<u8> = scenes.iter().flat_map(|(_, bytes)| *bytes).copied().collect();
    let from_service = without_own(&got, handler.mark.as_bytes());
    assert!(
        sent.starts_with(&from_service),
        "the client got other bytes than the service sent"
    );
    assert!(*handler.taken.lock().unwrap() <= 1, "the trigger was taken twice");
    if from_service.len() < got.len() {
        assert_eq!(*handler.taken.lock().unwrap(), 1, "a reply to no trigger");
    }
    if let Some(plain) = plain {
        assert_eq!(answers, plain, "other answers were read than sent");
        let reply = Answer {
            status: 299,
            body: b"own".to_vec(),
        };
        assert_eq!(own, Some(reply), "the trigger was not answered");
        assert_eq!(from_service, sent, "some of what was sent is missing");
    }
}

/// What the client got, Qbox's reply taken out.
fn without_own(got: &[u8], mark: &[u8]) -> Vec<u8> {
    let Some(mark) = got.windows(mark.len()).position(|window| window == mark) else {
        return got.to_vec();
    };
    let begin = b"HTTP/1.1 299";
    let start = (got[..mark].windows(begin.len()))
        .rposition(|window| window == begin)
        .expect("a mark outside of a reply");
    let end = b"\r\n\r\nown";
    let rest = got[mark..].windows(end.len()).position(|window| window == end);
    // Cut short, it is the last.
    let after = rest.map_or(got.len(), |at| mark + at + end.len());
    [&got[..start], &got[after..]].concat()
}

/// The service: each answer when its request is there.
async fn serve(stream: &mut TcpStream, cuts: u8, scenes: &[(Asked, &[u8])], plain: bool) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    for (number, (asked, answer)) in scenes.iter().enumerate() {
        let patience = match plain || number == 0 {
            true => PATIENCE,
            false => STALL,
        };
        if !matches!(
            timeout(patience, request(stream, &mut buffer, *asked)).await,
            Ok(true)
        ) {
            return;
        }
        if wire::send(stream, cuts, answer).await.is_err() {
            return;
        }
    }
    // No trigger comes here, unless the connection may have become a tunnel: a request to leave HTTP whose answer, or one before
    // it, can't be followed. The client closes when it has all; if it may wait for more, it is told that none comes.
    let patience = if plain { PATIENCE } else { STALL };
    let mut rest = Vec::new();
    let _ = timeout(patience, stream.read_to_end(&mut rest)).await;
    let _ = stream.shutdown().await;
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let left = scenes.iter().any(|(asked, _)| *asked == Asked::Upgrade);
    assert!(
        (left && !plain) || !holds(&rest, b"/take"),
        "the trigger reached the service"
    );
}

/// Reads one request off; `false`: none comes any more.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>, asked: Asked) -> bool {
    let body = if asked == Asked::Post { 4 } else { 0 };
    loop {
        let head = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head
            && buffer.len() >= head + 4 + body
        {
            buffer.drain(..head + 4 + body);
            return true;
        }
        match stream.read_buf(buffer).await {
            Ok(count) if count > 0 => {}
            _ => return false,
        }
    }
}

/// The client: what was answered, and the trigger's answer.
async fn ask(tapped: Tap<TcpStream>, scenes: &[(Asked, &[u8])]) -> (Vec<Answer>, Option<Answer>) {
    let (mut sender, connection) = handshake(TokioIo::new(tapped)).await.unwrap();
    let connection = async {
        // How it ends is seen by the requests.
        let _ = connection.await;
    };
    let asking = async {
        let mut answers = Vec::new();
        for (asked, _) in scenes {
            match exchange(&mut sender, *asked, "/").await {
                // What follows is no HTTP.
                Some(answer) if answer.status == 101 => return (answers, None),
                Some(answer) => answers.push(answer),
                None => return (answers, None),
            }
        }
        let own = exchange(&mut sender, Asked::Post, "/take").await;
        drop(sender);
        (answers, own)
    };
    let ((), asked) = tokio::join!(connection, asking);
    asked
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, asked: Asked, path: &str) -> Option<Answer> {
    sender.ready().await.ok()?;
    let builder = hyper::Request::builder().uri(path).header("Host", "a");
    let builder = match asked {
        Asked::Get => builder,
        Asked::Head => builder.method("HEAD"),
        Asked::Post => builder.method("POST"),
        Asked::Upgrade => builder.header("Connection", "upgrade").header("Upgrade", "x"),
    };
    let body: &'static [u8] = match (asked, path) {
        (Asked::Post, "/take") => b"trigger",
        (Asked::Post, _) => b"body",
        _ => b"",
    };
    let request = builder.body(Full::new(Bytes::from_static(body))).unwrap();
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes().to_vec();
    Some(Answer { status, body })
}

/// One answer and nothing else, that no two readers take for different ones, and that leaves the connection open.
fn plain(asked: Asked, bytes: &[u8]) -> Option<Answer> {
    let mut rest = bytes;
    loop {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&rest[..end]).ok()?;
        rest = &rest[end + 4..];
        let mut lines = head.split("\r\n");
        let status: u16 = lines
            .next()?
            .strip_prefix("HTTP/1.1 ")?
            .strip_suffix(" OK")?
            .parse()
            .ok()?;
        let (mut length, mut chunked) = (None, false);
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            if name.is_empty() || !name.bytes().all(word) || !value.bytes().all(word) {
                return None;
            }
            match name.to_ascii_lowercase().as_str() {
                "content-length" if length.is_none() && (1..=5).contains(&value.len()) => {
                    length = Some(value.parse::<usize>().ok()?);
                }
                "transfer-encoding" if value == "chunked" && !chunked => chunked = true,
                "content-length" | "transfer-encoding" | "connection" | "upgrade" | "trailer" => return None,
                _ => {}
            }
        }
        match status {
            // hyper's client lets a 101 be an interim one where none was asked for.
            100 | 102..=199 if length.is_none() && !chunked => continue,
            200..=599 => {}
            _ => return None,
        }
        // Bodies that should not be there are read differently by some.
        let none = asked == Asked::Head || matches!(status, 204 | 304);
        let body = match (length, chunked) {
            _ if none && (status == 204 || chunked) && (length.is_some() || chunked) => return None,
            _ if none => Vec::new(),
            (Some(length), false) => rest.split_off(..length)?.to_vec(),
            (None, true) => {
                let mut body = Vec::new();
                loop {
                    let line = rest.windows(2).position(|window| window == b"\r\n")?;
                    let digits = std::str::from_utf8(&rest[..line]).ok()?;
                    if !(1..=4).contains(&digits.len())
                        || !digits.bytes().all(|byte| byte.is_ascii_hexdigit())
                    {
                        return None;
                    }
                    let size = usize::from_str_radix(digits, 16).ok()?;
                    rest = &rest[line + 2..];
                    body.extend(rest.split_off(..size)?);
                    rest = rest.strip_prefix(b"\r\n")?;
                    if size == 0 {
                        break body;
                    }
                }
            }
            _ => return None,
        };
        return rest.is_empty().then_some(Answer { status, body });
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
