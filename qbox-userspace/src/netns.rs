//! Network namespaces: a handle, and making a socket inside one.
//!
//! A socket stays in the namespace in which it was made, so only `socket()` itself has to run inside; binding, connecting
//! and reading go on anywhere. Entering takes about a microsecond (setns(2)), so a worker does it in place.

use rustix::fd::{AsFd, OwnedFd};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A network namespace that is kept alive by this handle.
#[derive(Clone, Debug)]
pub struct NetNs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    inode: u64,
}

impl PartialEq for NetNs {
    fn eq(&self, other: &Self) -> bool {
        self.inner.inode == other.inner.inode
    }
}

impl Eq for NetNs {}

impl NetNs {
    /// Opens a namespace file, as `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// The process is gone, or may not be looked at.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self {
            inner: Arc::new(Inner {
                fd: file.into(),
                inode,
            }),
        })
    }

    /// The namespace's inode, as `readlink /proc/PID/ns/net` shows it: unique while the namespace lives.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inner.inode
    }

    /// Runs `work` inside the namespace, on this thread. `work` must not block for long: the thread is a worker's.
    ///
    /// # Errors
    /// `work`'s, or the namespace can't be entered (CAP_SYS_ADMIN is missing). If the way back fails, the process
    /// aborts: a worker left in a pod's namespace would send other pods' traffic from it.
    pub fn enter<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let home = home()?;
        move_into_link_name_space(self.inner.fd.as_fd(), Some(LinkNameSpaceType::Network))?;
        let result = work();
        if move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            tracing::error!("can't return from a pod's network namespace; stopping");
            std::process::abort();
        }
        result
    }

    /// A TCP socket of this namespace: non-blocking, close-on-exec.
    ///
    /// # Errors
    /// As [`NetNs::enter`], or no file descriptor is left.
    pub fn tcp_socket(&self, domain: Domain) -> io::Result<Socket> {
        self.enter(|| tcp_socket(domain))
    }
}

/// A TCP socket of the namespace that Qbox runs in.
///
/// # Errors
/// No file descriptor is left.
pub fn tcp_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The namespace Qbox itself runs in, opened once.
fn home() -> io::Result<&'static OwnedFd> {
    static HOME: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(fd) = HOME.get() {
        return Ok(fd);
    }
    let fd: OwnedFd = File::open("/proc/self/ns/net")?.into();
    Ok(HOME.get_or_init(|| fd))
}
