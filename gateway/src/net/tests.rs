//! Real sockets on ports that the system chooses: one echo handler, every transport.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
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

#[tokio::test]
async fn tcp_echoes_and_ends() {
    let mut server = Server::unlimited(TransportSpec::Tcp);
    let mut stream = server.connect().await;
    exchange(&mut stream, b"hello").await;
    assert_eq!(server.event().await, Event::Came(Transport::Tcp));
    drop(stream);
    assert_eq!(server.event().await, Event::Ended(Ok(())));
    server.stop().await;
}

#[tokio::test]
async fn a_close_doesnt_cut_what_was_written() {
    let server = Server::unlimited(TransportSpec::Tcp);
    let mut stream = server.connect().await;
    // More than the handler reads before it closes: a plain close would reset the connection.
    let mut text = vec![b'!'; 200_000];
    text[0] = b'x';
    stream.write_all(&text).await.unwrap();
    let mut answer = [0; 1024];
    stream.read_exact(&mut answer[..1]).await.unwrap();
    assert_eq!(answer[0], b'x');
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("no reset");
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn limits_turn_connections_away() {
    let limits = ConnectionLimits { max_connections: 10, max_per_address: 1 };
    let mut server = Server::start(TransportSpec::Tcp, limits);
    let mut first = server.connect().await;
    exchange(&mut first, b"x").await;
    let mut second = server.connect().await;
    assert!(matches!(second.read(&mut [0]).await, Ok(0) | Err(_)), "closed at once");
    drop(first);
    assert_eq!(server.event().await, Event::Came(Transport::Tcp));
    assert_eq!(server.event().await, Event::Ended(Ok(())));
    // The place is given back as the task ends, a moment after the event.
    loop {
        let mut third = server.connect().await;
        third.write_all(b"y").await.unwrap();
        if let Ok(1) = third.read(&mut [0]).await {
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn shutdown_tells_connections_and_joins_them() {
    let mut server = Server::unlimited(TransportSpec::Tcp);
    let mut stream = server.connect().await;
    exchange(&mut stream, b"x").await;
    server.shutdown.cancel();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    drop(stream);
    assert_eq!(server.event().await, Event::Came(Transport::Tcp));
    assert_eq!(server.event().await, Event::Ended(Ok(())));
    let address = server.address;
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err(), "the port is free");
}

#[tokio::test]
async fn a_connection_that_ignores_shutdown_is_cut_off() {
    struct Deaf;
    #[async_trait]
    impl Handler for Deaf {
        async fn connection(&self, _stream: Stream, _peer: Peer, _shutdown: CancellationToken) {
            std::future::pending().await
        }
    }
    let spec = ListenerSpec {
        name: "test".into(),
        addresses: vec!["127.0.0.1:0".parse().unwrap()],
        transport: TransportSpec::Tcp,
        limits: ConnectionLimits::default(),
    };
    let bound = Bound::bind(spec).unwrap();
    let mut stream = TcpStream::connect(bound.addresses()[0]).await.unwrap();
    let shutdown = CancellationToken::new();
    let serving = bound.serve(Arc::new(Deaf), shutdown.clone(), Duration::ZERO);
    let stop = async {
        shutdown.cancel();
        stream.read(&mut [0]).await
    };
    let ((), read) = tokio::join!(serving, stop);
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Bound::bind(ListenerSpec {
        name: "kafka".into(),
        addresses: vec![address],
        transport: TransportSpec::Tcp,
        limits: ConnectionLimits::default(),
    })
    .unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }));
    let text = format!(
        "listener kafka: TCP port {} of 127.0.0.1 is in use by another process",
        address.port()
    );
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn an_address_of_another_machine_is_named() {
    let bind = |addresses: &[&str]| {
        Bound::bind(ListenerSpec {
            name: "mqtt".into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            transport: TransportSpec::Tcp,
            limits: ConnectionLimits::default(),
        })
    };
    assert!(matches!(bind(&["192.0.2.1:0"]), Err(BindError::NoSuchAddress { .. })));
    assert!(matches!(bind(&[]), Err(BindError::NoAddress { .. })));
    // An IPv6 address that is missing is tolerated beside another, and only there.
    assert_eq!(bind(&["127.0.0.1:0", "[2001:db8::1]:0"]).unwrap().addresses().len(), 1);
    assert!(bind(&["[2001:db8::1]:0"]).is_err());
}

#[tokio::test]
async fn tls_takes_new_certificates_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, client) = tls(folder.path(), &[]);
    let mut server = Server::unlimited(TransportSpec::Tls(Arc::clone(&tls_server)));
    let mut old = connect_tls(&server, &client).await;
    exchange(&mut old, b"hello").await;
    assert_eq!(server.event().await, Event::Came(Transport::Tls));

    std::fs::remove_dir_all(folder.path()).unwrap();
    assert!(matches!(tls_server.reload(), Err(TlsError::File { .. })));
    let mut still_old = connect_tls(&server, &client).await;
    exchange(&mut still_old, b"the old one stays").await;

    let (_, new_client) = tls(folder.path(), &[]);
    tls_server.reload().unwrap();
    let mut new = connect_tls(&server, &new_client).await;
    exchange(&mut new, b"new").await;
    exchange(&mut old, b"open connections go on").await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = "localhost".try_into().unwrap();
    assert!(connector.connect(name, server.connect().await).await.is_err(), "another CA");
    drop((old, still_old, new));
    server.stop().await;
}

