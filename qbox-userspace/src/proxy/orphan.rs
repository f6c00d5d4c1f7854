//! Whether the program at the other end of a captured connection has closed its socket. A FIN doesn't tell that from the end
//! of one direction; the kernel, which is the same one, does (sock_diag(7)). Errors: what the kernel won't say is no.

use crate::upstream::Via;
use socket2::{Domain, Protocol, Socket, Type};
use std::future::pending;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// linux/socket.h, linux/netlink.h.
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
/// linux/sock_diag.h: the request, and the type of its answer.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const ENOENT: i32 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// Of nlmsghdr and inet_diag_req_v2.
const REQUEST: usize = 16 + 56;
/// Where in nlmsghdr and inet_diag_msg the inode is: the last word.
const INODE: usize = 16 + 68;

/// How often it is looked whether a program that has ended one direction has closed its socket since.
const EVERY: Duration = Duration::from_millis(500);

/// Waits until the client has closed its socket. For ever where that can't be known.
pub(super) async fn closed(client: &TcpStream, via: &Via) {
    // A FIN shows so, whatever is still to be read (EPOLLRDHUP), and stays.
    match client.ready(Interest::PRIORITY).await {
        Ok(ready) if ready.is_read_closed() => {}
        _ => pending().await,
    }
    while !is_closed(client, via).unwrap_or(false) {
        tokio::time::sleep(EVERY).await;
    }
}

fn is_closed(client: &TcpStream, via: &Via) -> io::Result<bool> {
    let request = request(client.peer_addr()?, client.local_addr()?);
    let ask = || -> io::Result<[u8; 256]> {
        let kind = Some(Protocol::from(NETLINK_SOCK_DIAG));
        let mut socket = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, kind)?;
        // The answer is there when the request is written.
        socket.set_nonblocking(true)?;
        socket.write_all(&request)?;
        let mut answer = [0; 256];
        socket.read(&mut answer).map(|_| answer)
    };
    let answer = match via {
        Via::Node => ask(),
        Via::Pod(namespace) => namespace.enter(ask),
    }?;
    Ok(says_closed(&answer))
}

/// For the socket at `local`, connected to `remote`.
fn request(local: SocketAddr, remote: SocketAddr) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    let parts: [(usize, &[u8]); 8] = [
        (0, &72_u32.to_ne_bytes()),
        (4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes()),
        (6, &NLM_F_REQUEST.to_ne_bytes()),
        (16, &[family, IPPROTO_TCP]),
        (20, &u32::MAX.to_ne_bytes()), // in any state
        (24, &local.port().to_be_bytes()),
        (26, &remote.port().to_be_bytes()),
        (64, &[0xff; 8]), // whatever its cookie is
    ];
    let (from, to) = (octets(local.ip()), octets(remote.ip()));
    for (at, bytes) in parts.into_iter().chain([(28, &from[..]), (44, &to[..])]) {
        if let Some(place) = request.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    request
}

/// An address in sixteen bytes; IPv4 is in the first four.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// A socket without a file has no inode; one that is quite gone is not found.
fn says_closed(answer: &[u8]) -> bool {
    let two = |at: usize| answer.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let four = |at: usize| answer.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    match two(4) {
        Some(SOCK_DIAG_BY_FAMILY) => four(INODE) == Some(0),
        Some(NLMSG_ERROR) => four(16).map(u32::cast_signed) == Some(-ENOENT),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn one_direction_is_not_both() {
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(place).await.unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let is_closed = || is_closed(&server, &Via::Node).unwrap();
            assert!(!is_closed(), "{place}: open");
            client.shutdown(Shutdown::Write).unwrap();
            assert!(!is_closed(), "{place}: it may still read");
            drop(client);
            assert!(is_closed(), "{place}: closed");
            closed(&server, &Via::Node).await;
        }
    }

    #[test]
    fn what_is_no_answer_is_no() {
        assert!(!says_closed(b""));
        assert!(!says_closed(&[0; 256]));
    }
}
