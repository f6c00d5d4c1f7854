//! getpeername(2) of an IPv4 socket: a turned one names the peer that its program asked for.

use crate::capture;
use crate::context::{self, write};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

/// Always 1: the call succeeds.
#[cgroup_sock_addr(getpeername4)]
pub(crate) fn getpeername4(context: SockAddrContext) -> i32 {
    if let Some(origin) = capture::asked_for(&context, context::user_v4(&context)) {
        write!(context.sock_addr, user_ip4, origin.address.v4());
        write!(context.sock_addr, user_port, origin.port);
    }
    1
}
