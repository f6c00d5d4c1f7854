//! Tells userspace of a namespace that is not enrolled, or of a cgroup that has no rule.

use crate::maps::{ANNOUNCED, EVENTS, count};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use qbox_common::{Counter, Newcomer, announced};

/// Announces the current process, once for its namespace, or for its cgroup where that is not 0. Userspace takes the key out
/// of ANNOUNCED when it could not enrol it, to hear of it again.
#[inline(always)]
pub(crate) fn announce(namespace: u64, cgroup: u64) {
    let key = announced(namespace, cgroup);
    if ANNOUNCED.get_ptr(key).is_some() {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Newcomer>(0) else {
        count(Counter::Unannounced);
        return;
    };
    entry.write(Newcomer {
        namespace,
        cgroup,
        process: (bpf_get_current_pid_tgid() >> 32) as u32,
        reserved: 0,
    });
    entry.submit(0);
    // If this fails it is announced again: no harm.
    let _ = ANNOUNCED.insert(key, 1, 0);
    count(Counter::Announced);
}
