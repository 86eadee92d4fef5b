//! QUIC: one control stream a connection.

use super::*;

pub(super) fn quic_client(client: rustls::ClientConfig) -> quinn::Endpoint {
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
