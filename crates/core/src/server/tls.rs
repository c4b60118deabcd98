//! TLS for a listener: certificate, key, and the authority of its clients where it asks for theirs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{Error, RootCertStore};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::InferError;

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Files in PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsOptions {
    /// The server's certificate, then those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities; a client must have a certificate of one of them. None = any client.
    #[serde(default)]
    pub client_roots: Option<PathBuf>,
}

/// Accepts TLS on a listener's connections.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files; `protocols` are the names for ALPN, best first.
    pub(crate) fn new(options: &TlsOptions, protocols: &[&str]) -> Result<Self, InferError> {
        let provider = Arc::new(ring::default_provider());
        let certificates = certificates(&options.cert, "TLS certificate")?;
        let key = PrivateKeyDer::from_pem_file(&options.key);
        let key = key.map_err(|fault| unreadable("TLS key", &options.key, "private key", &fault))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|fault| refused("TLS", &fault))?;
        let builder = match &options.client_roots {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in self::certificates(path, "TLS root certificate")? {
                    roots.add(certificate).map_err(|fault| refused(&shown("TLS root certificate", path), &fault))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let named = |fault| refused(&shown("TLS root certificate", path), &fault);
                builder.with_client_cert_verifier(verifier.map_err(named)?)
            }
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(|fault| pair_refused(options, &fault))?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// A connection after its handshake; none if that fails or takes too long, which is the client's fault.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        timeout(HANDSHAKE_TIME, self.acceptor.accept(stream)).await.ok()?.ok()
    }
}

/// The protocol that both sides chose.
pub(crate) fn protocol(stream: &TlsStream<TcpStream>) -> Option<&[u8]> {
    stream.get_ref().1.alpn_protocol()
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, InferError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(unreadable(what, path, "certificate", &pem::Error::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(fault) => Err(unreadable(what, path, "certificate", &fault)),
    }
}

fn shown(what: &str, path: &Path) -> String {
    format!("{what} '{}'", path.display())
}

fn unreadable(what: &str, path: &Path, kind: &str, fault: &pem::Error) -> InferError {
    let shown = shown(what, path);
    InferError::InvalidArgument(match fault {
        pem::Error::Io(fault) => format!("{shown} cannot be read: {fault}"),
        pem::Error::NoItemsFound => {
            format!("{shown} holds no {kind} in PEM: expected a block that begins with '-----BEGIN …'")
        }
        fault => format!("{shown} is no PEM file: {fault}"),
    })
}

fn refused(what: &str, fault: &impl std::fmt::Display) -> InferError {
    InferError::InvalidArgument(format!("{what}: {fault}"))
}

fn pair_refused(options: &TlsOptions, fault: &Error) -> InferError {
    let key = shown("TLS key", &options.key);
    InferError::InvalidArgument(match fault {
        Error::InconsistentKeys(_) => {
            format!(
                "{key} does not belong to {}: give the key that the certificate was made for",
                shown("certificate", &options.cert)
            )
        }
        fault => format!("{key} or {} cannot be used: {fault}", shown("certificate", &options.cert)),
    })
}
