//! Keys and values of the maps.

use crate::Address;

/// The bits of a [`Destination`] that are its port.
pub const DESTINATION_PORT_BITS: u32 = 16;
/// The bits of a [`Destination`] that are its address; an IPv4 prefix counts from 96.
pub const DESTINATION_ADDRESS_BITS: u32 = 128;

/// The trie's key: "this port anywhere" is its first 16 bits, "this port at that address" all 144.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Network byte order.
    pub port: u16,
    /// Network byte order.
    pub address: Address,
}

/// Words of PORTS, the programs' first look at a connection: a bit for each port.
pub const PORT_WORDS: u32 = 1024;

/// The word of PORTS with a port's bit, and that bit. The port is in network byte order, as the programs have it.
#[inline(always)]
#[must_use]
pub const fn port_bit(port: u16) -> (u32, u64) {
    ((port >> 6) as u32, 1 << (port & 63))
}

/// What the trie holds for a [`Destination`].
pub mod scope {
    /// Not captured: a narrower entry than one that is. The configuration says so.
    pub const PASSED: u32 = 0;
    /// Captured, but for what stays on the machine or the link ([`crate::Address::is_local`]).
    pub const FAR: u32 = 1;
    /// Captured, and the entry's own addresses are the loopback's: a trigger names them.
    pub const LOOPBACK: u32 = 2;
}

/// A connection as both of its ends know it: it comes from this address and port of that namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The namespace's cookie (`SO_NETNS_COOKIE`).
    pub namespace: u64,
    /// The client's address, network byte order.
    pub address: Address,
    /// The client's port, **host** byte order.
    pub port: u32,
    /// Always 0: makes the padding explicit.
    pub reserved: u32,
}

/// Where a connection was going before it was turned.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Network byte order.
    pub address: Address,
    /// Network byte order, in the low 16 bits: as `bpf_sock_addr::user_port`.
    pub port: u32,
    /// The client's initial sequence number, host byte order; 0 until the connection is established. The acceptor
    /// compares it with the SYN it has kept: an entry of another connection from the same port is told apart.
    pub sequence: u32,
}

/// A namespace that made a socket and is not enrolled, or a cgroup in an enrolled one of which nothing is known.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The namespace's cookie.
    pub namespace: u64,
    /// The id of the process's cgroup where it is that which isn't known; else 0.
    pub cgroup: u64,
    /// The process, as the initial PID namespace numbers it.
    pub process: u32,
    /// Always 0: makes the padding explicit.
    pub reserved: u32,
}

/// The key in ANNOUNCED of a [`Newcomer`]: its cgroup's id, told apart from a cookie by the highest bit, or else the cookie.
/// Both are counted up from 1.
#[inline(always)]
#[must_use]
pub const fn announced(namespace: u64, cgroup: u64) -> u64 {
    if cgroup == 0 { namespace } else { cgroup | 1 << 63 }
}

/// A port that a pod's rule names: a key of POD_PORTS.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// The id of the pod's cgroup, as in PODS.
    pub pod: u64,
    /// Network byte order, in the low 16 bits: as `bpf_sock_addr::user_port`.
    pub port: u32,
    /// Always 0: makes the padding explicit.
    pub reserved: u32,
}

/// What holds for a pod: bits of its entry in PODS. None of them: it is left alone.
pub mod rule {
    /// It is enrolled.
    pub const IN: u32 = 1;
    /// Only connections to its entries in POD_PORTS.
    pub const ONLY: u32 = 2;
    /// None to its entries in POD_PORTS.
    pub const EXCEPT: u32 = 4;
}

/// Which listeners an enrolled namespace has: bits of its entry in NAMESPACES. None of them: its pods are left alone.
pub mod reach {
    /// 127.0.0.1.
    pub const V4: u32 = 1;
    /// ::1; missing where IPv6 is turned off.
    pub const V6: u32 = 2;
    /// What would be turned is refused: Qbox has stopped, and is to be waited for.
    pub const REFUSED: u32 = 4;
}

/// What the programs count; the value is the index in COUNTERS.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Connections that were turned to Qbox.
    Captured = 0,
    /// Connections that matched, of a namespace that was not enrolled yet: passed, directly.
    Unenrolled = 1,
    /// Connections that matched and passed because the kernel gave no memory to remember their destination.
    NoMemory = 2,
    /// Namespaces announced to userspace.
    Announced = 3,
    /// Announcements that found the ring buffer full.
    Unannounced = 4,
    /// Connections that matched and were refused: of a namespace not enrolled yet, or because Qbox has stopped.
    Refused = 5,
    /// Connections that matched and passed because their pod is left alone, or their port by its rule.
    Left = 6,
}

impl Counter {
    /// How many there are.
    pub const COUNT: u32 = 7;
}

const _: () = {
    assert!(size_of::<Address>() == 16 && align_of::<Address>() == 4);
    assert!(size_of::<Destination>() == 18 && align_of::<Destination>() == 1);
    assert!(size_of::<Flow>() == 32 && align_of::<Flow>() == 8);
    assert!(size_of::<Origin>() == 24 && align_of::<Origin>() == 4);
    assert!(size_of::<Newcomer>() == 24 && align_of::<Newcomer>() == 8);
    assert!(size_of::<PodPort>() == 16 && align_of::<PodPort>() == 8);
    assert!(Counter::Left as u32 + 1 == Counter::COUNT);
    assert!(port_bit(u16::MAX).0 + 1 == PORT_WORDS);
};

#[cfg(feature = "user")]
#[allow(unsafe_code)]
mod pod {
    use super::{Destination, Flow, Newcomer, Origin, PodPort};

    // SAFETY: integers only, `repr(C)`, no padding (the sizes asserted above are the sums of the fields'), 'static.
    unsafe impl aya::Pod for Destination {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Origin {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Newcomer {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PodPort {}
}
