//! The client against a TLS server of the test's own: who is trusted, what is shown, and what is certain when it fails.

use super::client::{End, Outgoing, Settings, Upstream};
use super::dial::Via;
use super::services::Services;
use crate::config::Service;
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut params = CertificateParams::new([]).unwrap();
    let name = format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for a name, and its key.
fn leaf(ca: &Ca, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, ca).unwrap(), key)
}

/// A server for `localhost`, which asks for certificates of `clients` if that is given. Counts its connections.
async fn server(ca: &Ca, clients: Option<&Ca>) -> (u16, Arc<AtomicUsize>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let (cert, key) = leaf(ca, "localhost");
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        let body = String::from_utf8_lossy(&head).to_lowercase();
                        let answer =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        head.clear();
                    }
                }
            });
        }
    });
    (port, count)
}

fn trusting(folder: &Path, ca: &Ca) -> Service {
    let file = folder.join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    Service {
        host: "localhost".to_owned(),
        below: false,
        port: None,
        ca: Some(file),
        client: None,
        credentials: Vec::new(),
    }
}

fn showing(folder: &Path, mut service: Service, ca: &Ca) -> Service {
    let (cert, key) = leaf(ca, "qbox");
    let (cert_file, key_file) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert_file, cert.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    service.client = Some((cert_file, key_file));
    service
}

async fn get(upstream: &Upstream, port: u16) -> End {
    upstream
        .call(Outgoing {
            method: "GET",
            url: &format!("https://localhost:{port}/x"),
            headers: &[("Authorization".into(), Bytes::from_static(b"of the message"))],
            body: Bytes::new(),
            via: &Via::Node,
            destination: None,
            http2: false,
            timeout: Duration::from_secs(5),
            credentials: true,
            patient: false,
        })
        .await
        .0
}

fn know(upstream: &Upstream, service: &Service) {
    let services = Services::load(std::slice::from_ref(service)).unwrap();
    upstream.know(Arc::new(services));
}

#[tokio::test]
async fn a_connection_is_used_again_until_what_it_was_made_under_changes() {
    let folder = tempfile::tempdir().unwrap();
    let ca = ca();
    let (port, count) = server(&ca, None).await;
    let upstream = Upstream::new(Settings::default());
    let service = trusting(folder.path(), &ca);
    for (service, connections) in [
        (service.clone(), 1),
        (service.clone(), 1),
        (showing(folder.path(), service, &ca), 2),
    ] {
        know(&upstream, &service);
        let End::Answered(answer) = get(&upstream, port).await else {
            panic!("no answer");
        };
        assert!(answer.body.starts_with(b"get /x http/1.1\r\nhost: localhost:"));
        assert_eq!(count.load(Ordering::Relaxed), connections);
        assert_eq!(upstream.idle(), 1);
    }
}

#[tokio::test]
async fn whom_nobody_vouches_for_is_sent_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (port, _) = server(&ca(), None).await;
    let upstream = Upstream::new(Settings::default());
    know(&upstream, &trusting(folder.path(), &ca()));
    let end = get(&upstream, port).await;
    assert!(
        matches!(&end, End::NotSent(cause) if cause.contains("UnknownIssuer")),
        "{end:?}"
    );
}

/// In TLS 1.3 the refusal comes when the request is under way.
#[tokio::test]
async fn a_refused_certificate_is_certainly_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, clients) = (ca(), ca());
    let (port, _) = server(&ca, Some(&clients)).await;
    let upstream = Upstream::new(Settings::default());
    let bare = trusting(folder.path(), &ca);
    for service in [bare.clone(), showing(folder.path(), bare.clone(), &ca)] {
        know(&upstream, &service);
        let end = get(&upstream, port).await;
        assert!(matches!(&end, End::NotSent(_)), "{end:?}");
    }
    know(&upstream, &showing(folder.path(), bare, &clients));
    assert!(matches!(get(&upstream, port).await, End::Answered(_)));
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let ca = ca();
    let service = showing(folder.path(), trusting(folder.path(), &ca), &ca);
    let said = || {
        Services::load(std::slice::from_ref(&service))
            .unwrap_err()
            .to_string()
    };
    std::fs::write(
        folder.path().join("key.pem"),
        leaf(&ca, "other").1.serialize_pem(),
    )
    .unwrap();
    assert!(said().contains("key.pem"), "{}", said());
    std::fs::write(folder.path().join("cert.pem"), "nothing").unwrap();
    assert!(
        said().contains("cert.pem") && said().contains("no certificate"),
        "{}",
        said()
    );
    std::fs::write(folder.path().join("ca.pem"), "nothing").unwrap();
    assert!(said().contains("ca.pem"), "{}", said());
}
