//! Socket options and bpf(2) commands that no safe wrapper in the workspace has. Knows nothing else.
#![allow(unsafe_code)]

use aya::Pod;
use aya::maps::{MapData, MapError};
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Where a program is attached: linux/bpf.h's `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// `bpf_attr` of BPF_OBJ_PIN and BPF_OBJ_GET.
#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `bpf_attr` of BPF_PROG_QUERY as far as a cgroup needs it.
#[repr(C)]
struct Query {
    target: u32,
    hook: u32,
    flags: u32,
    attached: u32,
    programs: u64,
    count: u32,
    padding: u32,
}

/// `bpf_attr` of BPF_LINK_DETACH.
#[repr(C)]
struct LinkDetach {
    link: u32,
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

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_DETACH: libc::c_long = 34;
/// BPF_PROG_QUERY: with those that are inherited from the cgroups above.
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
/// Programs on one hook of one cgroup: the kernel's own limit (BPF_CGROUP_MAX_PROGS).
const MOST_PROGRAMS: usize = 64;
/// The effective ones are those of every cgroup above too.
const MOST_EFFECTIVE: usize = 1024;

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

/// Keeps a link alive under a path of a bpf file system, whoever ends.
///
/// # Errors
/// As bpf(2): the path is taken, or on another file system.
pub(super) fn pin(link: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Object {
        path: path.as_ptr() as u64,
        fd: number(link)?,
        flags: 0,
    };
    // SAFETY: the attributes are of the command's layout, and the path lives until it returns.
    unsafe { bpf(BPF_OBJ_PIN, &raw const attributes) }.map(drop)
}

/// Detaches the program of a link that is pinned under a path, at once and whoever else holds the link.
///
/// # Errors
/// As bpf(2): there is no link there.
pub(super) fn detach_pinned(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Object {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: as for `pin`.
    let fd = unsafe { bpf(BPF_OBJ_GET, &raw const attributes)? };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the command returns a new descriptor, close-on-exec, which nobody else has.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    let attributes = LinkDetach { link: number(&link)? };
    // SAFETY: the attributes are of the command's layout, hold no pointer, and are only read.
    unsafe { bpf(BPF_LINK_DETACH, &raw const attributes) }.map(drop)
}

/// The ids of the programs that are attached to a cgroup's hook, in the order in which they run.
///
/// # Errors
/// As bpf(2).
pub(super) fn attached(cgroup: impl AsFd, hook: Hook) -> io::Result<Vec<u32>> {
    query(cgroup, hook, 0, MOST_PROGRAMS)
}

/// The ids of the programs that run for a cgroup's hook, those that are attached to cgroups above it too.
///
/// # Errors
/// As bpf(2).
pub(super) fn effective(cgroup: impl AsFd, hook: Hook) -> io::Result<Vec<u32>> {
    query(cgroup, hook, BPF_F_QUERY_EFFECTIVE, MOST_EFFECTIVE)
}

fn query(cgroup: impl AsFd, hook: Hook, flags: u32, most: usize) -> io::Result<Vec<u32>> {
    let mut programs = vec![0; most];
    let mut attributes = Query {
        target: number(cgroup)?,
        hook: hook as u32,
        flags,
        attached: 0,
        programs: programs.as_mut_ptr() as u64,
        count: u32::try_from(most).map_err(io::Error::other)?,
        padding: 0,
    };
    // SAFETY: the attributes are of the command's layout; the kernel writes into them, and at most `count` numbers into
    // the list, which is as long and lives on.
    unsafe { bpf(BPF_PROG_QUERY, &raw mut attributes)? };
    programs.truncate(usize::try_from(attributes.count).map_err(io::Error::other)?);
    Ok(programs)
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

/// How many bytes of a BPF ring buffer are written and not yet read (kernel/bpf/ringbuf.c: the reader's position is a word in its first
/// page, the writers' one in its second).
///
/// # Errors
/// As mmap(2): it is no ring buffer.
pub(super) fn unread(ring: impl AsFd) -> io::Result<u64> {
    let page = rustix::param::page_size();
    let offset = libc::off_t::try_from(page).map_err(io::Error::other)?;
    let (read, written) = (position(&ring, 0)?, position(&ring, offset)?);
    // Writers go on between the two looks; the reader's was first, so that there is never less than nothing.
    Ok(written.wrapping_sub(read) as u64)
}

fn position(ring: impl AsFd, offset: libc::off_t) -> io::Result<usize> {
    let page = rustix::param::page_size();
    let fd = ring.as_fd().as_raw_fd();
    // SAFETY: a new mapping, at a place that the kernel chooses; it touches no other memory.
    let place = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            page,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd,
            offset,
        )
    };
    if place == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a page is mapped there, and so aligned, for as long as this function runs; the kernel changes the word atomically.
    let position = unsafe { &*place.cast::<AtomicUsize>() }.load(Ordering::Acquire);
    // SAFETY: it is the mapping made above, and nothing refers to it any more.
    unsafe { libc::munmap(place, page) };
    Ok(position)
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

/// Gives memory that is allocated no more back to the kernel. The allocator would do so when it is asked for more, which an idle
/// Qbox doesn't: after a load that is 20 MiB.
pub(super) fn give_back_memory() {
    // SAFETY: it takes the allocator's own locks, and touches only memory that nobody has. Where mimalloc is not the
    // allocator, it has none.
    unsafe { libmimalloc_sys::mi_collect(true) }
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
