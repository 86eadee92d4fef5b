//! A small blocking Kafka client for the tools.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// The largest answer that the tools read.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// One connection; requests are answered one at a time.
pub(crate) struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Connects to `address` (`host:port`), trying each address of the name.
    pub(crate) fn connect(address: &str) -> anyhow::Result<Self> {
        let timeout = Duration::from_secs(10);
        let mut last = None;
        let targets = address
            .to_socket_addrs()
            .with_context(|| format!("{address} is not an address (want HOST:PORT)"))?;
        for target in targets {
            match TcpStream::connect_timeout(&target, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                    return Ok(Self { stream, correlation_id: 0 });
                }
                Err(error) => last = Some(error),
            }
        }
        let error = last.map_or_else(|| "no such host".to_owned(), |error| error.to_string());
        bail!("cannot connect to {address}: {error} (is interflow running? see --bootstrap)")
    }

    /// Logs in by SASL/PLAIN.
    pub(crate) fn authenticate(&mut self, user: &str, password: &str) -> anyhow::Result<()> {
        let mechanism = StrBytes::from_static_str("PLAIN");
        self.call(1, &SaslHandshakeRequest::default().with_mechanism(mechanism))?;
        let token = Bytes::from(format!("\0{user}\0{password}"));
        let answer = self.call(1, &SaslAuthenticateRequest::default().with_auth_bytes(token))?;
        if answer.error_code != 0 {
            let why = answer.error_message.map(|m| m.to_string()).unwrap_or_default();
            bail!("authentication as {user} failed: {why}");
        }
        Ok(())
    }

    /// Sends one request at `version` and reads its answer.
    pub(crate) fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> anyhow::Result<R::Response> {
        self.correlation_id += 1;
        let api = ApiKey::try_from(R::KEY).map_err(|()| anyhow::anyhow!("unknown API"))?;
        let mut frame = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("interflow")))
            .encode(&mut frame, R::header_version(version))?;
        request.encode(&mut frame, version)?;
        self.stream.write_all(&u32::try_from(frame.len())?.to_be_bytes())?;
        self.stream.write_all(&frame)?;
        let mut answer = self.read_frame().with_context(|| format!("{api:?} was not answered"))?;
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))?;
        if header.correlation_id != self.correlation_id {
            bail!("the answer belongs to another request");
        }
        R::Response::decode(&mut answer, version)
    }

    fn read_frame(&mut self) -> anyhow::Result<Bytes> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = usize::try_from(u32::from_be_bytes(size))?;
        if size > MAX_ANSWER_BYTES {
            bail!("an answer of {size} bytes is too large");
        }
        let mut frame = vec![0; size];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }
}

/// A Kafka error code as an error, `Ok` for 0.
pub(crate) fn check(code: i16, what: &str, message: Option<&str>) -> anyhow::Result<()> {
    match kafka_protocol::ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => match message {
            Some(message) => bail!("{what}: {message} ({error:?})"),
            None => bail!("{what}: {error:?}"),
        },
    }
}
