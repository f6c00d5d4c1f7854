//! Connections to services: from the node or from a pod's namespace, marked so that they are never captured; the HTTP/1.1
//! client for the requests that are Qbox's own (over HTTP/2 a trigger is forwarded that came so); TLS, and the credentials
//! that services are shown.
//!
//! Knows no saga. Its one error type is [`End`]: every way in which a call can end is a value that the caller must
//! tell apart, above all "not a byte left" ([`End::NotSent`], [`End::Held`]) from "nobody knows" ([`End::TimedOut`], [`End::Broken`]).
//!
//! The client is our own, on httparse, and not hyper's: hyper's keeps neither the order nor the case of header names,
//! which a forwarded trigger and a reply that is passed on owe to both ends, and it can't say whether a byte was written.

mod body;
mod circuit;
mod client;
mod dial;
mod exchange;
mod gate;
mod http2;
mod linger;
mod pool;
mod resolve;
mod services;
mod slices;
mod target;
mod tls;
#[cfg(test)]
mod tls_tests;
mod token;
mod wire;

pub use circuit::Breaker;
pub use client::{Answer, End, Outgoing, Settings, Upstream};
pub use dial::{MARK, Via, dial};
pub use gate::{OpenCircuit, Stats};
pub use linger::Late;
pub use resolve::{Hosts, resolve};
pub use services::{ServiceError, Services};
pub(crate) use slices::Slices;
pub(crate) use token::is_token;
