//! One TCP connection, from the node or from inside a pod's namespace.

use crate::netns::{self, NetNs};
use socket2::{Domain, Socket};
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};

/// The `SO_MARK` of every socket that Qbox connects: the programs leave these alone. Constant over versions, so that
/// in a rolling update the old programs exempt the new proxy too. ("qb" above, away from kube-proxy's 0x4000 and 0x8000.)
pub const MARK: u32 = 0x7162_0001;

/// From where a connection leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// Qbox's own namespace.
    #[default]
    Node,
    /// A pod's namespace: the service sees the pod's address.
    Pod(NetNs),
}

/// Connects to `address`. No time limit of its own: the caller has one.
///
/// # Errors
/// As connect(2). The mark needs CAP_NET_ADMIN; without it (explicit mode) a connection from the node goes unmarked.
pub async fn dial(via: &Via, address: SocketAddr) -> io::Result<TcpStream> {
    let domain = Domain::for_address(address);
    let socket: Socket = match via {
        Via::Node => netns::tcp_socket(domain)?,
        Via::Pod(namespace) => namespace.tcp_socket(domain)?,
    };
    if let (Err(error), Via::Pod(_)) = (socket.set_mark(MARK), via) {
        return Err(error);
    }
    socket.set_tcp_nodelay(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}
