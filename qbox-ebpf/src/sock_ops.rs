//! A turned connection is established: hand its destination over to the acceptor.
//!
//! It happens on the client's side, whose socket is of an enrolled cgroup by definition; the acceptor's socket is of
//! Qbox's, where no program is attached. The kernel calls this before it sends the last part of the handshake, thus
//! before the acceptor can see the connection; and never for one that was refused, which would leave its entry behind.

use crate::context::{AF_INET6, read};
use crate::maps::{FLOWS, ORIGIN, QBOX_PORT};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use aya_log_ebpf::warn;
use qbox_common::{Address, Flow, Origin};

/// Always 1; for this operation the kernel does not look.
#[sock_ops]
pub(crate) fn sock_ops(context: SockOpsContext) -> u32 {
    if read!(context.ops, op) == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
        && u32::from_be(read!(context.ops, remote_port)) == QBOX_PORT.load()
    {
        established(&context);
    }
    1
}

#[inline(always)]
fn established(context: &SockOpsContext) {
    let raw = context.ops;
    let socket = read!(raw, __bindgen_anon_2.sk);
    if socket.is_null() {
        return;
    }
    let storage = core::ptr::from_ref(&ORIGIN).cast_mut().cast();
    // SAFETY: a storage map and a socket that is not null; no value is given, so none is made.
    let kept: *const Origin =
        unsafe { bpf_sk_storage_get(storage, socket.cast(), core::ptr::null_mut(), 0) }.cast();
    if kept.is_null() {
        // Somebody dialled the port; the acceptor will find no destination, and close.
        return;
    }
    // All fields first, then the choice between them: see `context`.
    let v4 = read!(raw, local_ip4);
    let v6 = Address([
        read!(raw, local_ip6[0]),
        read!(raw, local_ip6[1]),
        read!(raw, local_ip6[2]),
        read!(raw, local_ip6[3]),
    ]);
    let flow = Flow {
        // SAFETY: the helper takes the program's own context.
        namespace: unsafe { bpf_get_netns_cookie(context.as_ptr()) },
        // A mapped socket is AF_INET6, and its local address is mapped too.
        address: if read!(raw, family) == AF_INET6 {
            v6
        } else {
            Address::from_v4(v4)
        },
        port: read!(raw, local_port),
        reserved: 0,
    };
    // SAFETY: not null, and the kernel's for as long as the socket lives.
    let mut origin = unsafe { *kept };
    // The SYN is acknowledged, and took one number of the sequence.
    origin.sequence = read!(raw, snd_una).wrapping_sub(1);
    if FLOWS.insert(flow, origin, 0).is_err() {
        warn!(
            context,
            "no memory to pass a destination on: a connection will be closed"
        );
    }
}
