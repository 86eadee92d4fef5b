//! A server over a pipe and a client that speaks kafka-protocol to it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use interflow_meta::{EmbeddedStore, Env, Meta, NodeId};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::data::fake::FakeLogs;
use super::{Deps, Endpoint, KafkaConfig, Server};
use crate::auth::{Authenticator, Principal, Refused};
use crate::cluster::{FixedGateways, Gateways};
use crate::net::{Peer, Stream, Transport};
use crate::topics::{Topics, TopicsOptions};

/// One user, `u` with the password `p`, or nobody.
pub(super) struct OneUser(pub(super) bool);

#[async_trait]
impl Authenticator for OneUser {
    fn is_required(&self) -> bool {
        self.0
    }

    async fn verify(
        &self,
        user: Option<&str>,
        password: Option<&[u8]>,
        _: &Peer,
    ) -> Result<Principal, Refused> {
        match (self.0, user, password) {
            (false, ..) => Ok(Principal::anonymous()),
            (true, Some("u"), Some(b"p")) => Ok(Principal("u".into())),
            _ => Err(Refused::BadCredentials),
        }
    }
}

/// A server and what is below it.
pub(super) struct Bench {
    pub(super) server: Arc<Server>,
    pub(super) logs: Arc<FakeLogs>,
    pub(super) topics: Arc<Topics>,
    pub(super) shutdown: CancellationToken,
}

pub(super) fn config() -> KafkaConfig {
    KafkaConfig { group_initial_rebalance_delay_ms: 0, ..KafkaConfig::default() }
}

pub(super) fn new_meta() -> Meta {
    let env = Env::default();
    let store = EmbeddedStore::in_memory(env.clone()).expect("opens");
    Meta::new(Arc::new(store), env, "test")
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(config(), false).await
    }

    pub(super) async fn with(config: KafkaConfig, users: bool) -> Self {
        Self::over(new_meta(), config, users).await
    }

    pub(super) async fn over(meta: Meta, config: KafkaConfig, users: bool) -> Self {
        let gateways = FixedGateways::alone(NodeId(1), 1);
        Self::among(gateways, meta, FakeLogs::new(0..200), config, users).await
    }

    /// One of several gateways over the same meta and the same logs.
    pub(super) async fn among(
        gateways: Arc<dyn Gateways>,
        meta: Meta,
        logs: Arc<FakeLogs>,
        config: KafkaConfig,
        users: bool,
    ) -> Self {
        let shutdown = CancellationToken::new();
        let (topics, _) = Topics::start(
            meta.clone(),
            logs.clone(),
            TopicsOptions { max_partitions: 200, ..TopicsOptions::default() },
            shutdown.clone(),
        )
        .await
        .expect("starts");
        let deps = Deps {
            meta,
            topics: topics.clone(),
            logs: logs.clone(),
            auth: Arc::new(OneUser(users)),
            cluster_id: Uuid::from_u128(7),
            gateways,
            config,
        };
        let server = Server::start(deps, shutdown.clone()).await.expect("starts");
        server.advertise("inside", Endpoint { host: "inside.example".into(), port: 1 });
        server.advertise("outside", Endpoint { host: "outside.example".into(), port: 2 });
        Self { server, logs, topics, shutdown }
    }

    pub(super) fn connect(&self) -> Client {
        self.connect_to("inside")
    }

    pub(super) fn connect_to(&self, listener: &str) -> Client {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let peer = Peer {
            address: "127.0.0.1:50000".parse().expect("an address"),
            listener: listener.into(),
            transport: Transport::Tcp,
        };
        let server = self.server.clone();
        tokio::spawn(async move { server.serve(Stream::Pipe(theirs), peer).await });
        Client { stream: ours, next: 0 }
    }
}

/// A client.
pub(super) struct Client {
    pub(super) stream: DuplexStream,
    next: i32,
}

impl Client {
    /// Sends a request; the correlation id comes back.
    pub(super) async fn send<Q: Request>(&mut self, version: i16, request: &Q) -> i32 {
        self.next += 1;
        let frame = frame_of(self.next, version, request);
        self.stream.write_all(&frame).await.expect("sent");
        self.next
    }

    /// The next answer, its size and correlation id taken off.
    pub(super) async fn frame(&mut self) -> Option<(i32, Bytes)> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).await.ok()?;
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(size)).expect("a size")];
        self.stream.read_exact(&mut body).await.ok()?;
        let mut body = Bytes::from(body);
        Some((body.get_i32(), body))
    }

    /// The answer to a request that was sent.
    pub(super) async fn receive<Q: Request>(&mut self, version: i16) -> (i32, Q::Response) {
        let (id, body) = self.frame().await.expect("an answer");
        let mut whole = BytesMut::new();
        whole.put_i32(id);
        whole.put_slice(&body);
        let mut whole = whole.freeze();
        let header_version = <Q::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut whole, header_version).expect("a header");
        let answer = Q::Response::decode(&mut whole, version).expect("a response");
        assert!(whole.is_empty(), "bytes behind the response");
        (header.correlation_id, answer)
    }

    /// Sends a request and takes its answer.
    pub(super) async fn ask<Q: Request>(&mut self, version: i16, request: &Q) -> Q::Response {
        let sent = self.send(version, request).await;
        let (id, answer) = self.receive::<Q>(version).await;
        assert_eq!(id, sent);
        answer
    }

    /// Whether the server has closed the connection without another byte.
    pub(super) async fn closes(mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.expect("reads");
        rest.is_empty()
    }
}

/// A request as it is sent.
pub(super) fn frame_of<Q: Request>(id: i32, version: i16, request: &Q) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(id)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let api = ApiKey::try_from(Q::KEY).expect("an API");
    let mut body = BytesMut::new();
    header.encode(&mut body, api.request_header_version(version)).expect("a header");
    request.encode(&mut body, version).expect("a request");
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(body.len()).expect("small"));
    frame.put_slice(&body);
    frame.freeze()
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
