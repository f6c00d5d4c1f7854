//! Asks a running Qbox, over its admin socket or over TCP with a token. Answers are bounded, and waits too.

use crate::admin::read_token;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A list of 1,000 sagas, or one saga of a thousand large answers.
const LONGEST_ANSWER: usize = 64 << 20;
/// One event of a saga.
const LONGEST_LINE: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(5);
/// A decision for 10,000 sagas, each written to disk.
const LONG_PATIENCE: Duration = Duration::from_secs(60);
/// Where events are followed, Qbox sends an empty line every 10 s.
const SILENCE: Duration = Duration::from_secs(60);

/// A running Qbox's admin API.
#[derive(Debug, Clone)]
pub(super) struct Client {
    place: Place,
    token: Option<String>,
}

#[derive(Debug, Clone)]
enum Place {
    Unix(PathBuf),
    /// `host:port`.
    Tcp(Authority),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// An answer, of whatever status.
#[derive(Debug)]
pub(super) struct Answer {
    /// What was asked.
    path: String,
    /// The status.
    pub(super) status: StatusCode,
    body: Bytes,
}

impl Answer {
    /// The body.
    ///
    /// # Errors
    /// It is no JSON of that shape.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let path = &self.path;
        serde_json::from_slice(&self.body)
            .with_context(|| format!("what Qbox answered to {path} is not what this version of `qbox` reads"))
    }
}

impl Client {
    /// That behind a socket, which asks for no token.
    pub(super) fn unix(socket: &Path) -> Self {
        Self {
            place: Place::Unix(socket.to_owned()),
            token: None,
        }
    }

    /// That at a URL.
    ///
    /// # Errors
    /// The URL is not `http://HOST:PORT`, or there is no token in the file.
    pub(super) fn tcp(url: &str, token_file: Option<&Path>) -> Result<Self> {
        let parsed: Option<Uri> = url.parse().ok();
        let authority = parsed.and_then(|uri| {
            let bare =
                uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
            uri.authority().filter(|_| bare).cloned()
        });
        let authority = authority.filter(|authority| !authority.as_str().contains('@'));
        Ok(Self {
            place: Place::Tcp(authority.with_context(|| {
                format!("`{url}` is no place of an admin API: write http://HOST:PORT, without a path (Qbox speaks no TLS itself)")
            })?),
            token: token_file.map(read_token).transpose()?,
        })
    }

    /// GETs `path` and reads the JSON that comes.
    ///
    /// # Errors
    /// No Qbox answers there, or not with success, or not with what was expected.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.ask(path).await?;
        if !answer.status.is_success() {
            bail!("{}", self.refusal(&answer));
        }
        answer.json()
    }

    /// GETs `path`; whatever is answered is an answer.
    ///
    /// # Errors
    /// No Qbox answers there.
    pub(super) async fn ask(&self, path: &str) -> Result<Answer> {
        self.in_time(PATIENCE, self.exchange(path, None)).await
    }

    /// POSTs `body` as JSON to `path`.
    ///
    /// # Errors
    /// No Qbox answers there.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        let asked = self.exchange(path, Some((Method::POST, body.to_string().into())));
        self.in_time(LONG_PATIENCE, asked).await
    }

    /// PUTs `body` as JSON to `path`.
    ///
    /// # Errors
    /// No Qbox answers there.
    pub(super) async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        let asked = self.exchange(path, Some((Method::PUT, body.to_string().into())));
        self.in_time(PATIENCE, asked).await
    }

    /// GETs `path` and hands on each line that is not empty, until `each` breaks off or Qbox ends, however it does.
    ///
    /// # Errors
    /// No Qbox answers there, or not with success, or it falls silent.
    pub(super) async fn lines(
        &self,
        path: &str,
        mut each: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut response = self.in_time(PATIENCE, self.send(path, None)).await?;
        if !response.status().is_success() {
            let answer = self.in_time(PATIENCE, whole(response, path)).await?;
            bail!("{}", self.refusal(&answer));
        }
        let mut rest: Vec<u8> = Vec::new();
        loop {
            let Ok(frame) = tokio::time::timeout(SILENCE, response.frame()).await else {
                bail!("Qbox at {} has said nothing for {SILENCE:?}", self.place);
            };
            // Killed or stopped: either way there is no more to be told.
            let Some(Ok(frame)) = frame else {
                return Ok(());
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            rest.extend_from_slice(&data);
            let whole = rest
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            let lines: Vec<u8> = rest.drain(..whole).collect();
            if rest.len() > LONGEST_LINE {
                bail!("Qbox at {} answered with a line that does not end", self.place);
            }
            for line in String::from_utf8_lossy(&lines)
                .lines()
                .filter(|line| !line.is_empty())
            {
                if each(line).is_break() {
                    return Ok(());
                }
            }
        }
    }

    async fn in_time<T>(&self, patience: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = tokio::time::timeout(patience, answer).await;
        answer.with_context(|| {
            format!(
                "Qbox took the connection at {} and gave no answer in {patience:?}",
                self.place
            )
        })?
    }

    /// What an answer other than success says: the problem's detail (RFC 9457), or else the body.
    pub(super) fn refusal(&self, answer: &Answer) -> String {
        let Answer { path, status, body } = answer;
        if *status == StatusCode::UNAUTHORIZED {
            let what = match self.token {
                Some(_) => "does not know this token: give that of its `admin.token_file`",
                None => "asks for a token: name its file",
            };
            return format!("Qbox at {} {what} with --token-file", self.place);
        }
        let problem: Option<Value> = serde_json::from_slice(body).ok();
        let detail = problem
            .as_ref()
            .and_then(|problem| problem.get("detail")?.as_str());
        let text = String::from_utf8_lossy(body);
        format!("Qbox answered {status} to {path}: {}", detail.unwrap_or(&text))
    }

    async fn exchange(&self, path: &str, body: Option<(Method, Bytes)>) -> Result<Answer> {
        whole(self.send(path, body).await?, path).await
    }

    /// Asks, and waits for the head of the answer.
    async fn send(&self, path: &str, body: Option<(Method, Bytes)>) -> Result<Response<Incoming>> {
        match &self.place {
            Place::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| refused(socket, &error))?;
                self.send_over(stream, "localhost", path, body).await
            }
            Place::Tcp(authority) => {
                let address = (
                    authority.host().trim_matches(['[', ']']),
                    authority.port_u16().unwrap_or(80),
                );
                let stream = TcpStream::connect(address).await;
                let stream = stream.with_context(|| format!("no Qbox answers at http://{authority}"))?;
                self.send_over(stream, authority.as_str(), path, body).await
            }
        }
    }

    async fn send_over<S>(
        &self,
        stream: S,
        host: &str,
        path: &str,
        body: Option<(Method, Bytes)>,
    ) -> Result<Response<Incoming>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer's body, or with this process. What goes wrong with it the body says.
        tokio::spawn(async move { drop(connection.await) });
        let (mut request, body) = match body {
            Some((method, body)) => {
                let request = Request::builder().method(method).uri(path);
                (request.header(header::CONTENT_TYPE, "application/json"), body)
            }
            None => (Request::get(path), Bytes::new()),
        };
        request = request.header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(sender.send_request(request.body(Full::new(body))?).await?)
    }
}

