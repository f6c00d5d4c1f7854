//! Every map, and the constants that the loader fills in.

use aya_ebpf::Global;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use qbox_common::{
    Counter, Destination, EVENTS_BYTES, Flow, MAX_ANNOUNCED, MAX_DESTINATIONS, MAX_FLOWS, MAX_NAMESPACES,
    MAX_POD_PORTS, MAX_PODS, Origin, PORT_WORDS, PodPort,
};

/// For the loader, which asks for it by this name; the programs don't read it. See `qbox_common::names::ABI`.
#[unsafe(no_mangle)]
pub(crate) static QBOX_ABI_4: Global<u32> = Global::new(4);
/// Sockets with this mark are Qbox's own. It is constant over versions: in an upgrade the old programs exempt the new
/// proxy's sockets too.
#[unsafe(no_mangle)]
pub(crate) static QBOX_MARK: Global<u32> = Global::new(0);
/// Processes of this cgroup are Qbox's own; 0 is none.
#[unsafe(no_mangle)]
pub(crate) static QBOX_OWN_CGROUP: Global<u64> = Global::new(0);
/// The listener's port, host byte order.
#[unsafe(no_mangle)]
pub(crate) static QBOX_PORT: Global<u32> = Global::new(0);
/// Not 0: what matches is refused as long as its namespace is not enrolled.
#[unsafe(no_mangle)]
pub(crate) static QBOX_REFUSE_UNKNOWN: Global<u32> = Global::new(0);
/// Not 0: pods are told apart, and a connection is turned only where PODS says so.
#[unsafe(no_mangle)]
pub(crate) static QBOX_BY_POD: Global<u32> = Global::new(0);

/// BPF_F_NO_PREALLOC: an entry takes memory when it is made. For a map that is most often empty.
const NO_PREALLOC: u32 = 1;

/// The ports that DESTINATIONS has, a bit each: what most connections are asked, and all they are. The kernel turns a look-up
/// in an array into a few instructions, where the trie's costs a hundred nanoseconds.
#[map]
pub(crate) static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// What a loaded trigger could match; the value is a [`qbox_common::scope`].
#[map]
pub(crate) static DESTINATIONS: LpmTrie<Destination, u32> = LpmTrie::with_max_entries(MAX_DESTINATIONS, 0);

/// The enrolled namespaces, by cookie; the value has the bits of [`qbox_common::reach`].
#[map]
pub(crate) static NAMESPACES: HashMap<u64, u32> = HashMap::with_max_entries(MAX_NAMESPACES, 0);

/// What holds for a pod, by the id of its cgroup; the value has the bits of [`qbox_common::rule`]. Processes are in
/// cgroups below it.
#[map]
pub(crate) static PODS: HashMap<u64, u32> = HashMap::with_max_entries(MAX_PODS, 0);

/// The ports that these rules name. The value means nothing.
#[map]
pub(crate) static POD_PORTS: HashMap<PodPort, u32> = HashMap::with_max_entries(MAX_POD_PORTS, NO_PREALLOC);

/// Destinations on their way from the client's socket to the acceptor. Least recently used go first: a connection that
/// is never accepted must not hold its entry for ever.
#[map]
pub(crate) static FLOWS: LruHashMap<Flow, Origin> = LruHashMap::with_max_entries(MAX_FLOWS, 0);

/// The destination of a turned client socket, for as long as that socket lives.
#[btf_map]
pub(crate) static ORIGIN: SkStorage<Origin> = SkStorage::new();

/// So that a namespace is announced once, and not with each of its sockets; a cgroup likewise. See [`qbox_common::announced`].
#[map]
pub(crate) static ANNOUNCED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(MAX_ANNOUNCED, 0);

/// Namespaces announced.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Adds one. Per CPU, because bpfel has no atomic addition that returns.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(number) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the kernel's pointer to this CPU's own value; a program is not interrupted by another on its CPU
        // that writes the same counter without the loss of a count being the worst that happens.
        unsafe { *number = (*number).wrapping_add(1) }
    }
}
