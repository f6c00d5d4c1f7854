//! Whether a connection is turned, and what a turned socket says of its peer. Shared by IPv4 and IPv6.

use crate::context::{self, TCP, read};
use crate::maps::{
    DESTINATIONS, NAMESPACES, ORIGIN, POD_PORTS, PODS, PORTS, QBOX_BY_POD, QBOX_MARK, QBOX_OWN_CGROUP,
    QBOX_PORT, QBOX_REFUSE_UNKNOWN, count,
};
use crate::newcomer;
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_sk_lookup_tcp,
    bpf_sk_release,
};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::{debug, warn};
use qbox_common::{
    Address, Counter, DESTINATION_ADDRESS_BITS, DESTINATION_PORT_BITS, Destination, Origin, PodPort,
    port_bit, reach, rule, scope,
};

/// `BPF_F_CURRENT_NETNS` of bpf_sk_lookup_tcp: -1.
const OWN_NAMESPACE: u64 = u64::MAX;

/// The port of a connect(2), network byte order, if some trigger names it and it is TCP's. All that is asked of most connections,
/// and so the first question of all.
#[inline(always)]
pub(crate) fn named_port(context: &SockAddrContext) -> Option<u32> {
    let port = context::user_port(context);
    let (word, bit) = port_bit(port as u16);
    if PORTS.get(word)? & bit == 0 || read!(context.sock_addr, protocol) != TCP {
        return None;
    }
    Some(port)
}

/// Where a connect(2) to a [`named_port`] goes: `None` where its program wants it to; else to this port of its namespace's
/// loopback, network byte order, and its destination is kept with the socket. The caller rewrites it.
///
/// The order of the questions is that of their cost to a connection that isn't captured.
#[inline(always)]
pub(crate) fn turned(context: &SockAddrContext, address: Address, port: u32) -> Option<u32> {
    let key = Key::new(
        DESTINATION_PORT_BITS + DESTINATION_ADDRESS_BITS,
        Destination {
            port: port as u16,
            address,
        },
    );
    let Some(scope) = DESTINATIONS.get(&key) else {
        return None;
    };
    if *scope == scope::PASSED || is_exempt(context) {
        return None;
    }
    // Where nobody listens the kernel refuses at once, and a client goes on to the next address of `localhost`.
    if address.is_local() && (*scope != scope::LOOPBACK || !has_listener(context, address, port)) {
        return None;
    }
    // SAFETY: the helper takes the program's own context.
    let namespace = unsafe { bpf_get_netns_cookie(context.as_ptr()) };
    // SAFETY: the value is read at once; userspace alone writes it, whole words at a time.
    let Some(listeners) = (unsafe { NAMESPACES.get(namespace) }).copied() else {
        return unknown(namespace, 0);
    };
    if listeners == 0 {
        count(Counter::Left);
        return None;
    }
    let needed = if address.is_v4() { reach::V4 } else { reach::V6 };
    if listeners & needed == 0 {
        return None;
    }
    if QBOX_BY_POD.load() != 0 {
        let Some((pod, held)) = pod() else {
            // SAFETY: the helper takes nothing and reads the current task.
            return unknown(namespace, unsafe { bpf_get_current_cgroup_id() });
        };
        if !takes(pod, held, port) {
            count(Counter::Left);
            return None;
        }
    }
    if listeners & reach::REFUSED != 0 {
        return refused();
    }
    let mut origin = Origin {
        address,
        port,
        sequence: 0,
    };
    // SAFETY: the verifier knows the context's socket; the value lives on this stack for the call.
    let kept = unsafe { ORIGIN.get_or_insert_ptr_mut(context, Some(&mut origin)) };
    if kept.is_null() {
        count(Counter::NoMemory);
        warn!(
            context,
            "no memory to keep a destination: a connection passes uncaptured"
        );
        return None;
    }
    // A socket that connects a second time has a value already, which the call above leaves as it is.
    // SAFETY: not null, and the kernel's for as long as the socket lives. One thread connects a socket at a time.
    unsafe { *kept = origin };
    count(Counter::Captured);
    debug!(
        context,
        "captured process {} to {:i}:{}",
        context.tgid(),
        address.octets(),
        u16::from_be(port as u16)
    );
    Some(context::to_user_port(QBOX_PORT.load()))
}

