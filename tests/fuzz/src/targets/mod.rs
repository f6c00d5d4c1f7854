//! One file a target.

pub(crate) mod expressions;
pub(crate) mod http1_requests;
pub(crate) mod http1_responses;
pub(crate) mod http2;
pub(crate) mod matching;
pub(crate) mod original;
pub(crate) mod saga_file;
