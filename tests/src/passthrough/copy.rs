//! The least that a proxy can do: bytes from one socket to another, and back.

use anyhow::Result;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

/// Bytes of each direction's buffer: as much as Qbox's.
const BUFFER: usize = 64 << 10;

/// Copies each connection to `listen` to one of its own to `target`, for ever, on one thread.
///
/// # Errors
/// It can't listen.
pub fn copy(listen: SocketAddr, target: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (mut client, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await?;
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await
            });
        }
    })
}
