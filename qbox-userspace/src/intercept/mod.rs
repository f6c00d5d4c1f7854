//! Capture: the eBPF programs on the pods' cgroup, the pods and their listeners, the original destination; and explicit
//! mode, a plain listening port without any of it.
//!
//! A pod here is a cgroup, with all below it, whose processes are in a network namespace. A namespace with a pod that is in has
//! listeners on its own loopback addresses; the programs turn to them what a loaded trigger could match.
//! [`Capture::start`] hands each connection, with the destination it was meant for, to a sink. Which pods are in a [`Policy`]
//! says. It must not know what is spoken on a connection (no HTTP, no saga), nor what a policy goes by.
//!
//! Errors are [`InterceptError`]s: what is missing, in a sentence. Once it runs, what goes wrong with one pod or one
//! connection is logged and counted, and leaves the others alone.

mod accept;
mod births;
mod capture;
mod cgroup;
mod chain;
mod check;
mod clean;
mod destination;
mod entry;
mod error;
pub mod explicit;
mod fill;
mod listen;
mod load;
mod look;
mod object;
mod origin;
mod pattern;
mod pins;
mod pods;
mod policy;
mod probe;
mod raised;
mod rules;
mod sys;
mod watch;

pub use capture::{Accepted, Capture, Counters, Settings, Sink};
pub use chain::{Before, Other};
pub use clean::{EXEC_PREFIX, sweep, unpin};
pub use destination::{Destination, Network, Passed};
pub use entry::{Pod, PodStatus, Standing};
pub use error::InterceptError;
pub use policy::{Policy, Ports, Rule, Verdict};
pub use probe::{Feature, LEAST_KERNEL, Probe, probe};
