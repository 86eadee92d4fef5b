//! turmoil's network for the real servers and clients.

use std::io;
use std::net::SocketAddr;

use interflow_meta::NodeId;
use interflow_meta::grpc::{Dial, Listen, Token, Wire};
use turmoil::net::{TcpListener, TcpStream};

use crate::NodeAccess;

const PORT: u16 = 7071;

pub(super) fn store(node: NodeId) -> String {
    format!("store-{node}")
}

pub(super) fn gateway(id: u32) -> String {
    format!("gateway-{id}")
}

pub(super) fn address(node: NodeId) -> String {
    format!("{}:{PORT}", store(node))
}

/// Nobody listens on loopback here.
pub(super) fn token() -> Token {
    Token::new("the-token-of-this-simulation").expect("a token")
}

pub(super) fn access() -> NodeAccess {
    let dial = Dial::by(|host, port| async move {
        let stream = TcpStream::connect((host, port)).await?;
        Ok(Box::new(stream) as Box<dyn Wire>)
    });
    NodeAccess { token: Some(token()), tls: None, dial }
}

/// A store's listener.
pub(super) struct Listener(TcpListener);

impl Listener {
    pub(super) async fn bind() -> io::Result<Self> {
        TcpListener::bind(("0.0.0.0", PORT)).await.map(Self)
    }
}

impl Listen for Listener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        self.0.accept().await.map(|(stream, _)| stream)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
