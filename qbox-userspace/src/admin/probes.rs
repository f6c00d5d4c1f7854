//! What kubelet asks a Qbox that stands by: it lives, and it is ready to take over. Nothing else is answered, and there is no
//! state. Errors: the address is taken, most often by the one whose place it would take.

use super::bounded::Bounded;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Answers probes until it is dropped.
#[derive(Debug)]
pub struct Probes {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Probes {
    /// Listens at `listen` of `[admin]`, inside a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// The address is taken, or not this machine's.
    pub async fn start(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let ready = || async { Json(json!({ "ready": true, "amiss": [], "standby": true })) };
        let routes = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(Bounded::new(listener), routes).await {
                tracing::error!(%error, "probes are no longer answered");
            }
        });
        Ok(Self { address, task })
    }

    /// The address, with the port that was found where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: 10.0.0.7:9901\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn probes_are_answered_and_nothing_else() {
        let probes = Probes::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = probes.address();
        for (path, status) in [("/healthz", "200"), ("/readyz", "200"), ("/api/v1/status", "404")] {
            let answer = ask(address, path).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.0 {status}")), "{answer}");
        }
        assert!(Probes::start(address).await.is_err(), "it is taken");
        drop(probes);
        // The task ends when it is next polled.
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while ask(address, "/healthz").await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}