#[tokio::test]
async fn tls_with_a_client_ca_refuses_strangers() {
    let folder = tempfile::tempdir().unwrap();
    let (_, client) = tls(folder.path(), &[]);
    let mut files = dev_tls::ensure(folder.path()).unwrap();
    files.server.client_ca = Some(files.ca.clone());
    let server = Server::unlimited(TransportSpec::Tls(Tls::load(files.server).unwrap()));
    // With TLS 1.3 the client learns of it when it reads.
    let mut stream = connect_tls(&server, &client).await;
    assert!(stream.read(&mut [0]).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn garbage_in_a_handshake_ends_that_connection_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, client) = tls(folder.path(), &[]);
    let server = Server::unlimited(TransportSpec::Tls(tls_server));
    let mut garbage = server.connect().await;
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer).await;
    exchange(&mut connect_tls(&server, &client).await, b"fine").await;
    server.stop().await;
}

fn request(
    server: &Server,
    path: &str,
    subprotocol: Option<&str>,
) -> impl IntoClientRequest + Unpin {
    let mut request =
        format!("ws://localhost:{}{path}", server.address.port()).into_client_request().unwrap();
    if let Some(subprotocol) = subprotocol {
        let value = HeaderValue::from_str(subprotocol).unwrap();
        request.headers_mut().insert("sec-websocket-protocol", value);
    }
    request
}

async fn connect_ws(
    server: &Server,
    path: &str,
    subprotocol: Option<&str>,
) -> Result<(WebSocketStream<TcpStream>, Option<String>), Error> {
    let request = request(server, path, subprotocol);
    let (socket, response) =
        tokio_tungstenite::client_async(request, server.connect().await).await?;
    let chosen = response.headers().get("sec-websocket-protocol");
    Ok((socket, chosen.map(|value| value.to_str().unwrap().to_owned())))
}

