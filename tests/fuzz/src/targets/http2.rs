//! HTTP/2 that a client writes frame by frame, through the real proxy to another's server (`h2`).
//!
//! The input is a program for the client: which frames it sends, with which fields, coded in which of HPACK's ways, cut where,
//! padded or not, between which others; an operation may also send bytes that make no sense. Whatever it is:
//! - nobody waits for ever;
//! - as long as all of it makes sense, each request whole reaches the service once, with the fields and the body that the client
//!   gave it, or is a trigger and taken once, as it is; and each is answered;
//! - what makes no sense may end the connection, but no request is served or taken that was not sent.

use crate::Target;
use crate::wire::{self, Rig};
use bytes::Bytes;
use h2::server;
use http::{HeaderMap, Response};
use qbox::proxy::{Handled, Handler, Head, Proxy, Reply, Settings, Taken, Verdict};
use qbox::upstream::{Hosts, Via};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const TARGET: Target = Target {
    name: "http2",
    run,
    also: &[],
};

/// No input keeps a connection longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long answers are waited for where it is not certain that there will be any.
const STALL: Duration = Duration::from_millis(20);
/// What a client that speaks HTTP/2 begins with (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests of one input.
const MOST: usize = 12;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Fields that a request may have: the same ones again and again, so that tables are of use.
const FIELDS: [(&str, &str); 8] = [
    ("x-a", "1"),
    ("x-a", "2"),
    (
        "x-long",
        "0123456789012345678901234567890123456789012345678901234567890123456789",
    ),
    ("cookie", "a=b"),
    ("cookie", "c=d"),
    ("accept", "*/*"),
    ("authorization", "secret"),
    ("x-empty", ""),
];

/// One request, as its sender or its reader has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    method: String,
    path: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn is_takeable(&self) -> bool {
        self.path.starts_with("/take")
    }
}

type Log = Arc<Mutex<Vec<Request>>>;

/// Fields in an order of their own: that of one name's values is all that means anything. Cookies may be joined (RFC 9113,
/// 8.2.3).
fn sorted(mut fields: Vec<(String, String)>) -> Vec<(String, String)> {
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    let (cookies, mut others): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(name, _)| name == "cookie");
    if !cookies.is_empty() {
        let values: Vec<_> = cookies.into_iter().map(|(_, value)| value).collect();
        others.push(("cookie".to_owned(), values.join("; ")));
    }
    others
}

#[derive(Debug, Default)]
struct Taker(Log);

impl Handler for Taker {
    fn inspect(&self, head: Head<'_>) -> Verdict {
        match head.target.starts_with("/take") {
            true => Verdict::Take { max_body: 1 << 16 },
            false => Verdict::Pass,
        }
    }

    fn listens(&self, _: Option<SocketAddr>) -> bool {
        false
    }

    async fn handle(&self, request: Taken) -> Handled {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let fields = (request.headers.iter())
            .filter(|(name, _)| !matches!(name.as_str(), "host" | "content-length"))
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect();
        self.0.lock().unwrap().push(Request {
            method: request.method,
            path: request.target,
            fields: sorted(fields),
            body: request.body.to_vec(),
        });
        Handled::Reply(Reply {
            status: 299,
            ..Reply::default()
        })
    }
}

/// The client's table (RFC 7541, 2.3.2): what it may refer to.
#[derive(Default)]
struct Table(VecDeque<(String, String)>);

impl Table {
    const SIZE: usize = 4096;

    fn add(&mut self, name: &str, value: &str) {
        self.0.push_front((name.to_owned(), value.to_owned()));
        while self.0.iter().map(|(n, v)| n.len() + v.len() + 32).sum::<usize>() > Self::SIZE {
            self.0.pop_back();
        }
    }

    fn find(&self, field: (&str, &str)) -> Option<usize> {
        let known = |(n, v): &(String, String)| (n.as_str(), v.as_str()) == field;
        self.0.iter().position(known).map(|at| at + 62)
    }

    fn find_name(&self, name: &str) -> Option<usize> {
        self.0
            .iter()
            .position(|(known, _)| known == name)
            .map(|at| at + 62)
    }

