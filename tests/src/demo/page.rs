//! The admin page for a browser outside of the demo's own network: a port of this machine's loopback whose connections go on to Qbox's,
//! where it asks the same questions of who comes as anywhere.

use crate::netns::Namespace;
use anyhow::{Context, Result};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Where the page is by default.
const PORT: u16 = 9901;
/// Connections at once, at the most. A browser opens six.
const MOST: usize = 32;

/// Listens, for as long as this process lives, on [`PORT`] if nobody else does. Gives back where.
///
/// # Errors
/// No port is free, or no thread.
pub(super) fn open(inside: Namespace, qbox: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("no port is free for the page")?;
    let address = listener.local_addr()?;
    let open = Arc::new(AtomicUsize::new(0));
    thread::Builder::new().name("page".to_owned()).spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            if open.fetch_add(1, Ordering::Relaxed) >= MOST {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let to = inside.run(|| Ok(TcpStream::connect(qbox)?));
            let open = Arc::clone(&open);
            thread::spawn(move || {
                // Qbox may have stopped: then the client's connection ends too.
                if let Ok(to) = to {
                    drop(both_ways(&client, &to));
                }
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    })?;
    Ok(address)
}

fn both_ways(client: &TcpStream, qbox: &TcpStream) -> io::Result<()> {
    thread::scope(|scope| {
        scope.spawn(|| one_way(client, qbox));
        one_way(qbox, client)
    })
}

fn one_way(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    // Whoever still waits for the other learns of the end.
    drop(to.shutdown(Shutdown::Write));
    copied.map(drop)
}
