//! Qbox's admin API, asked over its Unix socket: plain HTTP/1.1, one request a connection.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The API of one Qbox.
#[derive(Debug, Clone)]
pub struct Admin {
    socket: PathBuf,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

impl Admin {
    /// That behind a socket. Nothing is asked yet.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// Nobody answers, or not in HTTP/1.1.
    pub fn get(&self, path: &str) -> Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("can't reach Qbox at {}", self.socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // HTTP/1.0, so that the answer isn't chunked (RFC 9112, 6.1).
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes)?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            bail!("Qbox answered {path} with half a message");
        };
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok(Answer {
            status: status.with_context(|| format!("Qbox answered {path} without a status"))?,
            body: body.to_owned(),
        })
    }

    /// Asks for a path that answers 200 with JSON.
    ///
    /// # Errors
    /// It doesn't.
    pub fn json(&self, path: &str) -> Result<Value> {
        let answer = self.get(path)?;
        if answer.status != 200 {
            bail!("Qbox answered {path} with {}: {}", answer.status, answer.body);
        }
        serde_json::from_str(&answer.body).with_context(|| format!("what {path} answered is no JSON"))
    }

    /// One saga with its events.
    ///
    /// # Errors
    /// It is unknown, or nobody answers.
    pub fn saga(&self, id: &str) -> Result<Value> {
        self.json(&format!("/api/v1/sagas/{id}"))
    }

    /// All sagas in the list.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn sagas(&self) -> Result<Vec<Value>> {
        let list = self.json("/api/v1/sagas")?;
        let sagas = list.get("sagas").and_then(Value::as_array);
        Ok(sagas.context("the list has no `sagas`")?.clone())
    }

    /// A count in `/metrics`, by its name, with its labels if it has some.
    ///
    /// # Errors
    /// There is none of that name, it is no whole number, or nobody answers.
    pub fn metric(&self, sample: &str) -> Result<u64> {
        let metrics = self.get("/metrics")?.body;
        let of = |line: &str| line.strip_prefix(sample)?.strip_prefix(' ')?.trim().parse().ok();
        metrics
            .lines()
            .find_map(of)
            .with_context(|| format!("no {sample} in\n{metrics}"))
    }

    /// Whether Qbox says that it captures the pod of that name.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn has_pod(&self, name: &str) -> Result<bool> {
        let list = self.json("/api/v1/pods")?;
        let pods = list.get("pods").and_then(Value::as_array).context("no `pods`")?;
        Ok(pods
            .iter()
            .any(|pod| pod.get("name").and_then(Value::as_str) == Some(name)))
    }
}
