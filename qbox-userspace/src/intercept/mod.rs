//! Capture: the eBPF programs on the pods' cgroup, the pods and their listeners, the original destination; and explicit
//! mode, a plain listening port without any of it.
//!
//! A pod here is a network namespace in which a process of the enrolled cgroup tree runs. Each has listeners on its own
//! loopback addresses; the programs turn to them what a loaded trigger could match. [`Capture::start`] hands each
//! connection, with the destination it was meant for, to a sink. It must not know what is spoken on a connection: no HTTP,
//! no saga.
//!
//! Errors are [`InterceptError`]s: what is missing, in a sentence. Once it runs, what goes wrong with one pod or one
//! connection is logged and counted, and leaves the others alone.

mod accept;
mod capture;
mod cgroup;
mod chain;
mod check;
mod clean;
mod destination;
mod error;
pub mod explicit;
mod fill;
mod load;
mod object;
mod origin;
mod pins;
mod pods;
mod probe;
mod raised;
mod sys;
mod watch;

pub use capture::{Accepted, Capture, Counters, Settings, Sink};
pub use chain::{Before, Other};
pub use clean::{EXEC_PREFIX, sweep, unpin};
pub use destination::{Destination, Network, Passed};
pub use error::InterceptError;
pub use pods::{Pod, PodStatus};
pub use probe::{Feature, LEAST_KERNEL, Probe, probe};
