//! `[[upstream.service]]` of `qbox.toml`: how a service is told from others over TLS, and the credentials that Qbox shows it.
//! They are named here by their files alone: what is in those is nobody's business but the upstream room's.

use super::diagnostic::Code;
use super::message;
use super::url;
use super::walk::{Node, Sink, Table};
use std::path::{Path, PathBuf};

/// One table: services by host, and what holds for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Without case, brackets and the `*.` of a suffix.
    pub host: String,
    /// Every host below `host`, and not itself.
    pub below: bool,
    /// This port alone.
    pub port: Option<u16>,
    /// The authorities that may vouch for it, instead of the system's: PEM.
    pub ca: Option<PathBuf>,
    /// A client's certificate and those between it and its authority, and its key: PEM.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Header fields whose values are in files.
    pub credentials: Vec<Credential>,
}

/// A header field whose value is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The field's name.
    pub header: String,
    /// What becomes of the file's text.
    pub scheme: CredentialScheme,
    /// The file.
    pub file: PathBuf,
}

/// How a text becomes a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialScheme {
    /// As it is.
    Plain,
    /// A token, behind `Bearer` (RFC 6750).
    Bearer,
    /// `user:password`, in base64 behind `Basic` (RFC 7617).
    Basic,
}

impl Service {
    /// Every file that is read for it.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let client = self.client.iter().flat_map(|(cert, key)| [cert, key]);
        let credentials = self.credentials.iter().map(|credential| &credential.file);
        self.ca.iter().chain(client).chain(credentials)
    }
}

/// The tables of `[upstream]`; paths begin at `folder`. Mistakes go to the sink.
pub(super) fn services(sink: &Sink, upstream: &Table<'_>, folder: &Path) -> Vec<Service> {
    let Some(node) = upstream.get("service") else {
        return Vec::new();
    };
    let nodes = node.list("[[upstream.service]]").unwrap_or_default();
    nodes
        .iter()
        .filter_map(|node| {
            let table = node.table("[[upstream.service]]")?;
            let service = service(sink, &table, folder);
            table.finish();
            service
        })
        .collect()
}

fn service(sink: &Sink, table: &Table<'_>, folder: &Path) -> Option<Service> {
    let host = table
        .need("host", "host = \"hotel.default.svc\"")
        .and_then(|node| host(sink, &node));
    let path = |node: Option<Node<'_>>| node.and_then(|node| file(sink, &node, folder));
    let ca = path(table.get("ca"));
    let (cert, key) = (table.get("client_cert"), table.get("client_key"));
    let lone = match (&cert, &key) {
        (Some(cert), None) => Some((cert, "client_key")),
        (None, Some(key)) => Some((key, "client_cert")),
        _ => None,
    };
    if let Some((there, missing)) = lone {
        let message = format!("`{}` says nothing without `{missing}`", there.key);
        let help = format!("write `{missing} = \"FILE.pem\"` beside it");
        sink.error(Code::MissingKey, there.key_span.clone(), message, "", help);
    }
    let client = path(cert).zip(path(key));
    let (bearer, basic) = (table.get("bearer_file"), table.get("basic_file"));
    if let (Some(_), Some(basic)) = (&bearer, &basic) {
        let message = "`bearer_file` and `basic_file` both write `Authorization`";
        sink.error(
            Code::Conflict,
            basic.key_span.clone(),
            message,
            "",
            "take one of them out",
        );
    }
    let mut credentials = Vec::new();
    for (node, scheme) in [
        (bearer, CredentialScheme::Bearer),
        (basic, CredentialScheme::Basic),
    ] {
        credentials.extend(path(node).map(|file| Credential {
            header: "Authorization".to_owned(),
            scheme,
            file,
        }));
    }
    if let Some(fields) = table
        .get("header_files")
        .and_then(|node| node.table("`header_files`"))
    {
        for node in fields.entries() {
            let (name, span) = (node.key, node.key_span.clone());
            if !message::header_name(sink, name, span.clone()) {
                continue;
            }
            let known = credentials.iter().any(|c| c.header.eq_ignore_ascii_case(name));
            if known || message::is_reserved(name) {
                let message = match known {
                    true => format!("`{name}` is written twice"),
                    false => format!("`{name}` is written by Qbox itself"),
                };
                sink.error(Code::ReservedHeader, span, message, "", "take it out");
                continue;
            }
            credentials.extend(file(sink, node, folder).map(|file| Credential {
                header: name.to_owned(),
                scheme: CredentialScheme::Plain,
                file,
            }));
        }
    }
    let (host, below, port) = host?;
    Some(Service {
        host,
        below,
        port,
        ca,
        client,
        credentials,
    })
}

