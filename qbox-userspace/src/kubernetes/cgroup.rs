//! Whose a cgroup is: kubelet puts a pod's UID into the path of its cgroup. Knows paths alone.
//!
//! | kubelet's driver | a pod's cgroup, below kubelet's own root |
//! |---|---|
//! | cgroupfs | `kubepods/burstable/pod<UID>`, of guaranteed pods `kubepods/pod<UID>` |
//! | systemd | `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID with _ for ->.slice` |
//!
//! Below it each runtime has containers as it likes (`cri-containerd-….scope`, `crio-….scope`, `docker-….scope`, a bare id). Where
//! kubelet's driver is systemd and the runtime's is not, a container's cgroup has the pod's slice in its own name
//! (`kubepods-pod<UID>.slice:cri-containerd:….`), wherever that is.

use std::path::{Component, Path};

/// A pod's UID, as the API has it, and how many components of the path lead to its cgroup.
pub(super) fn pod_of(path: &Path) -> Option<(String, usize)> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_str()),
        _ => None,
    });
    names
        .enumerate()
        .find_map(|(at, name)| Some((uid(name?)?, at + 1)))
}

fn uid(name: &str) -> Option<String> {
    let slice = name
        .strip_suffix(".slice")
        .or_else(|| name.split_once(".slice:").map(|(slice, _)| slice));
    let uid = match slice {
        Some(slice) => slice.rsplit_once("-pod").map(|(_, uid)| uid)?.replace('_', "-"),
        None => name.strip_prefix("pod")?.to_owned(),
    };
    // A UUID; or, of a pod that kubelet has from a file, a hash of 32 digits.
    let is_uid = matches!(uid.len(), 32 | 36)
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte) || byte == b'-');
    is_uid.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_found_by_its_uid_in_every_layout() {
        let uid = "0d1c2b3a-0000-1111-2222-333344445555";
        let slice = uid.replace('-', "_");
        let id = "5e".repeat(32);
        for (path, depth) in [
            // cgroupfs, of each class.
            (format!("kubepods/pod{uid}"), 2),
            (format!("kubepods/burstable/pod{uid}"), 3),
            (format!("kubepods/besteffort/pod{uid}/{id}"), 3),
            // systemd with containerd, CRI-O, cri-dockerd; of each class.
            (format!("kubepods.slice/kubepods-pod{slice}.slice"), 2),
            (
                format!(
                    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{id}.scope"
                ),
                3,
            ),
            (
                format!(
                    "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice/crio-{id}.scope"
                ),
                3,
            ),
            (
                format!(
                    "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice/docker-{id}.scope"
                ),
                3,
            ),
            // CRI-O's with a container's own cgroups below, and its monitor's.
            (
                format!("kubepods.slice/kubepods-pod{slice}.slice/crio-{id}.scope/container/app.slice"),
                2,
            ),
            (
                format!("kubepods.slice/kubepods-pod{slice}.slice/crio-conmon-{id}.scope"),
                2,
            ),
            // kubelet with a root of its own: kind's nodes.
            (
                format!(
                    "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
                     kubelet-kubepods-besteffort-pod{slice}.slice/cri-containerd-{id}.scope"
                ),
                4,
            ),
            (
                format!("docker/{id}/kubelet/kubepods/besteffort/pod{uid}/{id}"),
                6,
            ),
            // Two drivers.
            (
                format!(
                    "system.slice/containerd.service/kubepods-burstable-pod{slice}.slice:cri-containerd:{id}"
                ),
                3,
            ),
            // A leading slash, as /proc/PID/cgroup has it.
            (format!("/kubepods/pod{uid}"), 2),
        ] {
            assert_eq!(pod_of(Path::new(&path)), Some((uid.to_owned(), depth)), "{path}");
        }
    }

    #[test]
    fn a_pod_of_a_file_is_found_by_its_hash() {
        let hash = "0123456789abcdef0123456789abcdef";
        for path in [
            format!("kubepods/burstable/pod{hash}"),
            format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice/x.scope"),
        ] {
            assert_eq!(pod_of(Path::new(&path)), Some((hash.to_owned(), 3)), "{path}");
        }
    }

    #[test]
    fn what_is_no_pod() {
        for path in [
            "",
            "/",
            "qbox/web",
            "qbox/podium",
            "kubepods/burstable",
            "kubepods.slice/kubepods-burstable.slice",
            "system.slice/podman.service",
            "machine.slice/libpod-0123.scope",
            "kubepods/pod0d1c2b3a-0000-1111-2222-33334444555Z",
            "kubepods/pod0d1c2b3a",
            "user.slice/a-pod1.slice",
        ] {
            assert_eq!(pod_of(Path::new(path)), None, "{path}");
        }
    }
}
