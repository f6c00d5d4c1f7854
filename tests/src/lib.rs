//! Pods, scripted participants and drivers for the end-to-end suites, the demo that `cargo xtask run` shows, and the trial
//! that `cargo xtask chaos` holds, and the topologies that `cargo xtask topology` runs.
//!
//! A suite makes a [`Node`]: a network namespace with a bridge, and a cgroup. In it are [`Pod`]s, each with a network
//! namespace, a mount namespace and a cgroup of its own; [`Service`]s that listen inside pods and keep a ledger; and one
//! [`Qbox`], the release binary. All of it goes when its owner is dropped, and the namespaces even when the owner is
//! killed. The machine's own network, firewall rules and files are never touched.
//!
//! Two variables of the environment are for whoever looks for a fault: `QBOX_BIN` is the binary to test, and
//! `QBOX_TEST_LOG` (a level or filter, as `[log]` takes it) has every Qbox's log shown.
//!
//! This crate knows the binary, its files and its admin API, and nothing of its inside. Errors are [`anyhow`]'s, with
//! what was tried.

mod admin;
mod authority;
pub mod bench;
mod bpf;
mod bpffs;
mod cgroup;
pub mod chaos;
mod cluster;
mod collector;
pub mod demo;
mod dialler;
mod explicit;
mod leftovers;
mod netns;
mod node;
pub mod passthrough;
mod pause;
mod pod;
mod poll;
pub mod process;
mod qbox;
mod script;
mod service;
mod stop;
pub mod topology;
mod world;

pub use admin::{Admin, Answer};
pub use authority::{Authority, Shown};
pub use bpf::{bpftool, detach, map_of};
pub use bpffs::ensure_bpffs;
pub use cluster::{ApiPod, Cluster, Cut};
pub use collector::{Collector, attribute};
pub use dialler::Dialler;
pub use explicit::ExplicitWorld;
pub use leftovers::sweep;
pub use netns::Namespace;
pub use node::{Node, require_root};
pub use pod::{Finished, Pod};
pub use poll::{DEADLINE, wait_for};
pub use qbox::{Qbox, Settings, binary, workspace};
pub use script::Script;
pub use service::{Act, Asked, Service};
pub use world::{BOOK_TRIP, PORT, SERVICES, World, book_trip, book_trip_in_memory};
