//! The client: a store that is somewhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use interflow_proto::meta_remote as proto;
use prost::Message;
use proto::commit_response;
use proto::question::Kind;
use proto::store_client::StoreClient;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::hub::Hub;
use super::wire::Said;
use super::{MAX_MESSAGE_BYTES, MAX_QUESTIONS, PROTOCOL, wire};
use crate::error::MetaError;
use crate::grpc::{
    Backoff, ClientTls, Credentials, Dial, Gather, Remote, Token, is_refusal, told, was_not_sent,
};
use crate::store::{Commit, Committed, KeyRange, Page, STAMP_BYTES, Snapshot, Store};

/// The generated client, with what goes on each call.
pub(super) type Grpc = StoreClient<InterceptedService<Channel, Credentials>>;

/// A read is tried this often when the connection is lost.
const READ_ATTEMPTS: u32 = 3;

/// Calls with reads at a time.
const READS_AT_ONCE: usize = 4;

/// Where a store is, and how to get in.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// A name or an IP address; one of version 6 stands in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What the server wants to know.
    pub token: Option<Token>,
    /// Speak TLS.
    pub tls: Option<ClientTls>,
    /// Reads are given up after this time.
    pub read_timeout: Duration,
    /// The answer to a commit is given up after this time: it is unknown then.
    pub commit_timeout: Duration,
}

impl RemoteOptions {
    /// The server at `host` and `port`, without token and TLS.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            token: None,
            tls: None,
            read_timeout: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(10),
        }
    }

    fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let Self { host, port, token, tls, .. } = self.clone();
        Remote { host, port, token, tls, dial: Dial::default() }.channel()
    }
}

/// A store served by another process. It connects when it is used, and anew when the connection is
/// lost.
#[derive(Debug)]
pub struct RemoteStore {
    link: Arc<Link>,
}

/// What snapshots and store share.
#[derive(Debug)]
struct Link {
    grpc: Grpc,
    options: RemoteOptions,
    backoff: Arc<Backoff>,
    hub: Arc<Hub>,
    reads: Arc<Gather<proto::Question, Result<Said, MetaError>>>,
    closing: CancellationToken,
    /// Reads and commits on their way, and the hub.
    tasks: TaskTracker,
    /// The server has answered a call, so it takes this client.
    has_answered: AtomicBool,
}

impl RemoteStore {
    /// The store that `options` name, once it has answered.
    ///
    /// # Errors
    /// [`MetaError::Unavailable`]: it can't be reached now. [`MetaError::Refused`]: it doesn't take
    /// this client, by token or protocol; or the options are no address or no certificate.
    pub async fn connect(options: RemoteOptions) -> Result<Self, MetaError> {
        let store = Self::open(options)?;
        store.snapshot().await?;
        Ok(store)
    }

    /// The store that `options` name, whether it can be reached or not. Belongs to the runtime that
    /// it is called on.
    ///
    /// # Errors
    /// [`MetaError::Refused`]: the options are no address or no certificate.
    pub fn open(options: RemoteOptions) -> Result<Self, MetaError> {
        let channel = options.channel().map_err(|error| {
            MetaError::Refused(format!("the server's address or certificate: {}", told(&error)))
        })?;
        let credentials = Credentials::new(PROTOCOL, options.token.as_ref());
        let grpc = StoreClient::with_interceptor(channel, credentials)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (backoff, hub) = (Arc::new(Backoff::default()), Arc::new(Hub::default()));
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        // The hub waits on its own: that a stream ends says nothing about calls.
        let pauses = Arc::new(Backoff::default());
        tasks.spawn(Arc::clone(&hub).run(grpc.clone(), pauses, closing.clone()));
        let has_answered = AtomicBool::new(false);
        let reads = Gather::new(MAX_QUESTIONS, READS_AT_ONCE);
        let link = Link { grpc, options, backoff, hub, reads, closing, tasks, has_answered };
        Ok(Self { link: Arc::new(link) })
    }
}

