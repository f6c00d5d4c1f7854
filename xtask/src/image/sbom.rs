//! What the image is made of, as CycloneDX 1.5 (JSON): the crates that are linked in, as cargo resolves them for this target
//! from Cargo.lock, and the libraries of the builder's system.

use super::oci::sha256;
use crate::ui::{cargo, read};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The list for this binary of `qbox-userspace` and its libraries.
pub(super) fn of(root: &Path, binary: &Path, libraries: &[PathBuf]) -> Result<Vec<u8>> {
    let mut components = BTreeSet::new();
    for package in ["qbox-userspace", "qbox-ebpf"] {
        let mut tree = cargo();
        tree.current_dir(root)
            .args(["tree", "--locked", "--edges=normal", "--prefix=none"]);
        let listed = read(tree.args(["--format={p}|{l}", "--package", package]))?;
        components.extend(listed.lines().filter_map(component));
    }
    let mut components: Vec<Value> = components
        .into_iter()
        .map(|(name, version, licence)| {
            let purl = format!("pkg:cargo/{name}@{version}");
            // `MIT/Apache-2.0` is how older crates say it.
            let licence = licence.replace('/', " OR ");
            json!({
                "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
                "licenses": [{ "expression": licence }],
            })
        })
        .collect();
    for path in libraries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        components.push(json!({
            "type": "file", "bom-ref": path.display().to_string(), "name": name, "hashes": hashes(path)?,
        }));
    }
    let list = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": "qbox", "name": "qbox", "version": env!("CARGO_PKG_VERSION"),
            "licenses": [{ "expression": "MIT OR Apache-2.0" }], "hashes": hashes(binary)?,
        } },
        "components": components,
    });
    let mut text = serde_json::to_vec_pretty(&list)?;
    text.push(b'\n');
    Ok(text)
}

/// Name, version and licence, from cargo's `tokio v1.54.0|MIT (*)`; a crate of the workspace has its folder after the version.
fn component(line: &str) -> Option<(String, String, String)> {
    let (package, licence) = line.split_once('|')?;
    let mut words = package.split(' ');
    let name = words.next()?;
    let version = words.next()?.strip_prefix('v')?;
    let licence = licence.trim_end_matches(" (*)");
    Some((name.to_owned(), version.to_owned(), licence.to_owned()))
}

fn hashes(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    Ok(json!([{ "alg": "SHA-256", "content": sha256(&bytes) }]))
}

#[cfg(test)]
mod tests {
    use super::component;

    #[test]
    fn cargos_lines_are_read() {
        let read =
            |line| component(line).map(|(name, version, licence)| [name, version, licence].join(" | "));
        assert_eq!(
            read("clap v4.6.9|MIT OR Apache-2.0 (*)").unwrap(),
            "clap | 4.6.9 | MIT OR Apache-2.0"
        );
        assert_eq!(
            read("qbox-common v0.1.0 (/src)|MIT").unwrap(),
            "qbox-common | 0.1.0 | MIT"
        );
        assert_eq!(read(""), None);
    }
}
