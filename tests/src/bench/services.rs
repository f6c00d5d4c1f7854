//! Services that answer every request with a few bytes, all on one thread: what they cost is to be little, and the same
//! for whoever calls them. They answer at once; `/slow/…` after [`SLOW`]; and `/held/…` when they are told to.

use super::message;
use anyhow::{Context, Result};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{oneshot, watch};

pub(super) const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}";

/// How long a slow one takes.
pub(super) const SLOW: Duration = Duration::from_millis(10);

/// They serve until this is dropped.
#[derive(Debug)]
pub(super) struct Services {
    /// Whether what is held is to be held on.
    holding: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Services {
    /// Serves on the listeners, which belong to whatever namespaces they were made in.
    pub(super) fn start(listeners: Vec<TcpListener>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime")?;
        let open = |listener: TcpListener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        };
        let listeners = {
            let _inside = runtime.enter();
            listeners
                .into_iter()
                .map(open)
                .collect::<std::io::Result<Vec<_>>>()?
        };
        let (stop, stopped) = oneshot::channel();
        let (holding, held) = watch::channel(true);
        let thread = thread::Builder::new()
            .name("services".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    for listener in listeners {
                        tokio::spawn(accept(listener, held.clone()));
                    }
                    drop(stopped.await);
                });
                runtime.shutdown_timeout(Duration::from_secs(1));
            })?;
        Ok(Self {
            holding,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Holds what comes for `/held/…` from now on, or answers all of it.
    pub(super) fn hold(&self, holding: bool) {
        self.holding.send_replace(holding);
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, held: watch::Receiver<bool>) {
    while let Ok((stream, _)) = listener.accept().await {
        // One that breaks is its client's to tell of.
        let held = held.clone();
        tokio::spawn(async move { drop(serve(stream, held).await) });
    }
}

async fn serve(mut stream: tokio::net::TcpStream, mut held: watch::Receiver<bool>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(1024);
    loop {
        while let Some(length) = message::length(&buffer)? {
            if buffer.starts_with(b"PUT /slow/") {
                // tokio's clock has whole milliseconds, which would hide what comes before the wait.
                tokio::task::spawn_blocking(|| thread::sleep(SLOW)).await?;
            } else if buffer.starts_with(b"PUT /held/") {
                held.wait_for(|holding| !holding).await?;
            }
            buffer.drain(..length);
            stream.write_all(ANSWER).await?;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}
