//! What Qbox knows of services beside their addresses: whom to trust with their names, what to show them. Read whole from
//! files, and exchanged whole when those change, so that a call sees one state of them.
//!
//! Nothing here is ever shown: no `Debug` of it tells more than hosts. Errors: [`ServiceError`], none of which tells what is in
//! a file.

use super::tls::{self, Tls};
use crate::config::{Credential, CredentialScheme, Service};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use smol_str::SmolStr;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A longer file is none of these: the system's own authorities are a quarter of it.
const LONGEST: u64 = 1 << 20;

/// A file of a service that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}, for `{host}` in [[upstream.service]]: {why}", file.display())]
pub struct ServiceError {
    /// The service, as it is written.
    host: String,
    /// The file.
    file: PathBuf,
    /// What is wrong.
    why: String,
}

/// All of them.
#[derive(Default)]
pub struct Services {
    /// The first that fits is meant.
    known: Vec<Arc<Known>>,
    /// Two of the same have the same files, with the same in them.
    fingerprint: u64,
}

/// One table's worth.
pub(super) struct Known {
    host: String,
    below: bool,
    port: Option<u16>,
    /// None: as for all that nothing is known of.
    pub(super) tls: Option<Tls>,
    /// Name and value.
    pub(super) credentials: Vec<(SmolStr, Bytes)>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.known.iter().map(|known| &known.host))
            .finish()
    }
}

impl Services {
    /// Reads every file that the tables name.
    ///
    /// # Errors
    /// The first file that can't be used.
    pub fn load(tables: &[Service]) -> Result<Self, ServiceError> {
        let mut hasher = DefaultHasher::new();
        let known = tables.iter().map(|table| known(table, &mut hasher).map(Arc::new));
        Ok(Self {
            known: known.collect::<Result<_, _>>()?,
            fingerprint: hasher.finish(),
        })
    }

    /// Whether these say the same as others.
    #[must_use]
    pub fn are(&self, others: &Self) -> bool {
        self.fingerprint == others.fingerprint
    }

    pub(super) fn find(&self, host: &str, port: u16) -> Option<&Arc<Known>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.known.iter().find(|known| known.is_for(host, port))
    }
}

impl Known {
    /// Hosts compare without case (RFC 9110, 4.2.3).
    fn is_for(&self, host: &str, port: u16) -> bool {
        let same = match self.below {
            false => host.eq_ignore_ascii_case(&self.host),
            true => {
                let cut = host.len().checked_sub(self.host.len() + 1);
                cut.filter(|at| *at > 0)
                    .and_then(|at| host.split_at_checked(at))
                    .and_then(|(_, end)| end.strip_prefix('.'))
                    .is_some_and(|end| end.eq_ignore_ascii_case(&self.host))
            }
        };
        same && self.port.is_none_or(|named| named == port)
    }
}

fn known(table: &Service, hasher: &mut DefaultHasher) -> Result<Known, ServiceError> {
    (&table.host, table.below, table.port).hash(hasher);
    let wrong = |file: &Path, why: String| ServiceError {
        host: table.host.clone(),
        file: file.to_owned(),
        why,
    };
    let read = |file: &Path, hasher: &mut DefaultHasher| {
        let bytes = read(file).map_err(|why| wrong(file, why))?;
        bytes.hash(hasher);
        Ok::<_, ServiceError>(bytes)
    };
    let ca = table.ca.as_deref().map(|file| read(file, hasher)).transpose()?;
    let client = match &table.client {
        Some((cert, key)) => Some((read(cert, hasher)?, read(key, hasher)?)),
        None => None,
    };
    let mut credentials = Vec::new();
    for Credential { header, scheme, file } in &table.credentials {
        let value = value(*scheme, &read(file, hasher)?).map_err(|why| wrong(file, why.to_owned()))?;
        header.hash(hasher);
        credentials.push((header.into(), value));
    }
    let tls = match (&ca, &client) {
        (None, None) => None,
        (ca, client) => {
            let client = client.as_ref().map(|(cert, key)| (&cert[..], &key[..]));
            let made = Tls::new(ca.as_deref(), client);
            Some(made.map_err(|error| {
                let (file, why) = match (error, &table.ca, &table.client) {
                    (tls::Wrong::Authorities(why), Some(ca), _) => (ca.as_path(), why),
                    (tls::Wrong::Key(why), _, Some((_, key))) => (key.as_path(), why),
                    (tls::Wrong::Certificate(why), _, Some((cert, _))) => (cert.as_path(), why),
                    (other, ..) => (Path::new("the system's authorities"), other.into_why()),
                };
                wrong(file, why)
            })?)
        }
    };
    Ok(Known {
        host: table.host.clone(),
        below: table.below,
        port: table.port,
        tls,
        credentials,
    })
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("it can't be read: {error}"))?;
    match bytes.len() as u64 > LONGEST {
        true => Err("it is larger than 1 MiB".to_owned()),
        false => Ok(bytes),
    }
}

