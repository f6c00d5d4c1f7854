//! Connections that wait: each has had one request answered. Errors: one wasn't.

use crate::pod::Pod;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

/// How many.
pub(super) const IDLE: usize = 1000;

const SCRIPT: &str = r#"
import resource, socket, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
open = []
for _ in range(count):
    c = socket.create_connection((host, port))
    c.sendall(b"GET /tiny HTTP/1.1\r\nHost: backend\r\n\r\n")
    heard = b""
    while not heard.endswith(b"\r\n\r\nok"):
        more = c.recv(4096)
        if not more: sys.exit("an answer ended early: %r" % heard)
        heard += more
    open.append(c)
print("open", flush=True)
sys.stdin.read()
"#;

/// Runs `look` while [`IDLE`] connections to `url` (`http://HOST:PORT`) wait.
pub(super) fn beside<T>(load: &Pod, url: &str, look: impl FnOnce() -> Result<T>) -> Result<T> {
    let place = url.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':'));
    let (host, port) = place.context("no place")?;
    let mut child = load
        .command_for(Duration::from_secs(120), "python3")
        .args(["-c", SCRIPT, host, port, &IDLE.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    ensure!(line == "open\n", "{url}: the connections did not come to wait");
    let seen = look();
    drop(child.stdin.take());
    ensure!(child.wait()?.success());
    seen
}
