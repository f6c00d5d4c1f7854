//! The worker threads. Each has a runtime of its own: a connection stays with the worker that it was given to, and so do the sagas that
//! it triggers and the idle connections that their calls leave behind.
//!
//! One runtime whose threads share all work wakes one thread for each part that another has begun, and moves each saga's memory from
//! one processor to the other: on two processors up to half of what a saga costs (docs/performance.md). Errors: a runtime can't be
//! started.

use crate::outbox::{self, Outbox};
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The number of the worker whose thread this is, from 0; 0 also for threads that are no worker's.
#[must_use]
pub fn current() -> usize {
    CURRENT.get()
}

/// Runs what blocks for a moment on this thread, whose other tasks go on elsewhere. Of tokio's threads only where [`may_block`] says so.
pub fn block<T>(work: impl FnOnce() -> T) -> T {
    outbox::leave(|| tokio::task::block_in_place(work))
}

/// Whether this thread may: others would hold their tasks up.
#[must_use]
pub fn may_block() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// How many there are if nobody says: up to two processors that Qbox may have (its cgroup's limit counts) one on each, of more one on each
/// two of them: the others are the pods'.
#[must_use]
pub fn default_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.div_ceil(2).max(processors.min(2))
}

/// The workers' runtimes. Dropped without [`Workers::stop`], it waits for tasks that block.
#[derive(Debug)]
pub struct Workers {
    runtimes: Vec<Runtime>,
    spread: Spread,
}

impl Workers {
    /// So many, but at least one, running.
    ///
    /// # Errors
    /// A thread or its reactor can't be made.
    pub fn start(count: usize) -> io::Result<Self> {
        let runtimes = (0..count.max(1)).map(runtime).collect::<io::Result<Vec<_>>>()?;
        let worker = |runtime: &Runtime| Worker {
            handle: runtime.handle().clone(),
            connections: AtomicUsize::new(0),
        };
        Ok(Self {
            spread: Spread(runtimes.iter().map(worker).collect()),
            runtimes,
        })
    }

    /// Runs `main` on this thread, with the first worker's runtime, until it ends.
    pub fn block_on<T>(&self, main: impl Future<Output = T>) -> Option<T> {
        Some(self.runtimes.first()?.block_on(main))
    }

    /// For whoever accepts connections.
    #[must_use]
    pub fn spread(&self) -> Spread {
        self.spread.clone()
    }

    /// Ends all tasks. Those that block are waited for, so long for each worker.
    pub fn stop(self, patience: Duration) {
        for runtime in self.runtimes {
            runtime.shutdown_timeout(patience);
        }
    }
}

fn runtime(number: usize) -> io::Result<Runtime> {
    let missed = |error: &io::Error| {
        if number == 0 {
            tracing::info!(%error, "no io_uring is to be had: each message that Qbox sends is a system call");
        }
    };
    let outbox = Outbox::new().inspect_err(missed).ok();
    let tasks_outbox = outbox.clone();
    let runtime = Builder::new_multi_thread()
        // Of this kind, and not for one thread alone, so that a saga may sync its journal without holding the others up.
        .worker_threads(1)
        .enable_all()
        .thread_name("qbox")
        .on_thread_start(move || {
            CURRENT.set(number);
            if let Some(outbox) = &tasks_outbox {
                outbox.enter();
            }
        })
        .build()?;
    if let Some(outbox) = outbox {
        runtime.spawn(outbox.send());
    }
    Ok(runtime)
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    connections: AtomicUsize,
}

/// Gives connections to the workers: each to the one that has fewest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spread(Arc<[Worker]>);

impl Spread {
    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.0.len()
    }

    /// `serve`s the connection on the worker that has fewest of them; of several on this one. It must have been accepted on a worker.
    pub fn give<F>(&self, stream: TcpStream, serve: impl FnOnce(TcpStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let here = current();
        let all = self.0.iter().enumerate();
        let fewest =
            all.min_by_key(|(number, worker)| (worker.connections.load(Ordering::Relaxed), *number != here));
        let Some((number, worker)) = fewest else {
            return;
        };
        let counted = Counted::new(self, number);
        if number == here {
            tokio::spawn(async move {
                let _counted = counted;
                serve(stream).await;
            });
            return;
        }
        // Its readiness is the other reactor's to tell.
        let moved = stream.into_std();
        worker.handle.spawn(async move {
            let _counted = counted;
            match moved.and_then(TcpStream::from_std) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::warn!(%error, "a connection can't be given to another worker: closed"),
            }
        });
    }
}

/// One connection of a worker.
struct Counted {
    spread: Spread,
    number: usize,
}

impl Counted {
    fn new(spread: &Spread, number: usize) -> Self {
        let counted = Self {
            spread: spread.clone(),
            number,
        };
        if let Some(count) = counted.count() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        counted
    }

    fn count(&self) -> Option<&AtomicUsize> {
        Some(&self.spread.0.get(self.number)?.connections)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(count) = self.count() {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn connections_are_spread_and_served_where_they_are() {
        let workers = Workers::start(3).unwrap();
        let spread = workers.spread();
        let (say, hear) = mpsc::channel();
        workers
            .block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut clients = Vec::new();
                for _ in 0..6 {
                    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                    let (stream, _) = listener.accept().await.unwrap();
                    let say = say.clone();
                    spread.give(stream, move |mut stream| async move {
                        stream.write_all(b"x").await.unwrap();
                        say.send(current()).unwrap();
                        // Until the client goes.
                        stream.read_u8().await.unwrap_err();
                    });
                    client.read_u8().await.unwrap();
                    clients.push(client);
                }
                let loads = || -> Vec<usize> {
                    let loads = spread.0.iter();
                    loads
                        .map(|worker| worker.connections.load(Ordering::Relaxed))
                        .collect()
                };
                assert_eq!(loads(), [2, 2, 2]);
                drop(clients);
                while loads() != [0, 0, 0] {
                    tokio::task::yield_now().await;
                }
            })
            .unwrap();
        let mut served: Vec<usize> = hear.iter().collect();
        served.sort_unstable();
        assert_eq!(served, [0, 0, 1, 1, 2, 2]);
        workers.stop(Duration::from_secs(1));
    }
}