    /// A field, coded in the way `how`.
    fn put(&mut self, out: &mut Vec<u8>, (name, value): (&str, &str), how: u8) {
        if how & 1 == 1
            && let Some(index) = self.find((name, value))
        {
            integer(out, 0x80, 7, index);
            return;
        }
        let named = (how & 2 == 2)
            .then(|| self.find_name(name))
            .flatten()
            .unwrap_or(0);
        let (pattern, bits) = match how >> 2 & 3 {
            0 => (0x00, 4),
            1 => (0x10, 4),
            _ => (0x40, 6),
        };
        integer(out, pattern, bits, named);
        if named == 0 {
            string(out, name);
        }
        string(out, value);
        if pattern == 0x40 {
            self.add(name, value);
        }
    }
}

/// An integer (RFC 7541, 5.1).
fn integer(out: &mut Vec<u8>, pattern: u8, bits: u8, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | most as u8);
    let mut left = value - most;
    while left >= 128 {
        out.push((left % 128) as u8 | 128);
        left /= 128;
    }
    out.push(left as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// The input, byte by byte; zeroes behind its end.
struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn next(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the client sends, and what it means.
#[derive(Default)]
struct Script {
    /// In pieces, each written at once.
    writes: Vec<Vec<u8>>,
    /// Requests that were sent whole, by their streams.
    whole: BTreeMap<u32, Request>,
    /// All of it makes sense.
    sound: bool,
}

/// A request under way.
struct Open {
    stream: u32,
    request: Request,
}

fn script(input: &[u8]) -> Script {
    let mut program = Program(input);
    let mut table = Table::default();
    let mut script = Script {
        sound: true,
        ..Script::default()
    };
    let mut open: Vec<Open> = Vec::new();
    let mut next = 1;
    while !program.is_over() && script.writes.len() < 64 {
        let mut out = Vec::new();
        match program.next() % 12 {
            0..=3 if next / 2 < MOST as u32 => {
                let request = headers(&mut program, &mut table, &mut out, next);
                let (request, ended) = request;
                match ended {
                    true => drop(script.whole.insert(next, request)),
                    false => open.push(Open {
                        stream: next,
                        request,
                    }),
                }
                next += 2;
            }
            4..=6 if !open.is_empty() => {
                let at = usize::from(program.next()) % open.len();
                let how = program.next();
                let body = vec![b'a' + how % 26; usize::from(program.next())];
                let end = how & 1 == 1;
                let payload = padded(how & 2 == 2, &mut program, &body);
                let flags = u8::from(end) | (how & 2) << 2;
                frame(&mut out, DATA, flags, open[at].stream, &payload);
                open[at].request.body.extend(body);
                if end {
                    let Open { stream, request } = open.remove(at);
                    script.whole.insert(stream, request);
                }
            }
            // Trailers end a request.
            7 if !open.is_empty() => {
                let Open { stream, request } = open.remove(usize::from(program.next()) % open.len());
                let mut block = Vec::new();
                table.put(&mut block, ("x-trailer", "t"), program.next());
                cut(&mut out, &mut program, stream, 1, &block);
                script.whole.insert(stream, request);
            }
            8 if !open.is_empty() => {
                let Open { stream, .. } = open.remove(usize::from(program.next()) % open.len());
                frame(&mut out, RST_STREAM, 0, stream, &[0, 0, 0, 8]);
            }
            9 => match program.next() % 4 {
                0 => frame(&mut out, PING, 0, 0, b"12345678"),
                1 => frame(&mut out, WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]),
                2 => frame(&mut out, PRIORITY, 0, next, &[0, 0, 0, 0, 7]),
                // A type that nobody knows.
                _ => frame(&mut out, 0xbb, 0xff, next, b"anything"),
            },
            10 => {
                let value: u32 = if program.next() & 1 == 1 { 100_000 } else { 65_535 };
                let payload = [&[0, 4][..], &value.to_be_bytes()].concat();
                frame(&mut out, SETTINGS, 0, 0, &payload);
            }
            11 if program.next() > 200 => {
                script.sound = false;
                let count = usize::from(program.next()).min(program.0.len());
                let (bytes, rest) = program.0.split_at(count);
                program.0 = rest;
                match program.next() & 1 {
                    0 => out.extend(bytes),
                    _ => frame(
                        &mut out,
                        program.next() % 11,
                        program.next(),
                        u32::from(program.next() % 16),
                        bytes,
                    ),
                }
            }
            _ => continue,
        }
        script.writes.push(out);
    }
    script
}

/// A request's head, in one frame or several. Whether it is the whole request.
fn headers(program: &mut Program<'_>, table: &mut Table, out: &mut Vec<u8>, stream: u32) -> (Request, bool) {
    let how = program.next();
    let path = match how & 3 {
        0 => format!("/take/{stream}"),
        _ => format!("/{stream}"),
    };
    let (method, ended) = if how & 4 == 4 {
        ("GET", true)
    } else {
        ("POST", false)
    };
    let mut block = Vec::new();
    if how & 8 == 8 {
        // The table is emptied, and made as large as it was.
        integer(&mut block, 0x20, 5, 0);
        integer(&mut block, 0x20, 5, Table::SIZE);
        table.0.clear();
    }
    table.put(&mut block, (":method", method), program.next());
    table.put(&mut block, (":scheme", "http"), program.next());
    table.put(&mut block, (":path", &path), program.next());
    table.put(&mut block, (":authority", "a"), program.next());
    let mut fields = Vec::new();
    for _ in 0..program.next() % 8 {
        let field = FIELDS[usize::from(program.next()) % FIELDS.len()];
        table.put(&mut block, field, program.next());
        fields.push((field.0.to_owned(), field.1.to_owned()));
    }
    cut(out, program, stream, u8::from(ended), &block);
    let request = Request {
        method: method.to_owned(),
        path,
        fields: sorted(fields),
        body: Vec::new(),
    };
    (request, ended)
}

/// A block of fields as HEADERS, with padding or a priority, and perhaps CONTINUATIONs.
fn cut(out: &mut Vec<u8>, program: &mut Program<'_>, stream: u32, flags: u8, block: &[u8]) {
    let how = program.next();
    let first = match how & 1 {
        0 => block.len(),
        _ => usize::from(program.next()) % (block.len() + 1),
    };
    let (first, rest) = block.split_at(first);
    let mut payload = Vec::new();
    if how & 4 == 4 {
        payload.extend([0, 0, 0, 0, 9]);
    }
    payload.extend(first);
    let payload = padded(how & 2 == 2, program, &payload);
    let whole = rest.is_empty();
    let flags = flags | u8::from(whole) << 2 | (how & 2) << 2 | (how & 4) << 3;
    frame(out, HEADERS, flags, stream, &payload);
    let (second, third) = rest.split_at(usize::from(program.next()) % (rest.len() + 1));
    // Empty ones are refused: a flood of them costs their sender nothing.
    if !second.is_empty() {
        frame(out, CONTINUATION, u8::from(third.is_empty()) << 2, stream, second);
    }
    if !third.is_empty() {
        frame(out, CONTINUATION, 4, stream, third);
    }
}

fn padded(pad: bool, program: &mut Program<'_>, payload: &[u8]) -> Vec<u8> {
    if !pad {
        return payload.to_vec();
    }
    let count = program.next() % 32;
    let mut out = vec![count];
    out.extend(payload);
    out.extend(vec![0; usize::from(count)]);
    out
}

fn run(input: &[u8]) {
    let Some((&cuts, program)) = input.split_first() else {
        return;
    };
    let script = script(program);
    wire::with_rig(async |rig| {
        timeout(PATIENCE, one(rig, cuts, &script))
            .await
            .expect("a connection hangs");
    });
}

async fn one(rig: &Rig, cuts: u8, script: &Script) {
    let (served, taken) = (Log::default(), Log::default());
    let handler = Arc::new(Taker(Arc::clone(&taken)));
    let proxy = Proxy::new(handler, Settings::default(), Hosts::default());
    let (client, accepted, peer) = rig.connection().await;
    let relay = proxy.serve_captured(accepted, peer, rig.places[1], Via::Node, Arc::default());
    let service = async {
        let (stream, _) = rig.service.accept().await.unwrap();
        serve(stream, &served).await;
    };
    let ((), (), answered) = tokio::join!(relay, service, talk(client, cuts, script));

    let sent: Vec<&Request> = script.whole.values().collect();
    let (served, taken) = (served.lock().unwrap().clone(), taken.lock().unwrap().clone());
    for (request, takeable) in (served.iter().map(|r| (r, false))).chain(taken.iter().map(|r| (r, true))) {
        assert_eq!(request.is_takeable(), takeable, "{request:?}");
    }
    if !script.sound {
        return;
    }
    let mut got: Vec<&Request> = served.iter().chain(&taken).collect();
    let mut sent = sent;
    got.sort();
    sent.sort();
    assert_eq!(got, sent, "other requests were served or taken than sent");
    let streams: Vec<u32> = script.whole.keys().copied().collect();
    assert_eq!(answered, streams, "not all requests were answered, or others");
}

/// The client: its frames, its side of the courtesies, and which of its whole requests' streams were answered to their end.
async fn talk(mut stream: TcpStream, cuts: u8, script: &Script) -> Vec<u32> {
    let (mut reader, mut writer) = stream.split();
    let mut hello = PREFACE.to_vec();
    frame(&mut hello, SETTINGS, 0, 0, &[]);
    if writer.write_all(&hello).await.is_err() {
        return Vec::new();
    }
    // The service's own come first; they are answered once they are there.
    let Some((kind, ..)) = next(&mut reader).await else {
        return Vec::new();
    };
    assert_eq!(kind, SETTINGS, "the service does not begin with SETTINGS");
    let mut bytes = Vec::new();
    frame(&mut bytes, SETTINGS, 1, 0, &[]);
    let mut answered = Vec::new();
    let write = async {
        let mut written = wire::send(&mut writer, cuts, &bytes).await;
        for bytes in &script.writes {
            if written.is_err() {
                return;
            }
            written = wire::send(&mut writer, cuts, bytes).await;
        }
    };
    let read = async {
        while answered.len() < script.whole.len() || !script.sound {
            let Some((kind, flags, stream, payload)) = next(&mut reader).await else {
                return;
            };
            match kind {
                DATA | HEADERS if flags & 1 == 1 => answered.push(stream),
                // Of a request that is answered already the rest may not be wanted.
                RST_STREAM => assert!(
                    !script.sound || answered.contains(&stream),
                    "stream {stream} was reset"
                ),
                GOAWAY => assert!(!script.sound, "GOAWAY {:?}", String::from_utf8_lossy(&payload)),
                _ => {}
            }
        }
    };
    match script.sound {
        true => drop(tokio::join!(write, read)),
        false => drop(timeout(STALL, async { tokio::join!(write, read) }).await),
    }
    answered.retain(|stream| script.whole.contains_key(stream));
    answered.sort_unstable();
    let _ = stream.shutdown().await;
    answered
}

/// The next frame's type, flags, stream and payload.
async fn next(reader: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    reader.read_exact(&mut payload).await.ok()?;
    Some((kind, flags, u32::from_be_bytes(stream), payload))
}

/// The service: notes each request that is whole, and answers it.
async fn serve(stream: TcpStream, log: &Log) {
    let _ = stream.set_nodelay(true);
    let Ok(mut connection) = server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut whole = Vec::new();
            while let Some(data) = body.data().await {
                let Ok(data) = data else { return };
                let _ = body.flow_control().release_capacity(data.len());
                whole.extend_from_slice(&data);
            }
            if body.trailers().await.is_err() {
                return;
            }
            log.lock().unwrap().push(Request {
                method: head.method.to_string(),
                path: head.uri.path().to_owned(),
                fields: fields(&head.headers),
                body: whole,
            });
            let response = Response::builder().header("x-b", "1").body(()).unwrap();
            if let Ok(mut out) = respond.send_response(response, false) {
                let _ = out.send_data(Bytes::from_static(b"ok"), true);
            }
        });
    }
}

fn fields(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    sorted(
        map.iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect(),
    )
}
