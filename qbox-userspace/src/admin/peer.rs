//! Who asks: what the kernel says of the other end of a connection.

use super::bounded::{Bounded, Connection};
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use std::fs;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// The other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process, as `SO_PEERCRED` has it (unix(7)).
    Unix {
        /// Its user; `None`: the kernel doesn't say.
        user: Option<u32>,
        /// Its number; `None`: it is in a PID namespace that is not below Qbox's.
        process: Option<u32>,
    },
    /// Somebody at this address.
    Tcp(SocketAddr),
}

impl Connected<IncomingStream<'_, Bounded<TcpListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded<TcpListener>>) -> Self {
        let _: &Connection<TcpStream> = stream.io();
        Self::Tcp(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, Bounded<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded<UnixListener>>) -> Self {
        let io: &UnixStream = stream.io().get_ref();
        let peer = io.peer_cred().ok();
        let process = peer.and_then(|peer| u32::try_from(peer.pid()?).ok());
        Self::Unix {
            user: peer.map(|peer| peer.uid()),
            process: process.filter(|process| *process != 0),
        }
    }
}

impl Peer {
    /// As a saga's history names one who has given no name: the user's, or the address.
    pub(super) fn name(self) -> String {
        match self {
            Self::Unix { user: Some(uid), .. } => {
                let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
                user(&users, uid).unwrap_or_else(|| format!("uid {uid}"))
            }
            Self::Unix { user: None, .. } => "a process of this node".to_owned(),
            Self::Tcp(address) => format!("api:{}", address.ip().to_canonical()),
        }
    }
}

/// The name of a user, in a file as passwd(5) describes it.
fn user(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        (id == uid && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named() {
        let users = "root:x:0:0:root:/root:/bin/sh\n#half\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(user(users, 1000).as_deref(), Some("ada"));
        assert_eq!(user(users, 0).as_deref(), Some("root"));
        assert_eq!(user(users, 7), None);
        let address = "[::ffff:10.0.0.7]:4711".parse().unwrap();
        assert_eq!(Peer::Tcp(address).name(), "api:10.0.0.7");
    }
}