/// Of one that could be a pod's which is to be captured: userspace will say, and until then the configuration.
#[inline(always)]
fn unknown(namespace: u64, cgroup: u64) -> Option<u32> {
    count(Counter::Unenrolled);
    newcomer::announce(namespace, cgroup);
    if QBOX_REFUSE_UNKNOWN.load() == 0 {
        None
    } else {
        refused()
    }
}

/// How deep below the root a pod's cgroup may be. On a node in a container it is eight deep.
const DEEPEST: i32 = 16;

/// The current process's pod, and what holds for it: of the cgroups above the process with a rule the lowest.
#[inline(always)]
fn pod() -> Option<(u64, u32)> {
    let mut found = None;
    let mut level = 0;
    while level < DEEPEST {
        // SAFETY: the helper reads the current task, and answers 0 below its cgroup.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            break;
        }
        // SAFETY: the value is read at once; userspace alone writes it, whole words at a time.
        if let Some(held) = unsafe { PODS.get(id) } {
            found = Some((id, *held));
        }
        level += 1;
    }
    found
}

/// Whether a pod's rule takes this port.
#[inline(always)]
fn takes(pod: u64, held: u32, port: u32) -> bool {
    if held & rule::IN == 0 {
        return false;
    }
    if held & (rule::ONLY | rule::EXCEPT) == 0 {
        return true;
    }
    let key = PodPort {
        pod,
        port: port & 0xffff,
        reserved: 0,
    };
    POD_PORTS.get_ptr(key).is_some() == (held & rule::ONLY != 0)
}

/// To port 0, where nobody can listen: the client is told at once that the connection is refused, and not, as by a
/// program that says no, that it lacks leave.
#[inline(always)]
fn refused() -> Option<u32> {
    count(Counter::Refused);
    Some(0)
}

/// Whether a program of this namespace listens there.
#[inline(always)]
fn has_listener(context: &SockAddrContext, address: Address, port: u32) -> bool {
    let port = port as u16;
    // SAFETY: all zeros are a tuple.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if address.is_v4() {
        tuple.__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: Address::V4_LOOPBACK,
            daddr: address.v4(),
            sport: 0,
            dport: port,
        };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>()
    } else {
        let Address(own) = Address::V6_LOOPBACK;
        tuple.__bindgen_anon_1.ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: own,
            daddr: address.0,
            sport: 0,
            dport: port,
        };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>()
    };
    // SAFETY: the tuple is initialised for its whole size; the namespace is the socket's own.
    let found = unsafe { bpf_sk_lookup_tcp(context.as_ptr(), &raw mut tuple, size as u32, OWN_NAMESPACE, 0) };
    if found.is_null() {
        return false;
    }
    // SAFETY: not null, and ours to give back, once.
    unsafe { bpf_sk_release(found.cast()) };
    true
}

/// Qbox's own sockets, and those tied to an interface, from which a listener on the loopback can't be reached.
#[inline(always)]
fn is_exempt(context: &SockAddrContext) -> bool {
    let socket = context::socket(context);
    if read!(socket, mark) == QBOX_MARK.load() {
        return true;
    }
    let own = QBOX_OWN_CGROUP.load();
    // SAFETY: the helper takes nothing and reads the current task.
    if own != 0 && unsafe { bpf_get_current_cgroup_id() } == own {
        return true;
    }
    read!(socket, bound_dev_if) != 0
}

/// The destination that a turned socket asked for; `None` for every other socket. `address` and the context's port are
/// the peer that the kernel is about to name: only for our listener is there anything to mend.
#[inline(always)]
pub(crate) fn asked_for(context: &SockAddrContext, address: Address) -> Option<Origin> {
    if context::user_port(context) != context::to_user_port(QBOX_PORT.load()) || !address.is_loopback() {
        return None;
    }
    // SAFETY: the verifier knows the context's socket.
    let kept = unsafe { ORIGIN.get_ptr_mut(context) };
    if kept.is_null() {
        return None;
    }
    // SAFETY: not null, and the kernel's for as long as the socket lives.
    Some(unsafe { *kept })
}
