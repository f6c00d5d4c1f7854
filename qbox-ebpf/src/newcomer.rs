//! Tells userspace of a namespace that is not enrolled.

use crate::maps::{ANNOUNCED, EVENTS, count};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use qbox_common::{Counter, Newcomer};

/// Announces the current process's namespace, once. Userspace takes the cookie out of ANNOUNCED when it could not enrol
/// it, to hear of it again.
#[inline(always)]
pub(crate) fn announce(namespace: u64) {
    if ANNOUNCED.get_ptr(namespace).is_some() {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Newcomer>(0) else {
        count(Counter::Unannounced);
        return;
    };
    entry.write(Newcomer {
        namespace,
        process: (bpf_get_current_pid_tgid() >> 32) as u32,
        reserved: 0,
    });
    entry.submit(0);
    // If this fails the namespace is announced again: no harm.
    let _ = ANNOUNCED.insert(namespace, 1, 0);
    count(Counter::Announced);
}
