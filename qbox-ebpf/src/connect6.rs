//! connect(2) of an IPv6 socket, to an IPv6 or a mapped IPv4 address.

use crate::capture;
use crate::context::{self, write};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use qbox_common::Address;

/// Always 1: the connection goes on.
#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(context: SockAddrContext) -> i32 {
    let Some(port) = capture::named_port(&context) else {
        return 1;
    };
    let address = context::user_v6(&context);
    if let Some(port) = capture::turned(&context, address, port) {
        if address.is_v4() {
            // The prefix stays: the socket goes on to speak IPv4.
            write!(context.sock_addr, user_ip6[3], Address::V4_LOOPBACK);
        } else {
            let Address([a, b, c, d]) = Address::V6_LOOPBACK;
            write!(context.sock_addr, user_ip6[0], a);
            write!(context.sock_addr, user_ip6[1], b);
            write!(context.sock_addr, user_ip6[2], c);
            write!(context.sock_addr, user_ip6[3], d);
        }
        write!(context.sock_addr, user_port, port);
    }
    1
}
