//! What passes through Qbox is unchanged, byte for byte, in both directions; and what isn't HTTP passes too.
//!
//! All connections here are captured (port 8080 of any address could be a trigger's), none is a trigger.

use anyhow::{Context, Result, ensure};
use qbox_tests::{DEADLINE, Dialler, PORT, Pod, World, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A world with a bare pod: what listens in it is written here.
fn world() -> Result<(World, Pod)> {
    let world = World::book_trip()?;
    let raw = world.node.pod("raw")?;
    Ok((world, raw))
}

/// Takes one connection and plays its server's part.
fn once<T: Send + 'static>(
    listener: TcpListener,
    part: impl FnOnce(TcpStream) -> Result<T> + Send + 'static,
) -> JoinHandle<Result<T>> {
    thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        part(stream)
    })
}

fn join<T>(server: JoinHandle<Result<T>>) -> Result<T> {
    server
        .join()
        .map_err(|_| anyhow::anyhow!("the server's part panicked"))?
}

fn read_until(stream: &mut impl Read, end: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end) {
        ensure!(
            stream.read(&mut byte)? == 1,
            "the connection ended after {:?}",
            String::from_utf8_lossy(&bytes)
        );
        bytes.extend_from_slice(&byte);
    }
    Ok(bytes)
}

/// Sends its input in pieces and writes what comes back until the other side closes.
const SEND: &str = r#"
import socket, sys, time
s = socket.create_connection(("raw", 8080), 30)
data = sys.stdin.buffer.read()
for i in range(0, len(data), 7 if len(data) < 2000 else 65536):
    s.sendall(data[i:i + (7 if len(data) < 2000 else 65536)])
while True:
    got = s.recv(65536)
    if not got: break
    sys.stdout.buffer.write(got)
"#;

/// The client sends `request`; the server reads until `end`, answers with `response` and closes. Asserts that both arrive.
fn exchange(request: &'static [u8], end: &'static [u8], response: &'static [u8]) -> Result<()> {
    let (world, raw) = world()?;
    let server = once(raw.listen(PORT)?, move |mut stream| {
        let read = read_until(&mut stream, end)?;
        stream.write_all(response)?;
        Ok(read)
    });
    let client = world.client.run_with_input(["python3", "-c", SEND], request)?;
    ensure!(client.status.success(), "{}", client.stderr);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&join(server)?), text(request), "the request was changed");
    assert_eq!(text(&client.stdout), text(response), "the response was changed");
    Ok(())
}

#[test]
fn header_names_keep_case_order_and_number() -> Result<()> {
    exchange(
        b"GET /a%2Fb?x=%20&y HTTP/1.1\r\nhOST: raw:8080\r\nX-One:1\r\nx-two:   spaces \r\nX-One: again\r\n\
          Accept-Language: \xc3\xa9\r\nConnection: close\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 299 Quite Fine\r\nSERVER: raw\r\nsEt-cOOkie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\
          connection: close\r\n\r\nok",
    )
}

#[test]
fn chunks_their_extensions_and_trailers_pass_as_they_are() -> Result<()> {
    exchange(
        b"POST /up HTTP/1.1\r\nHost: raw:8080\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
          005;ext=\"a;b\"\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: abc\r\nx-other: d\r\n\r\n",
        b"x-other: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nConnection: close\r\n\r\n\
          A\r\n0123456789\r\n00\r\nX-Trailer: yes\r\n\r\n",
    )
}

#[test]
fn an_answer_without_length_ends_with_its_connection() -> Result<()> {
    exchange(
        b"GET /stream HTTP/1.0\r\nHost: raw:8080\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end\n",
    )
}

/// One connection to the service for one of the client's, with HEAD and an answer of status 304 in between: neither has the
/// body that its length speaks of.
#[test]
fn keep_alive_and_head() -> Result<()> {
    const CLIENT: &str = r#"
import http.client
c = http.client.HTTPConnection("raw", 8080, timeout=30)
for method, path in (("GET", "/1"), ("HEAD", "/2"), ("GET", "/3"), ("GET", "/4")):
    c.request(method, path)
    r = c.getresponse()
    print(r.status, r.getheader("content-length"), r.read().decode())
"#;
    let (world, raw) = world()?;
    let server = once(raw.listen(PORT)?, |mut stream| {
        let answers: [&[u8]; 4] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour",
        ];
        for answer in answers {
            read_until(&mut stream, b"\r\n\r\n")?;
            stream.write_all(answer)?;
        }
        Ok(())
    });
    let seen = world.client.python(CLIENT, &[])?;
    assert_eq!(seen, "200 3 one\n200 1000 \n304 77 \n200 4 four\n");
    join(server)
}

