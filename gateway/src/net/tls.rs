//! TLS settings from PEM files, replaced while connections go on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::quic;

/// The files that a listener's TLS is made of, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain.
    pub certificates: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// With it, clients must show a certificate that one of these signed.
    pub client_ca: Option<PathBuf>,
}

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or holds no PEM of the kind.
    #[error("cannot read {what} from {}: {source}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate, key or client CA can't be used.
    #[error("cannot use the certificate {}: {source}", path.display())]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A listener's TLS: what new connections use is replaced by [`Tls::reload`].
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<Configs>,
}

struct Configs {
    tcp: Arc<ServerConfig>,
    quic: Arc<quinn::ServerConfig>,
}

impl std::fmt::Debug for Configs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Configs")
    }
}

impl Tls {
    /// Reads `files`.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(Configs::load(&files)?);
        Ok(Arc::new(Self { files, current }))
    }

    /// Reads the files again. Open connections keep what they have.
    ///
    /// # Errors
    /// See [`TlsError`]: then new connections go on with the old certificate.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(Configs::load(&self.files)?));
        Ok(())
    }

    /// The files.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    pub(crate) fn quic_config(&self) -> Arc<quinn::ServerConfig> {
        Arc::clone(&self.current.load().quic)
    }
}

impl Configs {
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let tcp = server_config(files, rustls::ALL_VERSIONS)?;
        let mut quic = server_config(files, &[&version::TLS13])?;
        quic.alpn_protocols = vec![quic::ALPN.to_vec()];
        let crypto = QuicServerConfig::try_from(quic).map_err(|_| TlsError::Unusable {
            path: files.certificates.clone(),
            source: rustls::Error::General("no cipher suite for QUIC's first packets".into()),
        })?;
        Ok(Self { tcp: Arc::new(tcp), quic: Arc::new(quic::server_config(Arc::new(crypto))) })
    }
}

fn server_config(
    files: &TlsFiles,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<ServerConfig, TlsError> {
    let unusable = |source| TlsError::Unusable { path: files.certificates.clone(), source };
    let chain = certificates(&files.certificates)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::File {
        what: "a private key",
        path: files.key.clone(),
        source,
    })?;
    // Named, so that no other crate's default can get in its way.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(unusable)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(unusable)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|error| unusable(rustls::Error::General(error.to_string())))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(unusable)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::File { what: "certificates", path: path.to_owned(), source };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(error)?;
    if chain.is_empty() {
        return Err(error(rustls_pki_types::pem::Error::NoItemsFound));
    }
    Ok(chain)
}

/// The server's side of a TLS handshake.
pub(crate) async fn accept(tls: &Tls, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let config = Arc::clone(&tls.current.load().tcp);
    TlsAcceptor::from(config).accept(socket).await
}

/// Reads the files of `all` again at each SIGHUP, until `shutdown`.
///
/// # Errors
/// The signal can't be listened for.
pub async fn reload_on_hangup(all: Vec<Arc<Tls>>, shutdown: CancellationToken) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            received = hangups.recv() => if received.is_none() { return Ok(()) },
        }
        for tls in &all {
            let file = tls.files.certificates.display();
            match tls.reload() {
                Ok(()) => tracing::info!(%file, "certificate loaded again"),
                Err(error) => tracing::error!(%error, "certificate not loaded: the old one stays"),
            }
        }
    }
}
