//! TLS to a service: whom to trust, what to show, and the handshake. The library (rustls) checks the certificate's chain, its
//! dates and the host's name; there is no way to turn that off.
//!
//! Errors say in words what is wrong. Whatever fails in a handshake fails before a byte of a request was written.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How to speak TLS with some services.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    /// A connection that was made under another one is not used any more.
    pub(super) generation: u64,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// What of it can't be used, and why.
#[derive(Debug)]
pub(super) enum Wrong {
    Authorities(String),
    Certificate(String),
    Key(String),
}

impl Wrong {
    pub(super) fn into_why(self) -> String {
        match self {
            Self::Authorities(why) | Self::Certificate(why) | Self::Key(why) => why,
        }
    }
}

impl Tls {
    /// Trusts the authorities of a PEM text, or the system's; shows a certificate with its key, or none. It reads the disk for the
    /// system's.
    pub(super) fn new(ca: Option<&[u8]>, client: Option<(&[u8], &[u8])>) -> Result<Self, Wrong> {
        let roots = match ca {
            Some(pem) => authorities(pem),
            None => system(),
        };
        let roots = roots.map_err(Wrong::Authorities)?;
        let mut hasher = DefaultHasher::new();
        (ca, client).hash(&mut hasher);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Wrong::Authorities(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert).map_err(Wrong::Certificate)?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| Wrong::Key("there is no private key in PEM in it".to_owned()))?;
                let made = builder.with_client_auth_cert(chain, key);
                made.map_err(|error| Wrong::Key(error.to_string()))?
            }
        };
        // What is spoken behind it; a server that has only HTTP/2 says so now.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            generation: hasher.finish(),
        })
    }

    /// Makes `stream` a connection with `host`, and nobody else.
    pub(super) async fn handshake(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = host.strip_suffix('.').unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(name, stream).await
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("there is no certificate in PEM in it".to_owned()),
        Err(error) => Err(format!("it is no PEM: {error}")),
    }
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// Those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set.
fn system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match (added, found.errors.first()) {
        (0, Some(error)) => Err(format!("this system's authorities can't be read: {error}")),
        (0, None) => Err(
            "this system trusts no authority: install its `ca-certificates`, or name a `ca` in [[upstream.service]]"
                .to_owned(),
        ),
        _ => Ok(roots),
    }
}

/// Whether the service has refused the handshake by an alert that speaks of nothing else. In TLS 1.3 it says so behind the
/// client's last message, so that a request may be written by then; without the handshake it has not read it (RFC 8446, 2 and
/// 4.4.2.4), as no data is sent early.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    use AlertDescription as Alert;
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::AlertReceived(
            Alert::HandshakeFailure
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::CertificateRequired
        ))
    )
}