#[test]
fn the_server_says_when_to_continue() -> Result<()> {
    const CLIENT: &str = r#"
import socket
s = socket.create_connection(("raw", 8080), 30)
s.sendall(b"PUT /x HTTP/1.1\r\nHost: raw:8080\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
first = s.recv(1000)
assert first == b"HTTP/1.1 100 Continue\r\n\r\n", first
s.sendall(b"body")
rest = b""
while True:
    got = s.recv(1000)
    if not got: break
    rest += got
print(rest.decode())
"#;
    let (world, raw) = world()?;
    let server = once(raw.listen(PORT)?, |mut stream| {
        let head = read_until(&mut stream, b"\r\n\r\n")?;
        ensure!(
            head.windows(12).any(|part| part == b"100-continue"),
            "the expectation was lost"
        );
        // Until now the client has sent no body; it does so only when told.
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        read_until(&mut stream, b"body")?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone")?;
        Ok(())
    });
    let seen = world.client.python(CLIENT, &[])?;
    assert!(seen.ends_with("done\n"), "{seen}");
    join(server)
}

/// RFC 6455's handshake with its own example key, then frames both ways, the server's first.
#[test]
fn a_websocket_works() -> Result<()> {
    const CLIENT: &str = r#"
import socket
s = socket.create_connection(("raw", 8080), 30)
f = s.makefile("rwb", buffering=0)
s.sendall(b"GET /chat HTTP/1.1\r\nHost: raw:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
def line():
    text = b""
    while not text.endswith(b"\r\n"): text += s.recv(1)
    return text
status = line()
assert status.startswith(b"HTTP/1.1 101"), status
accept = False
while True:
    l = line()
    if l == b"\r\n": break
    accept = accept or l == b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
assert accept
def frame():
    head = s.recv(2, socket.MSG_WAITALL)
    assert head[0] == 0x81, head
    return s.recv(head[1], socket.MSG_WAITALL)
assert frame() == b"welcome"
for word in (b"one", b"two", b"three"):
    mask = b"\x01\x02\x03\x04"
    s.sendall(bytes([0x81, 0x80 | len(word)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(word)))
    assert frame() == word
print("ok")
"#;
    let (world, raw) = world()?;
    let server = once(raw.listen(PORT)?, |mut stream| {
        read_until(&mut stream, b"\r\n\r\n")?;
        stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x07welcome",
        )?;
        for _ in 0..3 {
            let mut head = [0; 6];
            stream.read_exact(&mut head)?;
            let mut payload = vec![0; usize::from(head[1] & 0x7f)];
            stream.read_exact(&mut payload)?;
            let plain = payload
                .iter()
                .zip(head[2..].iter().cycle())
                .map(|(byte, mask)| byte ^ mask);
            let mut frame = vec![0x81, head[1] & 0x7f];
            frame.extend(plain);
            stream.write_all(&frame)?;
        }
        Ok(())
    });
    assert_eq!(world.client.python(CLIENT, &[])?, "ok\n");
    join(server)
}

/// A protocol whose server greets first, as SMTP and MySQL do: the greeting doesn't wait for the client.
#[test]
fn a_server_that_speaks_first() -> Result<()> {
    const CLIENT: &str = r#"
import socket
s = socket.create_connection(("raw", 8080), 30)
f = s.makefile("rwb", buffering=0)
print(f.readline().decode().strip())
f.write(b"HELO me\r\n")
print(f.readline().decode().strip())
f.write(b"QUIT\r\n")
assert f.read() == b""
"#;
    let (world, raw) = world()?;
    let server = once(raw.listen(PORT)?, |mut stream| {
        stream.write_all(b"220 raw\r\n")?;
        let greeted = Instant::now();
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        let waited = greeted.elapsed();
        ensure!(line == "HELO me\r\n", "{line:?}");
        stream.write_all(b"250 hello\r\n")?;
        line.clear();
        lines.read_line(&mut line)?;
        ensure!(line == "QUIT\r\n", "{line:?}");
        Ok(waited)
    });
    assert_eq!(world.client.python(CLIENT, &[])?, "220 raw\n250 hello\n");
    let waited = join(server)?;
    // proxy.detect_timeout is 1 s: a greeting that waited for the client's first bytes would come no sooner.
    ensure!(
        waited < Duration::from_millis(900),
        "the greeting took {waited:?} there and back"
    );
    Ok(())
}

/// A TLS ClientHello's first bytes, and binary data behind them.
#[test]
fn tls_passes_as_bytes() -> Result<()> {
    let (world, raw) = world()?;
    let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    hello.extend((0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8));
    let length = hello.len();
    let server = once(raw.listen(PORT)?, move |mut stream| {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)?;
        Ok(())
    });
    let client = world.client.run_with_input(["python3", "-c", SEND], &hello)?;
    ensure!(client.status.success(), "{}", client.stderr);
    assert!(
        client.stdout == hello,
        "{} of {length} bytes came back, or others",
        client.stdout.len()
    );
    join(server)
}

/// The end of one direction reaches the other side, which may still answer (RFC 9293, 3.6).
#[test]
fn a_half_close_is_passed_on() -> Result<()> {
    const CLIENT: &str = r#"
import socket
s = socket.create_connection(("raw", 8080), 30)
s.sendall(b"\x00\x01binary")
s.shutdown(socket.SHUT_WR)
print(s.makefile("rb").read().decode())
"#;
    let (world, raw) = world()?;
    let server = once(raw.listen(PORT)?, |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        write!(stream, "{} bytes", bytes.len())?;
        Ok(())
    });
    assert_eq!(world.client.python(CLIENT, &[])?, "8 bytes\n");
    join(server)
}

