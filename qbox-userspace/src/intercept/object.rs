//! The eBPF object that build.rs put into this binary.

/// The object, aligned as the ELF parser wants it; empty if Qbox was built without.
pub(super) fn bytes() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/qbox-ebpf.o"))
}
