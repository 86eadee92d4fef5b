//! TCP, limits, shutdown, and ports that can't be taken.

use super::*;

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
