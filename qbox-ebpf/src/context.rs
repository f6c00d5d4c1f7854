//! Fields of the programs' contexts, read one by one.
//!
//! Each is a volatile access of its own: LLVM otherwise merges two of them into one at a computed offset, or into a wider
//! one, and the verifier refuses both ("dereference of modified ctx ptr").

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::programs::SockAddrContext;
use qbox_common::Address;

/// AF_INET.
pub(crate) const AF_INET: u32 = 2;
/// AF_INET6.
pub(crate) const AF_INET6: u32 = 10;
/// IPPROTO_TCP.
pub(crate) const TCP: u32 = 6;

/// Reads one field.
macro_rules! read {
    ($context:expr, $($field:tt)+) => {{
        let context = $context;
        // SAFETY: the kernel passes a valid context, and the verifier checks each offset into it.
        unsafe { core::ptr::read_volatile(&raw const (*context).$($field)+) }
    }};
}
/// Writes one field.
macro_rules! write {
    ($context:expr, $field:ident $([$index:literal])?, $value:expr) => {{
        let (context, value) = ($context, $value);
        // SAFETY: as for reading; the verifier also checks that the field may be written.
        unsafe { core::ptr::write_volatile(&raw mut (*context).$field $([$index])?, value) }
    }};
}
pub(crate) use {read, write};

/// The address of an AF_INET socket's call.
#[inline(always)]
pub(crate) fn user_v4(context: &SockAddrContext) -> Address {
    Address::from_v4(read!(context.sock_addr, user_ip4))
}

/// The address of an AF_INET6 socket's call; it may be a mapped IPv4 one.
#[inline(always)]
pub(crate) fn user_v6(context: &SockAddrContext) -> Address {
    let raw: *mut bpf_sock_addr = context.sock_addr;
    Address([
        read!(raw, user_ip6[0]),
        read!(raw, user_ip6[1]),
        read!(raw, user_ip6[2]),
        read!(raw, user_ip6[3]),
    ])
}

/// The port, network byte order, in the low 16 bits.
#[inline(always)]
pub(crate) fn user_port(context: &SockAddrContext) -> u32 {
    read!(context.sock_addr, user_port)
}

/// The socket that makes the call. Never null in a sock_addr program.
#[inline(always)]
pub(crate) fn socket(context: &SockAddrContext) -> *mut bpf_sock {
    read!(context.sock_addr, __bindgen_anon_1.sk)
}

/// A host's port as `user_port` shows it.
#[inline(always)]
pub(crate) fn to_user_port(port: u32) -> u32 {
    u32::from((port as u16).to_be())
}
