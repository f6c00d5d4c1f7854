//! connect(2) of an IPv4 socket.

use crate::capture;
use crate::context::{self, write};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use qbox_common::Address;

/// Always 1: the connection goes on.
#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(context: SockAddrContext) -> i32 {
    let Some(port) = capture::named_port(&context) else {
        return 1;
    };
    if let Some(port) = capture::turned(&context, context::user_v4(&context), port) {
        write!(context.sock_addr, user_ip4, Address::V4_LOOPBACK);
        write!(context.sock_addr, user_port, port);
    }
    1
}