impl Drop for RemoteStore {
    fn drop(&mut self) {
        self.link.closing.cancel();
    }
}

/// A call that failed below the store.
enum Lost {
    /// The server took it and refused: it had no effect.
    Refused(MetaError),
    /// It was never sent.
    NotSent(Status),
    /// It may have arrived.
    Maybe(Status),
}

impl Link {
    /// Tells what became of a call, and the backoff whether the server can be reached.
    fn settle<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Lost> {
        let status = match answer {
            Ok(answer) => {
                self.backoff.worked();
                self.has_answered.store(true, Ordering::Relaxed);
                return Ok(answer.into_inner());
            }
            Err(status) => status,
        };
        if is_refusal(&status) {
            return Err(Lost::Refused(MetaError::Refused(status.message().to_owned())));
        }
        if was_not_sent(&status) {
            self.backoff.failed();
            return Err(Lost::NotSent(status));
        }
        Err(Lost::Maybe(status))
    }

    /// What may be the matter with a server that was reached and has never answered: if it doesn't take
    /// the client, all that is seen of that is a connection that ends.
    fn doubt(&self) -> &'static str {
        match &self.options.tls {
            _ if self.has_answered.load(Ordering::Relaxed) => "",
            None => ": does it speak TLS?",
            Some(ClientTls { identity_pem: None, .. }) => ": does it demand a certificate?",
            Some(_) => ": does it take the certificate that it is shown?",
        }
    }

    /// The answer to a question, which goes with those that are asked at the same time.
    async fn ask(self: &Arc<Self>, kind: Kind) -> Result<Said, MetaError> {
        let link = Arc::clone(self);
        let call = move |questions: Vec<proto::Question>| {
            let link = Arc::clone(&link);
            async move { link.read_all(questions).await }
        };
        let spawn = |calls| {
            let closing = self.closing.clone();
            self.tasks.spawn(async move { closing.run_until_cancelled(calls).await });
        };
        let asking = self.reads.ask(spawn, proto::Question { kind: Some(kind) }, call);
        match tokio::time::timeout(self.options.read_timeout, asking).await {
            Ok(Some(said)) => said,
            Ok(None) => Err(unavailable("the metadata store is closed")),
            Err(_) => Err(silent()),
        }
    }

    /// The answers to all, by as many calls as they need.
    async fn read_all(&self, questions: Vec<proto::Question>) -> Vec<Result<Said, MetaError>> {
        let (count, mut request) = (questions.len(), proto::ReadRequest { questions });
        let mut said = Vec::with_capacity(count);
        while !request.questions.is_empty() {
            let unsaid = match self.read(&request).await {
                Ok(answer) if (1..=request.questions.len()).contains(&answer.results.len()) => {
                    request.questions.drain(..answer.results.len());
                    said.extend(answer.results.into_iter().map(wire::result));
                    continue;
                }
                Ok(_) => wire::not_understood(),
                Err(error) => error,
            };
            said.resize_with(count, || Err(unsaid.clone()));
            break;
        }
        said
    }

    /// Makes a call, again if the connection was lost.
    async fn read(&self, request: &proto::ReadRequest) -> Result<proto::ReadResponse, MetaError> {
        let attempts = async {
            let mut attempt = 1;
            loop {
                self.backoff.ready().await;
                match self.settle(self.grpc.clone().read(request.clone()).await) {
                    Ok(answer) => return Ok(answer),
                    Err(Lost::Refused(error)) => return Err(error),
                    Err(Lost::NotSent(status)) if attempt == READ_ATTEMPTS => {
                        return Err(unavailable(&told(&status)));
                    }
                    Err(Lost::Maybe(status)) if attempt == READ_ATTEMPTS => {
                        return Err(unavailable(&format!("{}{}", told(&status), self.doubt())));
                    }
                    Err(Lost::NotSent(_) | Lost::Maybe(_)) => {}
                }
                attempt += 1;
            }
        };
        tokio::time::timeout(self.options.read_timeout, attempts)
            .await
            .unwrap_or_else(|_| Err(silent()))
    }

    /// Makes a commit, once.
    async fn commit(&self, request: proto::CommitRequest) -> Result<Committed, MetaError> {
        self.backoff.ready().await;
        let mut grpc = self.grpc.clone();
        let answer = tokio::time::timeout(self.options.commit_timeout, grpc.commit(request)).await;
        // Sent or not, nobody knows.
        let Ok(answer) = answer else { return Err(MetaError::CommitUnknown) };
        match self.settle(answer) {
            Ok(answer) => match answer.result {
                Some(commit_response::Result::Committed(committed)) => {
                    wire::committed(&committed).ok_or(MetaError::CommitUnknown)
                }
                Some(commit_response::Result::Error(error)) => {
                    Err(wire::error(error).unwrap_or(MetaError::CommitUnknown))
                }
                None => Err(MetaError::CommitUnknown),
            },
            Err(Lost::Refused(error)) => Err(error),
            Err(Lost::NotSent(status)) => Err(unavailable(&told(&status))),
            Err(Lost::Maybe(status)) => {
                tracing::debug!(%status, "a commit's answer was lost");
                Err(MetaError::CommitUnknown)
            }
        }
    }
}