async fn whole(response: Response<Incoming>, path: &str) -> Result<Answer> {
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer to {path}: {error}"))?;
    Ok(Answer {
        path: path.to_owned(),
        status,
        body: body.to_bytes(),
    })
}

fn refused(socket: &Path, error: &io::Error) -> anyhow::Error {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!(
            "there is no Qbox at {socket}: start one with `qbox run`, or name its `admin.socket` with --socket"
        ),
        io::ErrorKind::ConnectionRefused => {
            anyhow::anyhow!("no Qbox answers at {socket} any more: start it again with `qbox run`")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{socket} is its owner's alone: run this command as the user that Qbox runs as")
        }
        _ => anyhow::anyhow!("can't connect to {socket}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    /// Asks a socket that gives `answer` to whatever it is asked.
    async fn ask(answer: &'static str) -> Result<Value> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let client = Client::unix(&path);
        tokio::join!(client.get("/x"), serve).0
    }

    #[tokio::test]
    async fn answers_are_read_to_their_end() {
        let value = ask("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"a\": 1}").await;
        assert_eq!(value.unwrap(), json!({"a": 1}));
    }

    #[tokio::test]
    async fn what_qbox_refuses_is_said() {
        let error = ask("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone")
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "Qbox answered 404 Not Found to /x: none");
    }

    #[tokio::test]
    async fn a_problem_is_told_by_its_detail() {
        let body = "{\"detail\":\"older_than: `x`: it is no number\"}";
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let error = ask(answer.leak()).await.unwrap_err();
        let told = "Qbox answered 400 Bad Request to /x: older_than: `x`: it is no number";
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn a_place_is_a_host_and_a_port() {
        for url in [
            "http://127.0.0.1:9901",
            "http://[::1]:9901/",
            "http://node-7:9901",
        ] {
            assert!(Client::tcp(url, None).is_ok(), "{url}");
        }
        for url in [
            "https://node-7:9901",
            "node-7:9901",
            "http://node-7/api",
            "http://a@node-7:1",
            "",
            "/x",
        ] {
            let error = Client::tcp(url, None).unwrap_err().to_string();
            assert!(error.contains("write http://HOST:PORT"), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_what_to_do() {
        let error = Client::unix(Path::new("/nowhere/qbox.sock"))
            .get::<Value>("/x")
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("there is no Qbox at /nowhere/qbox.sock"),
            "{error}"
        );
    }
}