/// A field's value; the line's end that editors put behind a text is none of it.
fn value(scheme: CredentialScheme, text: &[u8]) -> Result<Bytes, &'static str> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() {
        return Err("there is nothing in it");
    }
    if text.iter().any(|byte| byte.is_ascii_control()) {
        return Err("it has more than one line, or a control character, which no header's value may have");
    }
    match scheme {
        CredentialScheme::Plain => Ok(Bytes::copy_from_slice(text)),
        CredentialScheme::Bearer if text.contains(&b' ') => Err("a token has no space in it"),
        CredentialScheme::Bearer => Ok([b"Bearer ", text].concat().into()),
        CredentialScheme::Basic if !text.contains(&b':') => Err("write it as USER:PASSWORD"),
        CredentialScheme::Basic => Ok(format!("Basic {}", BASE64.encode(text)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(host: &str, below: bool, port: Option<u16>) -> Service {
        Service {
            host: host.to_owned(),
            below,
            port,
            ca: None,
            client: None,
            credentials: Vec::new(),
        }
    }

    #[test]
    fn the_first_that_fits_is_meant() {
        let tables = [
            table("a.bank.example", false, Some(8443)),
            table("bank.example", true, None),
        ];
        let services = Services::load(&tables).unwrap();
        let found = |host, port| {
            services
                .find(host, port)
                .map(|known| (known.host.as_str(), known.below))
        };
        assert_eq!(found("A.bank.example", 8443), Some(("a.bank.example", false)));
        assert_eq!(found("a.bank.example.", 443), Some(("bank.example", true)));
        assert_eq!(found("x.y.BANK.example", 80), Some(("bank.example", true)));
        for other in [
            "bank.example",
            ".bank.example",
            "abank.example",
            "bank.example.evil",
            "",
        ] {
            assert_eq!(found(other, 80), None, "{other}");
        }
    }

    #[test]
    fn a_text_becomes_a_value_or_says_why_not() {
        let bearer = value(CredentialScheme::Bearer, b"abc.def\r\n").unwrap();
        assert_eq!(bearer, "Bearer abc.def");
        let basic = value(CredentialScheme::Basic, b"Aladdin:open sesame\n").unwrap();
        assert_eq!(basic, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(value(CredentialScheme::Plain, b"k").unwrap(), "k");
        for wrong in [&b"\n"[..], b"a\r\nx: y", b"a\0", b""] {
            assert!(value(CredentialScheme::Plain, wrong).is_err());
        }
        assert!(value(CredentialScheme::Basic, b"Aladdin").is_err());
    }

    #[test]
    fn nothing_of_a_file_is_shown_and_a_change_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let mut with = table("a", false, None);
        with.credentials.push(Credential {
            header: "Authorization".to_owned(),
            scheme: CredentialScheme::Bearer,
            file: file.clone(),
        });
        let load = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Services::load(std::slice::from_ref(&with))
        };
        let (first, same, other) = (load("one").unwrap(), load("one").unwrap(), load("two").unwrap());
        assert!(first.are(&same) && !first.are(&other));
        assert_eq!(format!("{first:?}"), "[\"a\"]");
        let error = load("sec ret").unwrap_err().to_string();
        assert!(error.contains("token") && !error.contains("sec ret"), "{error}");
    }
}
