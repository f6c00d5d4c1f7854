//! Asks a running Qbox, over its admin socket. Answers are bounded, and waits too.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// A list of 1,000 sagas, or one saga of a thousand large answers.
const LONGEST_ANSWER: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// GETs `path` and reads the JSON that comes.
///
/// # Errors
/// No Qbox answers at `socket`, or not with success, or not with what was expected.
pub(super) async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    let answer = tokio::time::timeout(PATIENCE, exchange(socket, path)).await;
    let (status, body) = answer.with_context(|| {
        format!(
            "Qbox took the connection at {} and gave no answer in {PATIENCE:?}",
            socket.display()
        )
    })??;
    if !status.is_success() {
        bail!(
            "Qbox answered {status} to {path}: {}",
            String::from_utf8_lossy(&body)
        );
    }
    serde_json::from_slice(&body)
        .with_context(|| format!("what Qbox answered to {path} is not what this version of `qbox` reads"))
}

async fn exchange(socket: &Path, path: &str) -> Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| refused(socket, &error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer to {path}: {error}"))?;
        anyhow::Ok((status, body.to_bytes()))
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end first, the whole answer being read already.
        _ = connection => answer.await,
    }
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
    use serde_json::{Value, json};
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
        tokio::join!(get(&path, "/x"), serve).0
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
    async fn nobody_there_is_said_with_what_to_do() {
        let error = get::<Value>(Path::new("/nowhere/qbox.sock"), "/x")
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
