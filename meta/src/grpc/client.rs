//! The client's side of a connection.

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Status};

use super::access::Token;
use super::dial::Dial;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A server that doesn't answer a ping for this long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Whom to trust, and what to show, in PEM.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// CAs of the server's certificate.
    pub ca_pem: Vec<u8>,
    /// The own certificate and its key, for servers that demand one.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
}

/// Where a server is, and how to get in.
#[derive(Clone, Debug)]
pub struct Remote {
    /// A name or an IP address; one of version 6 stands in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What the server wants to know.
    pub token: Option<Token>,
    /// Speak TLS.
    pub tls: Option<ClientTls>,
    /// By what connections are made.
    pub dial: Dial,
}

impl Remote {
    /// A connection that is made when it is used, and anew when it was lost.
    ///
    /// # Errors
    /// The address or the certificates are none.
    pub fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        // Never the adaptive window: it sets the windows back to 64 KiB.
        let mut endpoint =
            Endpoint::from_shared(format!("{scheme}://{}:{}", self.host, self.port))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .initial_stream_window_size(8 << 20)
                .initial_connection_window_size(32 << 20)
                .max_frame_size(256 << 10)
                .http2_keep_alive_interval(PING_TIMEOUT)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true);
        if let Some(tls) = &self.tls {
            let mut config =
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
            if let Some((cert, key)) = &tls.identity_pem {
                config = config.identity(Identity::from_pem(cert, key));
            }
            endpoint = endpoint.tls_config(config)?;
        }
        Ok(match &self.dial.0 {
            None => endpoint.connect_lazy(),
            Some(dialler) => endpoint.connect_with_connector_lazy(dialler.clone()),
        })
    }
}

/// The server took the call and refused the caller: asking again changes nothing.
#[must_use]
pub fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::Unimplemented
    )
}

/// The connection could not be made, so nothing was sent on it.
#[must_use]
pub fn was_not_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// An error with its causes, for people.
#[must_use]
pub fn told(error: &(dyn std::error::Error + 'static)) -> String {
    // What it is to a program, and its causes once more, are of no use.
    let own = error.downcast_ref::<Status>().map(|status| status.message().to_owned());
    let mut text = own.unwrap_or_else(|| error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