#[tokio::test]
async fn k1_websocket_carries_a_byte_stream() {
    let mut server = Server::unlimited(TransportSpec::Ws(WebSocketOptions::default()));
    let (mut socket, chosen) = connect_ws(&server, "/mqtt", Some("mqtt")).await.unwrap();
    assert_eq!(chosen.as_deref(), Some("mqtt"));
    assert_eq!(server.event().await, Event::Came(Transport::Ws));
    for part in [&b"he"[..], b"", b"l", b"lo"] {
        socket.send(Message::binary(part.to_vec())).await.unwrap();
    }
    socket.send(Message::Ping("p".into())).await.unwrap();
    let mut echoed = Vec::new();
    let mut ponged = false;
    while echoed.len() < 5 || !ponged {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => echoed.extend_from_slice(&bytes),
            Message::Pong(bytes) => ponged = bytes == "p",
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(echoed, b"hello");
    socket.close(None).await.unwrap();
    assert_eq!(server.event().await, Event::Ended(Ok(())));
    server.stop().await;
}

#[tokio::test]
async fn k1_websocket_speaks_the_old_subprotocol_too() {
    let server = Server::unlimited(TransportSpec::Ws(WebSocketOptions::default()));
    let chosen = |offer| connect_ws(&server, "/mqtt", Some(offer));
    assert_eq!(chosen("mqttv3.1").await.unwrap().1.as_deref(), Some("mqttv3.1"));
    assert_eq!(chosen("mqttv3.1, mqtt").await.unwrap().1.as_deref(), Some("mqtt"));
    server.stop().await;
}

#[tokio::test]
async fn k1_k2_websocket_refuses_by_path_subprotocol_and_origin() {
    let options = WebSocketOptions {
        allowed_origins: Some(Arc::new(["https://example.org".to_owned()])),
        ..WebSocketOptions::default()
    };
    let server = Server::unlimited(TransportSpec::Ws(options));
    let status =
        |path: &'static str, subprotocol: Option<&'static str>, origin: Option<&'static str>| {
            let server = &server;
            async move {
                let mut request = request(server, path, subprotocol).into_client_request().unwrap();
                if let Some(origin) = origin {
                    request.headers_mut().insert("origin", HeaderValue::from_static(origin));
                }
                match tokio_tungstenite::client_async(request, server.connect().await).await {
                    Ok(_) => 101,
                    Err(Error::Http(response)) => response.status().as_u16(),
                    Err(error) => panic!("{error}"),
                }
            }
        };
    assert_eq!(status("/", Some("mqtt"), None).await, 404);
    assert_eq!(status("/mqtt", Some("amqp"), None).await, 400);
    assert_eq!(status("/mqtt", None, None).await, 400);
    assert_eq!(status("/mqtt", Some("mqtt"), Some("https://evil.example")).await, 403);
    assert_eq!(status("/mqtt", Some("mqtt"), Some("https://example.org")).await, 101);
    assert_eq!(status("/mqtt", Some("mqtt"), None).await, 101);
    server.stop().await;
}

#[tokio::test]
async fn k1_websocket_text_and_large_messages_end_the_connection() {
    let options = WebSocketOptions { max_message_bytes: 1000, ..WebSocketOptions::default() };
    let mut server = Server::unlimited(TransportSpec::Ws(options));
    for message in [Message::text("hello"), Message::binary(vec![0; 1001])] {
        let (mut socket, _) = connect_ws(&server, "/mqtt", Some("mqtt")).await.unwrap();
        socket.send(message).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            assert!(matches!(message, Message::Close(_)), "{message:?}");
        }
        assert_eq!(server.event().await, Event::Came(Transport::Ws));
        let Event::Ended(Err(std::io::ErrorKind::InvalidData)) = server.event().await else {
            panic!("it ends with an error")
        };
    }
    server.stop().await;
}

#[tokio::test]
async fn wss_is_websocket_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, client) = tls(folder.path(), &[]);
    let transport = TransportSpec::Wss(WebSocketOptions::default(), tls_server);
    let mut server = Server::unlimited(transport);
    let request = request(&server, "/mqtt", Some("mqtt"));
    let stream = connect_tls(&server, &client).await;
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(server.event().await, Event::Came(Transport::Wss));
    // More than one outgoing frame, and more than the buffers hold.
    let text = vec![b'x'; 300_000];
    let (mut sink, mut source) = socket.split();
    let send = sink.send(Message::binary(text.clone()));
    let receive = async {
        let mut echoed = Vec::new();
        while echoed.len() < text.len() {
            echoed.extend_from_slice(&source.next().await.unwrap().unwrap().into_data());
        }
        echoed
    };
    let (sent, echoed) = tokio::join!(send, receive);
    sent.unwrap();
    assert_eq!(echoed, text);
    socket = sink.reunite(source).unwrap();
    socket.close(None).await.unwrap();
    assert_eq!(server.event().await, Event::Ended(Ok(())));
    server.stop().await;
}