fn silent() -> MetaError {
    unavailable("the server doesn't answer")
}

fn unavailable(why: &str) -> MetaError {
    MetaError::Unavailable(why.to_owned())
}

#[async_trait]
impl Store for RemoteStore {
    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, MetaError> {
        match self.link.ask(Kind::Newest(proto::Newest {})).await? {
            Said::View(view) => Ok(Arc::new(RemoteSnapshot { link: Arc::clone(&self.link), view })),
            _ => Err(wire::not_understood()),
        }
    }

    async fn close(&self) {
        self.link.closing.cancel();
        self.link.tasks.close();
        self.link.tasks.wait().await;
    }
}

/// A version that the server keeps for a while.
#[derive(Debug)]
struct RemoteSnapshot {
    link: Arc<Link>,
    view: proto::View,
}

#[async_trait]
impl Snapshot for RemoteSnapshot {
    fn version(&self) -> u64 {
        self.view.version
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        let get = proto::Get { view: Some(self.view), key: Bytes::copy_from_slice(key) };
        match self.link.ask(Kind::Get(get)).await? {
            Said::Value(value) => Ok(value),
            _ => Err(wire::not_understood()),
        }
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        rows: usize,
        bytes: usize,
        reverse: bool,
    ) -> Result<Page, MetaError> {
        let get = proto::GetRange {
            view: Some(self.view),
            range: Some(wire::range_message(range.clone())),
            rows: u64::try_from(rows).unwrap_or(u64::MAX),
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            reverse,
        };
        match self.link.ask(Kind::GetRange(get)).await? {
            Said::Page(page) => Ok(page),
            _ => Err(wire::not_understood()),
        }
    }

    async fn commit(&self, mut commit: Commit) -> Result<Committed, MetaError> {
        if self.link.closing.is_cancelled() {
            return Err(unavailable("the metadata store is closed"));
        }
        let watches = std::mem::take(&mut commit.watches);
        self.link.hub.check_room(&watches)?;
        if commit.mutations.is_empty() && commit.writes.is_empty() {
            self.link.hub.add(watches);
            return Ok(Committed { version: self.view.version, stamp: [0xff; STAMP_BYTES] });
        }
        let request = wire::commit_message(self.view, commit);
        let bytes = request.encoded_len();
        if bytes > MAX_MESSAGE_BYTES {
            return Err(MetaError::TransactionTooLarge(bytes));
        }
        let link = Arc::clone(&self.link);
        // In a task of its own: it goes on when the caller has given up waiting.
        let committing = self.link.tasks.spawn(async move {
            let committed = link.commit(request).await?;
            link.hub.add(watches);
            Ok(committed)
        });
        committing.await.unwrap_or(Err(MetaError::CommitUnknown))
    }
}
