//! Puts the eBPF object where `intercept::object` embeds it from: `$OUT_DIR/qbox-ebpf.o`, empty when there is none.
//!
//! It builds nothing and installs nothing: `cargo xtask build` does, and says where the object is in QBOX_EBPF_OBJECT.
//! Without that variable the object of an earlier xtask is taken, so that plain `cargo build` works after it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    for variable in ["QBOX_EBPF_OBJECT", "CARGO_TARGET_DIR"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let object = match env::var_os("QBOX_EBPF_OBJECT") {
        Some(path) => Some(PathBuf::from(path)),
        // A file that is missing would have cargo run this, and rebuild the crate, each time: name it when it is there.
        None => Some(built_earlier()).filter(|path| path.is_file()),
    };
    let out = env::var_os("OUT_DIR").map(PathBuf::from);
    let out = out.ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    let bytes = match object {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(&path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?
        }
        None => Vec::new(),
    };
    fs::write(out.join("qbox-ebpf.o"), bytes)
}

/// Where `cargo xtask build-ebpf` leaves it.
fn built_earlier() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    workspace
        .join(target)
        .join("bpfel-unknown-none/release/qbox-ebpf")
}
