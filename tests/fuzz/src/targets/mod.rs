//! One file a target.

pub(crate) mod http1_requests;