/// `HOST`, `*.SUFFIX`, and either with `:PORT`.
fn host(sink: &Sink, node: &Node<'_>) -> Option<(String, bool, Option<u16>)> {
    let text = node.filled()?;
    let below = text.value.starts_with("*.");
    let rest = text.part(if below { 2 } else { 0 }..text.value.len());
    let (host, port) = url::authority(sink, &rest)?;
    let host = host.trim_start_matches('[').trim_end_matches([']', '.']);
    Some((host.to_ascii_lowercase(), below, port))
}

/// A file that can be read now. What is in it is looked at by whoever uses it.
fn file(sink: &Sink, node: &Node<'_>, folder: &Path) -> Option<PathBuf> {
    let text = node.filled()?;
    let path = folder.join(text.value);
    let readable = std::fs::File::open(&path).and_then(|file| file.metadata());
    let why = match readable {
        Ok(about) if about.is_file() => return Some(path),
        Ok(_) => "it is no file".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!("can't read `{}`: {why}", path.display());
    let help = "name a file that Qbox may read; a relative path begins at this file's folder";
    sink.error(Code::ServiceFile, text.span, message, "", help);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::SourceFile;
    use crate::config::read_config;
    use std::sync::Arc;

    fn read(folder: &Path, text: &str) -> (Vec<Service>, Vec<(Code, String)>) {
        let read = read_config(Arc::new(SourceFile {
            name: folder.join("qbox.toml").display().to_string(),
            text: text.to_owned(),
        }));
        let found = read.found.into_iter().map(|d| (d.code, d.message)).collect();
        (read.config.unwrap().upstream.services, found)
    }

    #[test]
    fn hosts_files_and_headers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem", "token", "key"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let text = "[[upstream.service]]\nhost = \"*.Bank.example:8443\"\nca = \"ca.pem\"\nclient_cert = \"cert.pem\"\n\
                    client_key = \"key.pem\"\nbearer_file = \"token\"\nheader_files = { x-api-key = \"key\" }\n\
                    [[upstream.service]]\nhost = \"[::1]\"\n";
        let (services, found) = read(folder.path(), text);
        assert_eq!(found, []);
        let file = |name: &str| folder.path().join(name);
        let credential = |header: &str, scheme, name| Credential {
            header: header.to_owned(),
            scheme,
            file: file(name),
        };
        let first = Service {
            host: "bank.example".to_owned(),
            below: true,
            port: Some(8443),
            ca: Some(file("ca.pem")),
            client: Some((file("cert.pem"), file("key.pem"))),
            credentials: vec![
                credential("Authorization", CredentialScheme::Bearer, "token"),
                credential("x-api-key", CredentialScheme::Plain, "key"),
            ],
        };
        assert_eq!(services[0], first);
        assert_eq!(first.files().count(), 5);
        assert_eq!((services[1].host.as_str(), services[1].below), ("::1", false));
    }

    #[test]
    fn every_mistake_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        let text = "[[upstream.service]]\nhost = \"a b\"\nca = \"missing\"\nclient_cert = \"a\"\nbearer_file = \"a\"\n\
                    basic_file = \"a\"\nheader_files = { host = \"a\", authorization = \"a\" }\ntoken = \"a\"\n\
                    [[upstream.service]]\nca = \"a\"\n";
        let (services, found) = read(folder.path(), text);
        assert_eq!(services, []);
        let mut codes: Vec<Code> = found.into_iter().map(|(code, _)| code).collect();
        codes.sort_unstable();
        assert_eq!(
            codes,
            [
                Code::UnknownKey,
                Code::MissingKey,
                Code::MissingKey,
                Code::Conflict,
                Code::Url,
                Code::ReservedHeader,
                Code::ReservedHeader,
                Code::ServiceFile,
            ]
        );
    }
}
