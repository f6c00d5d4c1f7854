//! The keys that secrets are sealed under before they are written anywhere, and the sealing: XChaCha20-Poly1305
//! (draft-irtf-cfrg-xchacha-03), whose nonces are long enough to be drawn by chance.
//!
//! Knows neither what it seals nor where it is kept. Errors: [`KeyError`] for a file of keys, and in words what keeps a
//! sealed text shut.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bytes of a key.
const KEY: usize = 32;
/// Bytes of a nonce.
const NONCE: usize = 24;
/// A longer file is no file of keys.
const FILE: u64 = 64 << 10;
/// What begins the name of a key that no file has.
const IN_MEMORY: &str = "memory-";

/// Why a file gives no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[from] std::io::Error),
    /// More than its owner may read it, or its group change it.
    #[error("its mode {0:04o} lets others read it, or its group write it")]
    Mode(u32),
    /// It is longer than any list of keys.
    #[error("it is longer than 64 KiB")]
    TooLong,
    /// There is no key in it.
    #[error("there is no key in it")]
    Empty,
    /// A line that is none, counted from 1.
    #[error("line {0} is neither 64 hexadecimal digits nor the base64 of 32 bytes")]
    Line(usize),
    /// The system has no chance to give.
    #[error("the system gives no random bytes")]
    NoChance,
}

/// Keys: the first seals, all open. Without any nothing is sealed.
#[derive(Default)]
pub struct Keys(Vec<Key>);

struct Key {
    /// What a sealed text calls it: the beginning of its hash.
    name: String,
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|key| &key.name))
            .finish()
    }
}

impl Key {
    fn new(key: [u8; KEY], prefix: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"qbox key");
        hash.update(key);
        let digest = hash.finalize();
        let name = digest.iter().take(4).map(|byte| format!("{byte:02x}"));
        Self {
            name: name.fold(prefix.to_owned(), |name, byte| name + &byte),
            cipher: XChaCha20Poly1305::new(&key.into()),
        }
    }
}

impl Keys {
    /// A key that nobody else has, and that ends with this process.
    ///
    /// # Errors
    /// [`KeyError::NoChance`].
    pub fn in_memory() -> Result<Self, KeyError> {
        let key = <[u8; KEY]>::try_generate().map_err(|_| KeyError::NoChance)?;
        Ok(Self(vec![Key::new(key, IN_MEMORY)]))
    }

