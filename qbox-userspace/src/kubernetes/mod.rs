//! Kubernetes: which of the node's pods are enrolled, as the API tells, and which cgroup is whose.
//!
//! [`Api::start`] lists and watches this node's pods (and the cluster's namespaces, where their labels matter) for as long as
//! it lives. What it was told last holds until it is told otherwise: with the API away nothing changes. [`Pods`] is the
//! [`Policy`](crate::intercept::Policy) that interception asks; a pod is found by the UID in its cgroup's path. It must not know
//! how pods are captured, nor what for.
//!
//! Errors: [`StartError`], all of them of the configuration. Later ones are logged, counted, and told by [`Api::health`].

mod api;
mod cgroup;
mod client;
mod follow;
mod link;
mod object;
mod policy;
mod roster;
mod rule;

pub use api::{Api, Health};
pub use client::{Place, StartError};
pub use link::Counts;
pub use policy::Pods;