const GIB: u64 = 1 << 30;
const GROWTH: u64 = 16 << 20;

#[test]
fn a_gibibyte_up_and_down_costs_no_memory() -> Result<()> {
    let (world, raw) = world()?;
    let serve = |listener: TcpListener| {
        once(listener, |mut stream| {
            read_until(&mut stream, b"\r\n\r\n")?;
            let mut buffer = vec![0; 256 << 10];
            let mut left = GIB;
            while left > 0 {
                let length = stream.read(&mut buffer)?;
                ensure!(length > 0, "{left} bytes are missing");
                left -= u64::try_from(length)?;
            }
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\nConnection: close\r\n\r\n"
            )?;
            buffer.fill(b'x');
            for _ in 0..GIB / (256 << 10) {
                stream.write_all(&buffer)?;
            }
            Ok(())
        })
    };
    // A first request, so that what is allocated once is there.
    world.client.http(["http://trips.default.svc:8080/trips/7"])?;
    let before = world.qbox.resident_bytes()?;
    let server = serve(raw.listen(PORT)?);
    let script = format!(
        "head -c {GIB} /dev/zero | curl -sS -X PUT -H Expect: -H Content-Length:\\ {GIB} -H Transfer-Encoding: \
         -T - -o /dev/null -w '%{{http_code}} %{{size_upload}} %{{size_download}}' http://raw:8080/big"
    );
    let seen = world.client.run(["sh", "-c", &script])?.ok()?;
    join(server)?;
    assert_eq!(seen, format!("200 {GIB} {GIB}"));
    let peak = world.qbox.peak_bytes()?;
    let growth = peak.saturating_sub(before);
    ensure!(growth < GROWTH, "Qbox grew by {} KiB", growth >> 10);
    eprintln!("Qbox grew by {} KiB, from {} KiB", growth >> 10, before >> 10);
    Ok(())
}

