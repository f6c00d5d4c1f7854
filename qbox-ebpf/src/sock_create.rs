//! socket(2): the earliest word of a new pod. A client that looks up a name makes a UDP socket first, which gives Qbox the
//! time to listen before the connect that matters.

use crate::context::{AF_INET, AF_INET6, read};
use crate::maps::{NAMESPACES, QBOX_OWN_CGROUP};
use crate::newcomer;
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_netns_cookie};
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

/// Always 1: the socket is made.
#[cgroup_sock(sock_create)]
pub(crate) fn sock_create(context: SockContext) -> i32 {
    let family = read!(context.sock, family);
    if family != AF_INET && family != AF_INET6 {
        return 1;
    }
    // SAFETY: the helper takes the program's own context.
    let namespace = unsafe { bpf_get_netns_cookie(context.as_ptr()) };
    if NAMESPACES.get_ptr(namespace).is_some() {
        return 1;
    }
    // Qbox itself makes sockets in the namespaces that it is about to enrol.
    let own = QBOX_OWN_CGROUP.load();
    // SAFETY: the helper takes nothing and reads the current task.
    if own == 0 || unsafe { bpf_get_current_cgroup_id() } != own {
        newcomer::announce(namespace, 0);
    }
    1
}
