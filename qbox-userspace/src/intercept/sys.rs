//! Socket options and bpf(2) commands that no safe wrapper in the workspace has. Knows nothing else.
#![allow(unsafe_code)]

use aya::Pod;
use aya::maps::{MapData, MapError};
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Where a program is attached: linux/bpf.h's `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Hook {
    SockCreate = 2,
    SockOps = 3,
    Connect4 = 10,
    Connect6 = 11,
    GetPeerName4 = 29,
    GetPeerName6 = 30,
}

/// `bpf_attr` of BPF_LINK_CREATE as far as a cgroup needs it; the kernel takes the rest for zeroes.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    hook: u32,
    flags: u32,
}

/// `bpf_attr` of the commands on a map's element.
#[repr(C)]
struct Element {
    map: u32,
    // The kernel wants the next field at a multiple of 8 bytes.
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const BPF_LINK_CREATE: libc::c_long = 28;

/// Attaches a program to a cgroup, beside whatever is attached there. It stays for as long as the descriptor is open.
///
/// aya has this too, but keeps the descriptor to itself, and its number matters: see `raised`.
///
/// # Errors
/// As bpf(2).
pub(super) fn link(program: impl AsFd, cgroup: impl AsFd, hook: Hook) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: number(program)?,
        target: number(cgroup)?,
        hook: hook as u32,
        flags: 0,
    };
    // SAFETY: the attributes are of the command's layout, hold no pointer, and are only read.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &raw const attributes)? };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the command returns a new descriptor, close-on-exec, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A hash map out of which entries are taken: nobody else gets one that was, and none that comes after it is lost.
#[derive(Debug)]
pub(super) struct Takeable<K, V> {
    fd: OwnedFd,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> Takeable<K, V> {
    /// The same map as `data`.
    ///
    /// # Errors
    /// No file descriptor is left, or its keys or values are of other sizes.
    pub(super) fn of(data: &MapData) -> Result<Self, MapError> {
        let info = data.info()?;
        let sizes = (info.key_size() as usize, info.value_size() as usize);
        if sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
        let fd = data.fd().as_fd().try_clone_to_owned()?;
        Ok(Self {
            fd,
            types: PhantomData,
        })
    }

    /// Takes an entry; `None` if there is none.
    ///
    /// # Errors
    /// As bpf(2); the kernel is older than 5.14.
    pub(super) fn take(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let attributes = Element {
            map: number(&self.fd)?,
            padding: 0,
            key: (&raw const *key) as u64,
            value: value.as_mut_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the key is read, and the value written, in the map's sizes, which are the types'; both live on.
        match unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &raw const attributes) } {
            // SAFETY: the kernel wrote the whole value, and any bytes are one of a `Pod`.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// # Safety
/// The attributes are those of the command, and what they point to is valid for it.
unsafe fn bpf<T>(command: libc::c_long, attributes: *const T) -> io::Result<libc::c_long> {
    // SAFETY: the caller's promise; the size is that of what is pointed to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn number(fd: impl AsFd) -> io::Result<u32> {
    u32::try_from(fd.as_fd().as_raw_fd()).map_err(io::Error::other)
}

/// Waits for a descriptor to become readable. It is a duplicate of `of`'s.
///
/// # Errors
/// No descriptor is left, or it is of a kind that can't be waited for.
pub(super) fn readable(of: impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = of.as_fd().try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` is open, and the same, until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? })
}

/// The cookie of a socket's network namespace (SO_NETNS_COOKIE, Linux 5.14): what the programs know a namespace by.
///
/// # Errors
/// The kernel is older.
pub(super) fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut bytes = [0; size_of::<u64>()];
    let length = get(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, &mut bytes)?;
    if length != bytes.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// Has a listener keep the head of each connection's SYN (TCP_SAVE_SYN, linux/tcp.h).
///
/// # Errors
/// As setsockopt(2).
pub(super) fn save_syn(listener: impl AsFd) -> io::Result<()> {
    set(listener, libc::TCP_SAVE_SYN, 1)
}

/// Has a listener refuse TCP Fast Open (RFC 7413), which a sysctl can turn on for all: with it a connection could be
/// accepted before its client's side has said where it was going. The client's data is then sent in the usual way.
///
/// # Errors
/// As setsockopt(2); the socket must listen already.
pub(super) fn no_fast_open(listener: impl AsFd) -> io::Result<()> {
    set(listener, libc::TCP_FASTOPEN, 0)
}

/// The head that [`save_syn`] had kept: IP, then TCP. How long it is; 0 if the kernel kept none (SYN cookies).
///
/// # Errors
/// As getsockopt(2): the buffer is too small.
pub(super) fn saved_syn(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    get(socket, libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, buffer)
}

fn set(socket: impl AsFd, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed; the value is of the length given, and only read.
    let result = unsafe {
        let fd = socket.as_fd().as_raw_fd();
        libc::setsockopt(fd, libc::IPPROTO_TCP, name, (&raw const value).cast(), length)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn get(socket: impl AsFd, level: libc::c_int, name: libc::c_int, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(buffer.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `length` bytes, all of which are
    // the buffer's, and any bytes are valid there.
    let result = unsafe {
        let fd = socket.as_fd().as_raw_fd();
        libc::getsockopt(fd, level, name, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(length).map_err(io::Error::other)
}
