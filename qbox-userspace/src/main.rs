//! The `qbox` binary.
fn main() {}
