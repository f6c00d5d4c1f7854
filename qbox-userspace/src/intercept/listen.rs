//! Listeners in a pod's namespace: what is turned is accepted there. Knows neither who accepts nor what for.
//!
//! Errors: those of [`InterceptError`] that a namespace is the reason of; that its loopback is down is one that passes.

use super::accept::BACKLOG;
use super::entry::Pod;
use super::error::InterceptError;
use super::sys;
use qbox_common::reach;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// What listens in a namespace.
pub(super) struct Listeners {
    /// What the programs know the namespace by.
    pub(super) cookie: u64,
    /// Of which families they are: bits of [`reach`].
    pub(super) reached: u32,
    pub(super) sockets: Vec<Socket>,
}

/// Listens on the pod's loopback, of both families where it has both.
pub(super) fn listeners(pod: &Pod, port: u16) -> Result<Listeners, InterceptError> {
    let v4 = listen(pod, (Ipv4Addr::LOCALHOST, port).into()).map_err(|source| match source.kind() {
        io::ErrorKind::NetworkUnreachable => InterceptError::LoopbackDown {
            pod: pod.name.clone(),
        },
        io::ErrorKind::AddrInUse => InterceptError::PortTaken {
            pod: pod.name.clone(),
            port,
        },
        _ => InterceptError::Listen {
            pod: pod.name.clone(),
            source,
        },
    })?;
    let cookie = sys::netns_cookie(&v4).map_err(|source| InterceptError::Io {
        what: "the kernel doesn't name a network namespace",
        source,
    })?;
    let mut sockets = vec![v4];
    let mut reached = reach::V4;
    match listen(pod, (Ipv6Addr::LOCALHOST, port).into()) {
        Ok(v6) => {
            sockets.push(v6);
            reached |= reach::V6;
        }
        // Turned off, most often; then there is nothing to capture.
        Err(error) => tracing::debug!(pod = pod.name, %error, "can't listen on ::1"),
    }
    Ok(Listeners {
        cookie,
        reached,
        sockets,
    })
}

/// A listener in the pod's namespace. Connections that an earlier Qbox left on the port don't hinder it.
fn listen(pod: &Pod, address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = pod.netns.tcp_socket(domain)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    sys::save_syn(&socket)?;
    socket.bind(&address.into())?;
    // The kernel lets a socket be bound while the loopback is down. What is turned to it then would fail; connecting a
    // datagram socket finds out, and sends nothing.
    let probe = pod.netns.enter(|| Socket::new(domain, Type::DGRAM, None))?;
    probe.connect(&address.into())?;
    socket.listen(BACKLOG)?;
    sys::no_fast_open(&socket)?;
    Ok(socket)
}
