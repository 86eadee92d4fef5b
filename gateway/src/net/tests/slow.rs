//! Peers that don't get through a handshake. The clock is paused: it jumps when all wait.

use tokio::time::{Instant, sleep};

use super::*;

/// How long a peer is kept that says `beginning`, and then a byte a second or nothing, in seconds.
async fn kept(transport: TransportSpec, beginning: &[u8], trickles: bool) -> u64 {
    let server = Server::unlimited(transport);
    let mut stream = server.connect().await;
    let began = Instant::now();
    stream.write_all(beginning).await.unwrap();
    if trickles {
        for _ in 0..60 {
            if stream.write_all(b"x").await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
    } else {
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
    }
    let kept = began.elapsed().as_secs();
    server.stop().await;
    kept
}

#[tokio::test(start_paused = true)]
async fn a_tls_handshake_that_does_not_go_on_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, _) = tls(folder.path(), &[]);
    let transport = || TransportSpec::Tls(Arc::clone(&tls_server));
    // A ClientHello of 508 bytes that begins.
    let hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc";
    assert_eq!(kept(transport(), b"", false).await, 10);
    assert_eq!(kept(transport(), hello, false).await, 10);
    assert!((10..=12).contains(&kept(transport(), hello, true).await));
}

#[tokio::test(start_paused = true)]
async fn a_websocket_handshake_that_does_not_go_on_is_given_up() {
    let transport = || TransportSpec::Ws(WebSocketOptions::default());
    let request = b"GET /mqtt HTTP/1.1\r\nHost: ";
    assert_eq!(kept(transport(), b"", false).await, 10);
    assert_eq!(kept(transport(), request, false).await, 10);
    assert!((10..=12).contains(&kept(transport(), request, true).await));
}

#[tokio::test(start_paused = true)]
async fn a_quic_handshake_that_does_not_go_on_gives_its_place_back() {
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, client) = tls(folder.path(), &[b"mqtt"]);
    let limits = ConnectionLimits { max_connections: 1, max_per_address: 1 };
    let server = Server::start(TransportSpec::Quic(tls_server), limits);
    let endpoint = quic::quic_client(client);

    // The first packet of a client that hears nothing of the answers.
    let deaf = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let connecting = endpoint.connect(deaf.local_addr().unwrap(), "localhost").unwrap();
    let mut first = [0; 2000];
    let (len, _) = deaf.recv_from(&mut first).await.unwrap();
    deaf.send_to(&first[..len], server.address).await.unwrap();
    // It was taken: it is answered.
    deaf.recv_from(&mut first).await.unwrap();
    let began = Instant::now();
    drop(connecting);

    let connect = || async { endpoint.connect(server.address, "localhost").unwrap().await };
    assert!(connect().await.is_err(), "the only place is taken");
    while connect().await.is_err() {
        assert!(began.elapsed().as_secs() < 15);
        sleep(Duration::from_secs(1)).await;
    }
    server.stop().await;
}
