//! `cargo xtask image`: the release binary as an OCI image, for any container runtime, without a daemon.
//!
//! The binary stays linked with glibc, and glibc's files come along: it is the very binary that the suites run, names are looked
//! up by the same resolver as everywhere, and no licence is stretched. Two images of the same files have the same digest.

mod contents;
mod oci;
mod sbom;

use crate::build;
use crate::toolchain::target_folder;
use crate::ui::step;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;

/// Compressed, as it is pulled.
const LARGEST: usize = 25 * 1024 * 1024;

/// `cargo xtask image`.
pub(crate) fn run() -> Result<()> {
    build::release()?;
    step("Writing the image", || {
        let folder = target_folder().join("image");
        write(&crate::root()?, &build::binary("qbox"), &folder)
    })
}

/// Writes the archive and its list of parts into the folder.
fn write(root: &Path, binary: &Path, folder: &Path) -> Result<()> {
    let libraries = contents::libraries(binary)?;
    let parts = sbom::of(root, binary, &libraries)?;
    let layer = contents::layer(root, binary, &libraries, &parts)?;
    let image = oci::archive(&layer)?;
    if image.bytes.len() > LARGEST {
        bail!(
            "the image has {} bytes; {LARGEST} are the most that it may have",
            image.bytes.len()
        );
    }
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    for (name, bytes) in [("qbox.oci.tar", &image.bytes), ("qbox.cdx.json", &parts)] {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("can't write {}", path.display()))?;
        println!("{}  {} bytes", path.display(), bytes.len());
    }
    println!("sha256:{}  {}", image.manifest, oci::architecture());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{contents, oci, write};
    use flate2::read::GzDecoder;
    use serde_json::Value;
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::io::Read;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, SystemTime};

    /// Another place and another time, the same bytes: what two builders have.
    fn copied(binary: &Path, folder: &Path, age: u64) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let copy = folder.join("qbox");
        fs::copy(binary, &copy).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age);
        File::options()
            .append(true)
            .open(&copy)
            .unwrap()
            .set_modified(then)
            .unwrap();
        copy
    }

    fn entries(bytes: &[u8]) -> BTreeMap<String, (tar::Header, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let path = entry.path().unwrap().display().to_string();
            (path, (entry.header().clone(), content))
        };
        archive.entries().unwrap().map(read).collect()
    }

    /// The shell stands for Qbox, which need not be built here: a program with libraries too.
    #[test]
    fn two_images_of_the_same_files_are_one_and_each_blob_is_what_its_name_says() {
        let root = crate::root().unwrap();
        let binary = Path::new("/bin/sh");
        let folder = tempfile::tempdir().unwrap();
        let mut images = Vec::new();
        for (name, age) in [("first", 5), ("second", 500_000)] {
            let place = folder.path().join(name);
            write(&root, &copied(binary, &place, age), &place).unwrap();
            images.push(fs::read(place.join("qbox.oci.tar")).unwrap());
        }
        assert!(images[0] == images[1], "the two differ");

        let blobs = entries(&images[0]);
        for (path, (_, content)) in &blobs {
            if let Some(digest) = path.strip_prefix("blobs/sha256/").filter(|name| !name.is_empty()) {
                assert_eq!(oci::sha256(content), digest);
            }
        }
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            let content = &blobs[&format!("blobs/{digest}")].1;
            assert_eq!(descriptor["size"], content.len());
            content
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let index = json(&blobs["index.json"].1);
        let manifest = json(blob(&index["manifests"][0]));
        let config = json(blob(&manifest["config"]));
        let mut layer = Vec::new();
        let zipped = blob(&manifest["layers"][0]);
        GzDecoder::new(&zipped[..]).read_to_end(&mut layer).unwrap();
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", oci::sha256(&layer))
        );

        let files = entries(&layer);
        for (path, (header, _)) in &files {
            let owner = (
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mtime().unwrap(),
            );
            assert_eq!(owner, (0, 0, 0), "{path}");
        }
        assert_eq!(files["usr/bin/qbox"].1, fs::read(binary).unwrap());
        assert!(!files.contains_key("etc/passwd"));
        let parts = json(&files["usr/share/qbox/qbox.cdx.json"].1);
        let names: Vec<&str> = parts["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part["name"].as_str().unwrap())
            .collect();
        for name in ["tokio", "aya", "qbox-common", "libc.so.6"] {
            assert!(names.contains(&name), "{name} is missing in {names:?}");
        }
        assert!(
            !names.contains(&"proptest"),
            "a library of tests alone is no part"
        );
    }

    #[test]
    fn a_program_without_its_libraries_is_an_error() {
        let error = contents::libraries(Path::new("/nowhere/qbox")).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/qbox"), "{error:#}");
    }
}