fn quic_client(client: rustls::ClientConfig) -> quinn::Endpoint {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap();
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}

async fn connect_quic(server: &Server, endpoint: &quinn::Endpoint) -> quinn::Connection {
    endpoint.connect(server.address, "localhost").unwrap().await.unwrap()
}

#[tokio::test]
async fn q3_the_first_stream_is_the_control_stream() {
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, client) = tls(folder.path(), &[b"mqtt"]);
    let mut server = Server::unlimited(TransportSpec::Quic(tls_server));
    let endpoint = quic_client(client);
    let connection = connect_quic(&server, &endpoint).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    recv.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
    assert_eq!(server.event().await, Event::Came(Transport::Quic));

    // Q2: many streams may be opened; in this version they are refused one by one.
    for _ in 0..20 {
        let (mut data, mut answers) = connection.open_bi().await.unwrap();
        let _ = data.write_all(b"x").await;
        assert_eq!(data.stopped().await.unwrap(), Some(quinn::VarInt::from_u32(0x83)));
        assert!(answers.read_to_end(9).await.is_err());
        let mut data = connection.open_uni().await.unwrap();
        let _ = data.write_all(b"x").await;
        assert_eq!(data.stopped().await.unwrap(), Some(quinn::VarInt::from_u32(0x83)));
    }

    // The control stream ends, so the connection does.
    send.finish().unwrap();
    let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
        panic!()
    };
    assert_eq!(close.error_code, quinn::VarInt::from_u32(1));
    assert_eq!(server.event().await, Event::Ended(Ok(())));
    server.stop().await;
}

#[tokio::test]
async fn q12_the_last_bytes_come_before_fin_and_close() {
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, client) = tls(folder.path(), &[b"mqtt"]);
    let server = Server::unlimited(TransportSpec::Quic(tls_server));
    let endpoint = quic_client(client);
    let connection = connect_quic(&server, &endpoint).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(b"bye!").await.unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"bye!", "data, then FIN");
    let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
        panic!()
    };
    assert_eq!(close.error_code, quinn::VarInt::from_u32(0));
    assert!(connection.stats().frame_rx.stream >= 2, "FIN has a frame of its own");
    server.stop().await;
}

#[tokio::test]
async fn q12_a_peer_that_is_gone_doesnt_hold_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, client) = tls(folder.path(), &[b"mqtt"]);
    let mut server = Server::unlimited(TransportSpec::Quic(tls_server));
    let endpoint = quic_client(client);
    let connection = connect_quic(&server, &endpoint).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    assert_eq!(server.event().await, Event::Came(Transport::Quic));
    connection.close(quinn::VarInt::from_u32(0), b"");
    let Event::Ended(Err(_)) = server.event().await else { panic!("the stream ends") };
    server.stop().await;
}

#[tokio::test]
async fn q1_a_handshake_without_the_protocol_fails() {
    let folder = tempfile::tempdir().unwrap();
    for alpn in [&[][..], &[&b"h3"[..]]] {
        let (tls_server, client) = tls(folder.path(), alpn);
        let server = Server::unlimited(TransportSpec::Quic(tls_server));
        let connecting = quic_client(client).connect(server.address, "localhost").unwrap();
        assert!(connecting.await.is_err());
        server.stop().await;
    }
}

#[test]
fn throw_away_certificates_are_kept_and_the_key_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let files = dev_tls::ensure(folder.path()).unwrap();
    let before = std::fs::read(&files.ca).unwrap();
    assert_eq!(dev_tls::ensure(folder.path()).unwrap(), files);
    assert_eq!(std::fs::read(&files.ca).unwrap(), before);
    let mode = std::fs::metadata(&files.server.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}
