//! An OCI image layout as one tar archive (OCI image-spec 1.1, image-layout.md), with one layer. Sorted, owned by root, of the
//! year 1970: the same files are the same bytes.

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use tar::{Builder, EntryType, Header};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A file of the layer.
pub(super) struct Entry {
    mode: u32,
    content: Vec<u8>,
}

impl Entry {
    pub(super) fn program(content: Vec<u8>) -> Self {
        Self { mode: 0o755, content }
    }

    pub(super) fn file(content: Vec<u8>) -> Self {
        Self { mode: 0o644, content }
    }
}

/// Files and folders by their path from the image's root; `None` is a folder.
#[derive(Default)]
pub(super) struct Layer(BTreeMap<String, Option<Entry>>);

impl Layer {
    /// Adds a file, and the folders above it.
    pub(super) fn add(&mut self, path: &str, entry: Entry) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.0.insert(path.to_owned(), Some(entry));
    }

    /// Adds a folder, and those above it.
    pub(super) fn folder(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            self.0.insert(path[..end].to_owned(), None);
        }
        self.0.insert(path.to_owned(), None);
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            match entry {
                Some(Entry { mode, content }) => append(&mut tar, path, EntryType::Regular, *mode, content)?,
                None => append(&mut tar, &format!("{path}/"), EntryType::Directory, 0o755, &[])?,
            }
        }
        Ok(tar.into_inner()?)
    }
}

/// A written image.
pub(super) struct Image {
    /// The archive.
    pub(super) bytes: Vec<u8>,
    /// The manifest's SHA-256: the image's digest.
    pub(super) manifest: String,
}

/// The archive of an image with this layer alone.
pub(super) fn archive(layer: &Layer) -> Result<Image> {
    let plain = layer.bytes()?;
    // GzBuilder writes neither a name nor a time by itself.
    let mut zip = GzBuilder::new().read(&plain[..], Compression::best());
    let mut zipped = Vec::new();
    zip.read_to_end(&mut zipped)?;

    let mut blobs = BTreeMap::new();
    let layer = descriptor(&mut blobs, "application/vnd.oci.image.layer.v1.tar+gzip", zipped);
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/qbox"],
            "Cmd": ["run", "--config", "/etc/qbox/qbox.toml"],
            "Env": ["PATH=/usr/bin"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": labels(),
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&plain))] },
        "history": [{ "created_by": "cargo xtask image" }],
    });
    let config = descriptor(
        &mut blobs,
        "application/vnd.oci.image.config.v1+json",
        text(&config)?,
    );
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
        "annotations": labels(),
    });
    let manifest = text(&manifest)?;
    let digest = sha256(&manifest);
    let mut manifest = descriptor(&mut blobs, "application/vnd.oci.image.manifest.v1+json", manifest);
    manifest["platform"] = json!({ "architecture": architecture(), "os": "linux" });
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": format!("qbox:{VERSION}") });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });

    let mut tar = Builder::new(Vec::new());
    for folder in ["blobs/", "blobs/sha256/"] {
        append(&mut tar, folder, EntryType::Directory, 0o755, &[])?;
    }
    for (name, content) in &blobs {
        let path = format!("blobs/sha256/{name}");
        append(&mut tar, &path, EntryType::Regular, 0o644, content)?;
    }
    append(&mut tar, "index.json", EntryType::Regular, 0o644, &text(&index)?)?;
    let layout = text(&json!({ "imageLayoutVersion": "1.0.0" }))?;
    append(&mut tar, "oci-layout", EntryType::Regular, 0o644, &layout)?;
    Ok(Image {
        bytes: tar.into_inner()?,
        manifest: digest,
    })
}

/// As Go, and with it every runtime, names the architecture of this machine, for which cargo builds.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// In hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn labels() -> Value {
    json!({
        "org.opencontainers.image.title": "qbox",
        "org.opencontainers.image.description": "Sagas for services that know nothing of them: one process a node",
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
    })
}

fn text(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// Keeps a blob, and says what refers to it.
fn descriptor(blobs: &mut BTreeMap<String, Vec<u8>>, media: &str, content: Vec<u8>) -> Value {
    let digest = sha256(&content);
    let value = json!({ "mediaType": media, "digest": format!("sha256:{digest}"), "size": content.len() });
    blobs.insert(digest, content);
    value
}

fn append<W: Write>(
    tar: &mut Builder<W>,
    path: &str,
    kind: EntryType,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content)?;
    Ok(())
}
