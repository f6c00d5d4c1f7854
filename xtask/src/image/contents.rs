//! What is in the image: the binary, the libraries that it names, CA roots, a configuration. No shell, no users, no package
//! manager.

use super::oci::{Entry, Layer};
use crate::ui::read;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian and its kin keep the roots that the system trusts, one after the other.
const CA_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Without it glibc asks DNS before /etc/hosts (nsswitch.conf(5)). Both are built into libc.
const NAMES: &str = "hosts: files dns\n";

/// The shared libraries and the loader of a dynamic binary, where it looks for them.
///
/// # Errors
/// One of them is missing on this machine, or there is no such binary.
pub(super) fn libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let listed = read(Command::new("ldd").arg(binary))?;
    let mut found = Vec::new();
    for line in listed.lines().map(str::trim) {
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, and the kernel's
        // linux-vdso.so.1, which has no path.
        let path = line.split(" => ").last().and_then(|rest| rest.split(" (").next());
        match path {
            Some(path) if path.starts_with('/') => found.push(PathBuf::from(path)),
            Some("not found") => bail!("{}: {line}", binary.display()),
            _ => {}
        }
    }
    found.sort();
    Ok(found)
}

/// All files of the image; `parts` is the list of what it is made of.
pub(super) fn layer(root: &Path, binary: &Path, libraries: &[PathBuf], parts: &[u8]) -> Result<Layer> {
    let mut layer = Layer::default();
    layer.add("usr/bin/qbox", Entry::program(load(binary)?));
    for library in libraries {
        let inside = library.strip_prefix("/").unwrap_or(library);
        layer.add(&inside.display().to_string(), Entry::program(load(library)?));
    }
    if Path::new(CA_ROOTS).is_file() {
        layer.add(
            CA_ROOTS.trim_start_matches('/'),
            Entry::file(load(Path::new(CA_ROOTS))?),
        );
    } else {
        eprintln!("    without CA roots: this machine has no {CA_ROOTS} (Debian's ca-certificates)");
    }
    layer.add("etc/nsswitch.conf", Entry::file(NAMES.into()));
    layer.add(
        "etc/qbox/qbox.toml",
        Entry::file(load(&root.join("config/qbox.toml"))?),
    );
    layer.add("usr/share/qbox/qbox.cdx.json", Entry::file(parts.to_vec()));
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        layer.add(
            &format!("usr/share/doc/qbox/{licence}"),
            Entry::file(load(&root.join(licence))?),
        );
    }
    // Empty: sagas, the journal and the admin socket are mounted here; the root may be read-only.
    for folder in ["etc/qbox/sagas", "run/qbox", "tmp", "var/lib/qbox"] {
        layer.folder(folder);
    }
    Ok(layer)
}

fn load(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can't read {}", path.display()))
}
