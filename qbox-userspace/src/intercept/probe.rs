//! What capture needs of the kernel and of this process, one by one, and whether it is there: for `qbox status --probe`, and
//! so that a start that fails can name what is missing. Nothing is attached. What can't be asked counts as missing, with
//! the reason; there are no other errors.

use super::{cgroup, load, object, sys};
use crate::causes::chain;
use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

/// The oldest kernel that has all of it: the newest of those that brought a [`Feature`].
pub const LEAST_KERNEL: &str = "5.15";

/// One thing that capture needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name, as the kernel's documentation has it.
    pub name: &'static str,
    /// The Linux version that brought it, or who can give it.
    pub from: &'static str,
    /// What Qbox does with it.
    pub purpose: &'static str,
    /// `None` if it is there; else why it is not.
    pub missing: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The running kernel's version, as uname(2) has it.
    pub kernel: String,
    /// All that is needed.
    pub features: Vec<Feature>,
}

impl Probe {
    /// Whether pods can be captured here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// What is not there.
    pub fn missing(&self) -> impl Iterator<Item = &Feature> {
        self.features.iter().filter(|feature| feature.missing.is_some())
    }
}

/// Asks for everything.
#[must_use]
pub fn probe() -> Probe {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Probe {
        kernel: kernel.trim().to_owned(),
        features: features(),
    }
}

fn features() -> Vec<Feature> {
    let mut features = vec![
        feature(
            "the eBPF object",
            "cargo xtask build",
            "the programs that turn connections",
            if object::bytes().is_empty() {
                Some("this qbox was built without it".to_owned())
            } else {
                None
            },
        ),
        feature(
            "CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SYS_PTRACE",
            "root",
            "loading programs, entering pods' namespaces, finding their processes",
            match load::missing_capabilities() {
                missing if missing.is_empty() => None,
                missing => Some(format!("this process lacks {missing}")),
            },
        ),
        feature(
            "BTF",
            "CONFIG_DEBUG_INFO_BTF",
            "the programs fit this kernel's types",
            if Path::new(load::BTF).exists() {
                None
            } else {
                Some(format!("{} is missing", load::BTF))
            },
        ),
        feature(
            "cgroup v2",
            "4.5, mounted",
            "pods are told from the rest of the machine",
            if cgroup::mount().is_some() {
                None
            } else {
                Some("it is not mounted".to_owned())
            },
        ),
    ];
    features.extend(programs());
    features.extend(maps());
    features.extend(helpers());
    features.push(feature(
        "SO_NETNS_COOKIE",
        "5.14",
        "a pod's namespace has the same name for both sides",
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|socket| sys::netns_cookie(&socket))
            .err()
            .map(|error| error.to_string()),
    ));
    features
}

fn programs() -> impl Iterator<Item = Feature> {
    let address = ProgramType::CgroupSockAddr;
    [
        (
            "program cgroup_sock_addr",
            "4.17; getpeername 5.8",
            "connect4, connect6, getpeername4, getpeername6",
            address,
        ),
        (
            "program cgroup_sock",
            "4.10",
            "sock_create: a new pod is announced",
            ProgramType::CgroupSock,
        ),
        (
            "program sock_ops",
            "4.13",
            "an established connection's destination is filed",
            ProgramType::SockOps,
        ),
    ]
    .into_iter()
    .map(|(name, from, purpose, kind)| {
        let supported = is_program_supported(kind).map_err(|error| chain(&error));
        feature(name, from, purpose, unless(supported))
    })
}

fn maps() -> impl Iterator<Item = Feature> {
    [
        (
            "map hash",
            "3.19; taking out 5.14",
            "captured namespaces",
            MapType::Hash,
        ),
        (
            "map lru_hash",
            "4.10",
            "connections on their way",
            MapType::LruHash,
        ),
        (
            "map lpm_trie",
            "4.11",
            "what triggers could match",
            MapType::LpmTrie,
        ),
        ("map percpu_array", "4.6", "counters", MapType::PerCpuArray),
        (
            "map sk_storage",
            "5.2",
            "a socket's own destination",
            MapType::SkStorage,
        ),
        ("map ringbuf", "5.8", "announcements", MapType::RingBuf),
    ]
    .into_iter()
    .map(|(name, from, purpose, kind)| {
        let supported = is_map_supported(kind).map_err(|error| chain(&error));
        feature(name, from, purpose, unless(supported))
    })
}

fn helpers() -> impl Iterator<Item = Feature> {
    let address = ProgramType::CgroupSockAddr;
    [
        (
            "helper get_netns_cookie",
            "5.7",
            "connect knows its namespace",
            address,
            BpfHelper::BPF_FUNC_get_netns_cookie,
        ),
        (
            "helper sk_storage_get",
            "5.8",
            "connect keeps a destination with its socket",
            address,
            BpfHelper::BPF_FUNC_sk_storage_get,
        ),
        (
            "helper sk_lookup_tcp",
            "4.20",
            "a pod's own loopback is asked for a listener",
            address,
            BpfHelper::BPF_FUNC_sk_lookup_tcp,
        ),
        (
            "helper get_netns_cookie in sock_ops",
            "5.15",
            "an established connection knows its namespace",
            ProgramType::SockOps,
            BpfHelper::BPF_FUNC_get_netns_cookie,
        ),
    ]
    .into_iter()
    .map(|(name, from, purpose, program, helper)| {
        let supported = is_helper_supported(program, helper).map_err(|error| chain(&error));
        feature(name, from, purpose, unless(supported))
    })
}

fn feature(
    name: &'static str,
    from: &'static str,
    purpose: &'static str,
    missing: Option<String>,
) -> Feature {
    Feature {
        name,
        from,
        purpose,
        missing,
    }
}

/// Why it is missing, unless it is there.
fn unless(supported: Result<bool, String>) -> Option<String> {
    match supported {
        Ok(true) => None,
        Ok(false) => Some("this kernel does not have it".to_owned()),
        Err(error) => Some(format!("it can't be asked for: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_has_a_reason() {
        let Probe { features, .. } = probe();
        assert!(features.len() > 12);
        for feature in &features {
            assert!(
                feature.missing.as_ref().is_none_or(|why| !why.is_empty()),
                "{feature:?}"
            );
        }
        assert_eq!(unless(Ok(true)), None);
        assert!(unless(Ok(false)).is_some() && unless(Err("EPERM".to_owned())).is_some());
    }

    #[test]
    fn the_least_kernel_is_the_newest_of_what_is_needed() {
        let version = |text: &str| -> Option<(u32, u32)> {
            let (major, minor) = text.rsplit(' ').next()?.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        let newest = features()
            .iter()
            .flat_map(|one| one.from.split([';', ',']))
            .filter_map(version)
            .max();
        assert_eq!(newest, version(LEAST_KERNEL));
    }
}
