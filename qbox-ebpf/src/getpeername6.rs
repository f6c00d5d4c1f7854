//! getpeername(2) of an IPv6 socket: a turned one names the peer that its program asked for.

use crate::capture;
use crate::context::{self, write};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use qbox_common::Address;

/// Always 1: the call succeeds.
#[cgroup_sock_addr(getpeername6)]
pub(crate) fn getpeername6(context: SockAddrContext) -> i32 {
    if let Some(origin) = capture::asked_for(&context, context::user_v6(&context)) {
        let Address([a, b, c, d]) = origin.address;
        write!(context.sock_addr, user_ip6[0], a);
        write!(context.sock_addr, user_ip6[1], b);
        write!(context.sock_addr, user_ip6[2], c);
        write!(context.sock_addr, user_ip6[3], d);
        write!(context.sock_addr, user_port, origin.port);
    }
    1
}
