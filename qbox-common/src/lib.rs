//! What the kernel's side and userspace's side of Qbox agree on: keys and values of the maps, names, limits.
//!
//! Every type here is plain bytes without padding, so that both sides may copy it whole, and says the byte order of each
//! field. It knows neither side: no map, no helper, no socket. Nothing here can fail.
#![no_std]

mod address;
mod layout;

pub use address::Address;
pub use layout::{
    Counter, DESTINATION_ADDRESS_BITS, DESTINATION_PORT_BITS, Destination, Flow, Newcomer, Origin,
    PORT_WORDS, PodPort, announced, port_bit, reach, rule, scope,
};

/// Network namespaces that can be enrolled at once: ten times what a node usually runs as pods.
pub const MAX_NAMESPACES: u32 = 4096;
/// Pods of which a rule can be kept at once.
pub const MAX_PODS: u32 = 4096;
/// Ports that their rules can name, all together.
pub const MAX_POD_PORTS: u32 = 16_384;
/// Destinations (a port, with or without an address) that can be captured.
pub const MAX_DESTINATIONS: u32 = 16_384;
/// Connections that are established and not yet accepted. When there are more, the oldest are forgotten (and closed).
pub const MAX_FLOWS: u32 = 16_384;
/// Namespaces and cgroups that were announced and are not enrolled, so that each is announced once.
pub const MAX_ANNOUNCED: u32 = 1024;
/// Bytes of the ring buffer in which they are announced: 2,000 of them.
pub const EVENTS_BYTES: u32 = 64 * 1024;

/// Names by which the loader finds programs, maps and constants. A name in the kernel is at most 15 bytes.
pub mod names {
    /// A constant whose name alone matters: it ends in the version of these layouts, so that a loader refuses an object
    /// of another version. Raise it with every change of a layout.
    pub const ABI: &str = "QBOX_ABI_4";
    /// The constant: sockets with this `SO_MARK` are Qbox's own.
    pub const MARK: &str = "QBOX_MARK";
    /// The constant: processes of the cgroup with this id are Qbox's own; 0 is none.
    pub const OWN_CGROUP: &str = "QBOX_OWN_CGROUP";
    /// The constant: the listener's port, host byte order.
    pub const PORT: &str = "QBOX_PORT";
    /// The constant: not 0, connections that match are refused as long as their namespace is not enrolled.
    pub const REFUSE_UNKNOWN: &str = "QBOX_REFUSE_UNKNOWN";
    /// The constant: not 0, a connection is turned only where its pod's rule says so.
    pub const BY_POD: &str = "QBOX_BY_POD";

    /// The bits of the ports of [`crate::Destination`]s: see [`crate::port_bit`].
    pub const PORTS: &str = "PORTS";
    /// The trie of [`crate::Destination`]s.
    pub const DESTINATIONS: &str = "DESTINATIONS";
    /// From a namespace's cookie to the [`crate::reach`] of its listeners. It is the switch: empty, nothing happens.
    pub const NAMESPACES: &str = "NAMESPACES";
    /// From the id of a pod's cgroup to its [`crate::rule`].
    pub const PODS: &str = "PODS";
    /// The [`crate::PodPort`]s that rules name.
    pub const POD_PORTS: &str = "POD_PORTS";
    /// From a [`crate::Flow`] to its [`crate::Origin`].
    pub const FLOWS: &str = "FLOWS";
    /// Keys ([`crate::announced`]) of what was announced.
    pub const ANNOUNCED: &str = "ANNOUNCED";
    /// The ring buffer of [`crate::Newcomer`]s.
    pub const EVENTS: &str = "EVENTS";
    /// One number a CPU for each [`crate::Counter`].
    pub const COUNTERS: &str = "COUNTERS";
}
