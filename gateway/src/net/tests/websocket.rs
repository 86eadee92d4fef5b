//! WebSocket, plain and over TLS.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;

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
