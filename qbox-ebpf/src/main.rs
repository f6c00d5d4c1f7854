//! The eBPF programs: they turn the connections of enrolled pods to the listener in the pod's own network namespace.
//!
//! One file a hook; what two hooks share is in `capture` and `context`. They know nothing of HTTP or sagas. What
//! isn't captured, for whatever cause, goes its own way, unless the configuration asks for its refusal.
//!
//! On the host this is an empty program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// The kernel's verifier is what makes these programs safe; each block still says why it is sound.
#![cfg_attr(target_arch = "bpf", allow(unsafe_code))]

#[cfg(target_arch = "bpf")]
mod capture;
#[cfg(target_arch = "bpf")]
mod connect4;
#[cfg(target_arch = "bpf")]
mod connect6;
#[cfg(target_arch = "bpf")]
mod context;
#[cfg(target_arch = "bpf")]
mod getpeername4;
#[cfg(target_arch = "bpf")]
mod getpeername6;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod newcomer;
#[cfg(target_arch = "bpf")]
mod sock_create;
#[cfg(target_arch = "bpf")]
mod sock_ops;

/// Never reached: the verifier refuses a program that could.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The crate's own. None of the helpers called here is kept for programs under the GPL.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
