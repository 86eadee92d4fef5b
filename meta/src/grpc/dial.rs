//! How a client's connections are made.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::{Service, http::Uri};

/// A connection.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send>>;

/// How connections are made: by TCP, or as a simulated network has it.
#[derive(Clone, Default)]
pub struct Dial(pub(super) Option<Dialler>);

/// Makes connections to a host and a port.
#[derive(Clone)]
pub(super) struct Dialler(Arc<dyn Fn(String, u16) -> Dialling + Send + Sync>);

impl Dial {
    /// Calls `dial` with a host and a port for each connection.
    pub fn by<F>(dial: impl Fn(String, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Box<dyn Wire>>> + Send + 'static,
    {
        Self(Some(Dialler(Arc::new(move |host, port| Box::pin(dial(host, port))))))
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Dial(simulated)" } else { "Dial(TCP)" })
    }
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<Box<dyn Wire>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().to_owned();
        let dialling = uri.port_u16().map(|port| (self.0)(host, port));
        Box::pin(async move {
            let no_port = || io::Error::new(io::ErrorKind::InvalidInput, "an address has a port");
            Ok(TokioIo::new(dialling.ok_or_else(no_port)?.await?))
        })
    }
}
