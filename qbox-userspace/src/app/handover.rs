//! One Qbox takes another's place on the same node while both run, and no connection is refused or lost.
//!
//! The new one attaches its programs behind the old one's and listens beside it, on another port; then asks the old one, on its
//! admin socket, to hand over. The old one detaches its programs (from that moment new connections are the new one's),
//! lets its sagas end or lets go of them, closes the journal and the admin sockets, and ends when its connections have. The
//! new one passes connections on at once; triggers wait until it has the journal.
//!
//! Errors: one sentence. Until the old one has agreed it goes on as before, whatever becomes of the new one.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long sagas may go on in a Qbox that hands over, if `grace` is longer: the next one's triggers wait for as long. What
/// has not ended by then is taken up by the next one.
pub(super) const SAGAS: Duration = Duration::from_secs(5);
/// How long the old one may take to hand over: [`SAGAS`], and its journal's last write.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long what the old one has let go of may take to be free.
const LETTING_GO: Duration = Duration::from_secs(10);
const TRY_AGAIN: Duration = Duration::from_millis(10);
/// The most bytes of an answer.
const LONGEST: u64 = 1 << 20;

/// The Qbox that runs.
#[derive(Debug)]
pub(super) struct Predecessor {
    socket: PathBuf,
    /// Its process.
    pub(super) pid: u32,
    /// The port of its listeners; `None` in explicit mode.
    pub(super) port: Option<u16>,
}

/// Of `/api/v1/status`.
#[derive(Deserialize)]
struct Status {
    pid: u32,
    capture: Capture,
}

#[derive(Deserialize)]
struct Capture {
    port: Option<u16>,
}

/// The Qbox that answers on this admin socket; `None` if nobody does.
pub(super) fn find(socket: &Path) -> Result<Option<Predecessor>> {
    let Ok(stream) = UnixStream::connect(socket) else {
        return Ok(None);
    };
    let asked = || {
        format!(
            "the Qbox that answers at {} does not say how it is",
            socket.display()
        )
    };
    let (_, body) = match ask(stream, "GET", "/api/v1/status") {
        // It ended while it was asked.
        Err(error) if is_end(&error) => return Ok(None),
        answer => answer.with_context(asked)?,
    };
    let Status { pid, capture } = serde_json::from_slice(&body).with_context(asked)?;
    Ok(Some(Predecessor {
        socket: socket.to_owned(),
        pid,
        port: capture.port,
    }))
}

impl Predecessor {
    /// Has it hand over. When this is done it captures nothing new, and has let go of the journal, or ended.
    pub(super) async fn hand_over(self) -> Result<()> {
        let Self { socket, pid, .. } = self;
        let asking = tokio::task::spawn_blocking(move || {
            let stream = UnixStream::connect(socket)?;
            ask(stream, "POST", "/api/v1/handover")
        });
        match asking.await? {
            // 503: it had agreed, and was then told to end at once.
            Ok((200 | 503, _)) => {}
            Ok((status, body)) => bail!(
                "the running Qbox (process {pid}) does not hand over ({status}: {}); it goes on as before",
                String::from_utf8_lossy(&body)
            ),
            // Then its end has let go of everything.
            Err(error) => tracing::warn!(pid, %error, "the Qbox that ran before ended while it handed over"),
        }
        Ok(())
    }
}

/// Whether nothing was heard because the other end is gone.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// One request: the answer's status and body.
fn ask(mut stream: UnixStream, method: &str, path: &str) -> io::Result<(u16, Vec<u8>)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request(method, path).as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    parse(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A request of the admin API. HTTP/1.0: its answer ends with the connection, and is not chunked (RFC 9112, 6.1).
pub(super) fn request(method: &str, path: &str) -> String {
    format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    )
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end + 4)?;
    let status = std::str::from_utf8(head).ok()?.split(' ').nth(1)?;
    Some((status.parse().ok()?, body.to_owned()))
}

/// Tries until it is done, or nothing but waiting is left to do.
pub(super) async fn patiently<T>(mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let since = Instant::now();
    loop {
        match work() {
            Err(_) if since.elapsed() < LETTING_GO => tokio::time::sleep(TRY_AGAIN).await,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(answer), Some((200, b"{}".to_vec())));
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n"), None);
        assert_eq!(parse(b"\r\n\r\n"), None);
    }

    #[test]
    fn nobody_is_there() {
        assert!(find(Path::new("/nonexistent/admin.sock")).unwrap().is_none());
    }

    #[test]
    fn one_that_ends_while_it_is_asked_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let hangs_up = std::thread::spawn(move || drop(listener.accept().unwrap()));
        assert!(find(&path).unwrap().is_none());
        hangs_up.join().unwrap();
    }

    #[tokio::test]
    async fn what_is_let_go_of_is_waited_for() {
        let mut tries = 0;
        let done = patiently(|| {
            tries += 1;
            if tries < 3 { bail!("in use") } else { Ok(tries) }
        });
        assert_eq!(done.await.unwrap(), 3);
    }
}