    /// Those of a file: one a line, in base64 or hexadecimal; what follows a `#` is a comment.
    ///
    /// # Errors
    /// [`KeyError`]; none tells any of what is in the file.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let about = std::fs::metadata(path)?;
        let mode = about.permissions().mode() & 0o7777;
        if mode & 0o027 != 0 {
            return Err(KeyError::Mode(mode));
        }
        if about.len() > FILE {
            return Err(KeyError::TooLong);
        }
        Self::parse(&std::fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self, KeyError> {
        let lines = (1..).zip(text.lines()).filter_map(|(number, line)| {
            let line = line.split('#').next().unwrap_or_default().trim();
            (!line.is_empty()).then_some((number, line))
        });
        let keys: Vec<Key> = lines
            .map(|(number, line)| {
                let bytes = hex(line).or_else(|| BASE64.decode(line).ok());
                let key = bytes.and_then(|bytes| bytes.try_into().ok());
                key.map(|key| Key::new(key, "")).ok_or(KeyError::Line(number))
            })
            .collect::<Result<_, _>>()?;
        match keys.is_empty() {
            true => Err(KeyError::Empty),
            false => Ok(Self(keys)),
        }
    }

    /// Seals a text under the first key; it opens only with the same context. `None`: there is no key, or no chance.
    #[must_use]
    pub fn seal(&self, context: &[u8], text: &[u8]) -> Option<String> {
        let key = self.0.first()?;
        let nonce = <[u8; NONCE]>::try_generate().ok()?;
        let payload = Payload {
            msg: text,
            aad: context,
        };
        let mut sealed = nonce.to_vec();
        sealed.extend(key.cipher.encrypt(&XNonce::from(nonce), payload).ok()?);
        Some(format!("{}.{}", key.name, BASE64.encode(sealed)))
    }

    /// Opens what [`Keys::seal`] gave.
    ///
    /// # Errors
    /// What keeps it shut, for people.
    pub fn open(&self, context: &[u8], sealed: &str) -> Result<Vec<u8>, String> {
        let damaged = || "what was sealed is damaged".to_owned();
        let (name, text) = sealed.split_once('.').ok_or_else(damaged)?;
        let Some(key) = self.0.iter().find(|key| key.name == name) else {
            return Err(match name.starts_with(IN_MEMORY) {
                true => "its key was in memory alone, as no `key_file` was set in [secrets], and is gone"
                    .to_owned(),
                false => {
                    format!("its key, {name}, is not among those of this Qbox (`key_file` in [secrets])")
                }
            });
        };
        let bytes = BASE64.decode(text).map_err(|_| damaged())?;
        let (nonce, msg) = bytes.split_first_chunk::<NONCE>().ok_or_else(damaged)?;
        let payload = Payload { msg, aad: context };
        let opened = key.cipher.decrypt(&XNonce::from(*nonce), payload);
        opened.map_err(|_| format!("the key {name} doesn't open it: it is damaged, or another saga's"))
    }
}

/// The bytes of an even number of hexadecimal digits.
fn hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            u8::try_from(digit(high)? << 4 | digit(low)?).ok()
        }
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const OLD: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    const NEW: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn keys(text: &str) -> Keys {
        Keys::parse(text).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_under_its_key_and_context_alone() {
        let old = keys(OLD);
        let sealed = old.seal(b"7/0", b"hunter2").unwrap();
        assert!(!sealed.contains("hunter2"));
        assert_eq!(old.open(b"7/0", &sealed).unwrap(), b"hunter2");
        assert_ne!(
            old.seal(b"7/0", b"hunter2").unwrap(),
            sealed,
            "a nonce of its own"
        );
        let why = |keys: &Keys, context: &[u8], sealed: &str| keys.open(context, sealed).unwrap_err();
        assert!(why(&old, b"7/1", &sealed).contains("another saga's"));
        assert!(why(&keys(NEW), b"7/0", &sealed).contains("not among those of this Qbox"));
        assert!(why(&Keys::default(), b"7/0", &sealed).contains("not among"));
        for broken in ["", "x", &sealed[..20], &sealed.replace('.', ".A")] {
            assert!(old.open(b"7/0", broken).is_err(), "{broken}");
        }
        let lost = Keys::in_memory().unwrap().seal(b"", b"x").unwrap();
        assert!(why(&old, b"", &lost).contains("in memory alone"));
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let sealed = keys(OLD).seal(b"", b"x").unwrap();
        let both = keys(&format!("# since March\n{NEW}\n\n  {OLD} # until March\n"));
        assert_eq!(both.open(b"", &sealed).unwrap(), b"x");
        let sealed = both.seal(b"", b"x").unwrap();
        assert_eq!(keys(NEW).open(b"", &sealed).unwrap(), b"x");
    }

    #[test]
    fn a_file_that_is_none_is_told_without_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let read = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Keys::read(&path).map_err(|error| error.to_string())
        };
        assert!(read(OLD, 0o440).is_ok());
        assert!(read(OLD, 0o644).unwrap_err().contains("0644"));
        assert!(read("# none\n", 0o400).unwrap_err().contains("no key"));
        let error = read(&format!("{OLD}\nhunter2"), 0o400).unwrap_err();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
        assert!(read(&OLD[2..], 0o400).is_err(), "31 bytes");
        assert!(read(&"#".repeat(70_000), 0o400).unwrap_err().contains("64 KiB"));
        assert!(Keys::read(&folder.path().join("none")).is_err());
    }
}