/// A program that reads nothing holds its service back, and costs no memory meanwhile; when it reads, all of it is there.
#[test]
fn a_gibibyte_that_nobody_reads_stays_with_its_service() -> Result<()> {
    const BLOCK: usize = 256 << 10;
    let (world, raw) = world()?;
    // A first request, so that what is allocated once is there.
    world.client.http(["http://trips.default.svc:8080/trips/7"])?;
    let before = world.qbox.resident_bytes()?;
    let mut dialler = Dialler::start(&world.client)?;
    // HTTP, and what is copied.
    for request in [&b"GET / HTTP/1.1\r\nHost: raw:8080\r\n\r\n"[..], b"\x16\x03\x01"] {
        let sent = Arc::new(AtomicU64::new(0));
        let server = once(raw.listen(PORT)?, {
            let sent = Arc::clone(&sent);
            move |mut stream| {
                stream.read_exact(&mut vec![0; request.len()])?;
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n")?;
                let block = vec![b'x'; BLOCK];
                for _ in 0..GIB / BLOCK as u64 {
                    stream.write_all(&block)?;
                    sent.fetch_add(BLOCK as u64, Relaxed);
                }
                Ok(())
            }
        });
        let mut client = dialler.connect(raw.ipv4(), PORT)?;
        client.set_read_timeout(Some(Duration::from_secs(30)))?;
        client.write_all(request)?;
        let held = wait_for("the service to be held back", DEADLINE, || {
            let before = sent.load(Relaxed);
            thread::sleep(Duration::from_secs(1));
            Ok((before > 0 && sent.load(Relaxed) == before).then_some(before))
        })?;
        // What the kernel's buffers of two connections take.
        ensure!(held < 64 << 20, "{held} bytes went to a program that reads none");
        let growth = world.qbox.peak_bytes()?.saturating_sub(before);
        ensure!(growth < GROWTH, "Qbox grew by {} KiB", growth >> 10);
        let head = read_until(&mut client, b"\r\n\r\n")?;
        ensure!(head.starts_with(b"HTTP/1.1 200 "));
        let mut block = vec![0; BLOCK];
        let mut left = GIB;
        while left > 0 {
            let count = client.read(&mut block)?;
            ensure!(count > 0, "{left} bytes are missing");
            ensure!(
                block[..count].iter().all(|byte| *byte == b'x'),
                "other bytes came"
            );
            left -= count as u64;
        }
        join(server)?;
    }
    Ok(())
}

/// Nobody listens: the pod's program learns it, and doesn't hang.
#[test]
fn a_refused_upstream_is_told() -> Result<()> {
    let (world, _raw) = world()?;
    let finished = world.client.curl([
        "--max-time",
        "20",
        "--write-out",
        "%{http_code}",
        "http://raw:8080/",
    ])?;
    let code = finished.status.code().context("curl was killed")?;
    // Either the connection breaks, as it would without Qbox (7, 52, 56), or a 502 says why.
    let text = finished.text();
    ensure!(
        matches!(code, 7 | 52 | 56) || text.ends_with("502"),
        "curl ended with {code}: {text}"
    );
    Ok(())
}

/// Half of each body comes 60 ms after the other half, either way. Prints how many acknowledgements came late in its network, where the
/// connections on both sides of Qbox end; its own it asks for at once.
const HALVES: &str = r#"
import socket, time
def late():
    names, values = [l.split() for l in open("/proc/self/net/netstat") if l.startswith("TcpExt:")]
    return int(values[names.index("DelayedACKs")])
s = socket.create_connection(("raw", 8080), 30)
before = late()
for _ in range(20):
    s.sendall(b"PUT / HTTP/1.1\r\nHost: raw:8080\r\nContent-Length: 4\r\n\r\nab")
    time.sleep(0.06)
    s.sendall(b"cd")
    got = b""
    while not got.endswith(b"abcd"):
        got += s.recv(65536)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
print(late() - before)
"#;

/// Who sends a message isn't left to wait for its acknowledgement while the rest of it is waited for.
#[test]
fn half_a_body_is_acknowledged_at_once() -> Result<()> {
    let (world, raw) = world()?;
    let server = once(raw.listen(PORT)?, move |mut stream| {
        for _ in 0..20 {
            read_until(&mut stream, b"abcd")?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")?;
            thread::sleep(Duration::from_millis(60));
            stream.write_all(b"cd")?;
        }
        Ok(())
    });
    let late: u32 = world.client.python(HALVES, &[])?.trim().parse()?;
    join(server)?;
    ensure!(late < 10, "{late} late acknowledgements of 40 halves");
    Ok(())
}
