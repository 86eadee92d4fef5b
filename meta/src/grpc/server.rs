//! The server's side of connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::access::Token;
use super::incoming::{Listen, connections};

/// A TLS handshake takes no longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that doesn't answer a ping for this long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long clients get at shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// A certificate and who must show one, in PEM.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The certificate chain.
    pub cert_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
    /// CAs of which every client must show a certificate; `None` asks for none.
    pub client_ca_pem: Option<Vec<u8>>,
}

/// Who is served.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Every client must know it.
    pub token: Option<Token>,
    /// Speak TLS.
    pub tls: Option<ServerTls>,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anybody could read and change everything.
    #[error(
        "serving on {0} needs a token, or TLS with a CA of client certificates: anybody there \
         could change everything"
    )]
    OpenToAnybody(SocketAddr),
    /// The listener's own.
    #[error("the listener failed: {0}")]
    Io(#[from] std::io::Error),
    /// A bad certificate, or the transport's own.
    #[error("cannot serve: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl ServeOptions {
    /// A server on `address` may start: it is on loopback, or everybody who gets in is
    /// authenticated.
    ///
    /// # Errors
    /// [`ServeError::OpenToAnybody`].
    pub fn check(&self, address: SocketAddr) -> Result<(), ServeError> {
        let asks = self.tls.as_ref().is_some_and(|tls| tls.client_ca_pem.is_some());
        if address.ip().is_loopback() || self.token.is_some() || asks {
            return Ok(());
        }
        Err(ServeError::OpenToAnybody(address))
    }
}

/// A server without services, with the windows and pings that all have; calls take `call_timeout`
/// at most, up to the head of their answer.
///
/// # Errors
/// [`ServeError::OpenToAnybody`] when `listener` is not on loopback and nobody is authenticated; a
/// bad certificate.
pub fn server(
    listener: &impl Listen,
    options: &ServeOptions,
    call_timeout: Duration,
) -> Result<Server, ServeError> {
    options.check(listener.local_addr()?)?;
    let server = Server::builder()
        .timeout(call_timeout)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(32 << 20)
        .max_frame_size(256 << 10)
        .max_concurrent_streams(1_024)
        .http2_max_header_list_size(16 << 10)
        .http2_keepalive_interval(Some(PING_TIMEOUT))
        .http2_keepalive_timeout(Some(PING_TIMEOUT));
    let Some(tls) = &options.tls else { return Ok(server) };
    let mut config = ServerTlsConfig::new()
        .identity(Identity::from_pem(&tls.cert_pem, &tls.key_pem))
        .timeout(HANDSHAKE_TIMEOUT);
    if let Some(ca) = &tls.client_ca_pem {
        config = config.client_ca_root(Certificate::from_pem(ca));
    }
    Ok(server.tls_config(config)?)
}

/// Serves `router` on `listener` until `closing`; then tells clients and waits a little.
///
/// # Errors
/// The transport's own.
pub async fn run(
    router: Router,
    listener: impl Listen,
    closing: CancellationToken,
) -> Result<(), ServeError> {
    let ended = closing.clone();
    let serving = router.serve_with_incoming_shutdown(connections(listener), async move {
        ended.cancelled().await
    });
    tokio::select! {
        served = serving => served?,
        () = async { closing.cancelled().await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("not all clients left in time");
        }
    }
    Ok(())
}
