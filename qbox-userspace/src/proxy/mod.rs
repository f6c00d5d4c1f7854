//! The transparent proxy: accept, detect, HTTP/1 relayed byte for byte, anything else copied through. Knows no saga.

mod handler;

pub use handler::{Handled, Handler, Head, Reply, Taken, Verdict};
