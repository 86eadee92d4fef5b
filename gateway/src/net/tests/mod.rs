//! Real sockets on ports that the system chooses: one echo handler, every transport.

mod quic;
mod slow;
mod tcp;
mod tls;
mod websocket;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

/// Sends back what comes; after a `!` it closes. Tells who came and how it ended.
struct Echo {
    events: mpsc::UnboundedSender<Event>,
}

#[derive(Debug, PartialEq)]
enum Event {
    Came(Transport),
    Ended(Result<(), std::io::ErrorKind>),
}

#[async_trait]
impl Handler for Echo {
    async fn connection(&self, mut stream: Stream, peer: Peer, shutdown: CancellationToken) {
        self.events.send(Event::Came(peer.transport)).unwrap();
        let ended = tokio::select! {
            ended = echo(&mut stream) => ended.map_err(|error| error.kind()),
            () = shutdown.cancelled() => Ok(()),
        };
        close(stream).await;
        self.events.send(Event::Ended(ended)).unwrap();
    }
}

async fn echo(stream: &mut Stream) -> std::io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        stream.write_all(&buffer[..read]).await?;
        stream.flush().await?;
        if read == 0 || buffer[..read].contains(&b'!') {
            return Ok(());
        }
    }
}

/// A listener that serves until it is told to stop.
struct Server {
    address: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    fn start(transport: TransportSpec, limits: ConnectionLimits) -> Self {
        let addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let bound = Bound::bind(ListenerSpec { name: "test".into(), addresses, transport, limits })
            .unwrap();
        let address = bound.addresses()[0];
        let (sender, events) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let handler = Arc::new(Echo { events: sender });
        let serving = tokio::spawn(bound.serve(handler, shutdown.clone(), Duration::from_secs(30)));
        Self { address, events, shutdown, serving }
    }

    fn unlimited(transport: TransportSpec) -> Self {
        Self::start(transport, ConnectionLimits::default())
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
    }
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &[u8]) {
    stream.write_all(text).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, text);
}

/// The server's TLS, and a client's that trusts it and proposes `alpn`.
fn tls(folder: &Path, alpn: &[&[u8]]) -> (Arc<Tls>, rustls::ClientConfig) {
    let files = dev_tls::ensure(folder).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    (Tls::load(files.server).unwrap(), client)
}

async fn connect_tls(
    server: &Server,
    client: &rustls::ClientConfig,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client.clone()));
    let name = "localhost".try_into().unwrap();
    connector.connect(name, server.connect().await).await.unwrap()
}
