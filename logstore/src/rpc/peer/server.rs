//! What a node does for the others.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::future::join_all;
use interflow_meta::NodeId;
use interflow_meta::grpc::{Gate, Token};
use interflow_proto::peer as proto;
use parking_lot::Mutex;
use proto::peer_server::{Peer, PeerServer as Grpc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use super::{PROTOCOL, wire};
use crate::LogStore;
use crate::core::replication::Reply;
use crate::core::segment::Life;
use crate::peers::{Checked, Replies};
use crate::rpc::MAX_MESSAGE_BYTES;
use crate::store::SegmentId;

/// Payload bytes of one answer.
const FETCH_BYTES: u64 = 8 << 20;
/// Payload bytes that are looked at for one call.
const CHECK_BYTES: u64 = 16 << 20;
/// Segments in one call.
const MAX_SEALS: usize = 10_000;
/// Answers in one message.
const MAX_ANSWERS: usize = 1_024;

/// The replicas of a node as others see them.
pub(in crate::rpc) struct PeerServer {
    logs: LogStore,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl PeerServer {
    /// The service over `logs`, until `closing`. `tasks` has what it starts.
    pub(in crate::rpc) fn service(
        logs: LogStore,
        token: Option<Token>,
        closing: CancellationToken,
        tasks: TaskTracker,
    ) -> InterceptedService<Grpc<Self>, Gate> {
        let service = Grpc::new(Self { logs, closing, tasks })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        InterceptedService::new(service, Gate::new(PROTOCOL, token))
    }
}

/// Answers that wait for their stream: of each segment the newest, which says all.
#[derive(Default)]
struct Answers {
    waiting: Mutex<BTreeMap<SegmentId, Waiting>>,
    filled: Notify,
}

/// The newest of each kind that adds to what the others say.
#[derive(Clone, Copy, Default)]
struct Waiting {
    stored: Option<Reply>,
    /// Anything else, which came after it.
    other: Option<Reply>,
}

impl Replies for Answers {
    fn reply(&self, id: SegmentId, reply: Reply) {
        {
            let mut all = self.waiting.lock();
            let waiting = all.entry(id).or_default();
            match reply {
                Reply::Stored { .. } => waiting.stored = Some(reply),
                _ => waiting.other = Some(reply),
            }
        }
        self.filled.notify_one();
    }
}

impl Answers {
    async fn next(&self) -> proto::ReplicateAnswers {
        loop {
            let mut answers = Vec::new();
            {
                let mut all = self.waiting.lock();
                while answers.len() < MAX_ANSWERS
                    && let Some((id, Waiting { stored, other })) = all.pop_first()
                {
                    let both = stored.into_iter().chain(other);
                    answers.extend(both.filter_map(|reply| wire::answer_message(id, reply)));
                }
                if !all.is_empty() {
                    self.filled.notify_one();
                }
            }
            if !answers.is_empty() {
                return proto::ReplicateAnswers { welcome: false, answers };
            }
            self.filled.notified().await;
        }
    }
}

fn misuse(what: &'static str) -> Status {
    Status::invalid_argument(what)
}

type ReplicateStream =
    Pin<Box<dyn Stream<Item = Result<proto::ReplicateAnswers, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl Peer for PeerServer {
    type ReplicateStream = ReplicateStream;

    async fn replicate(
        &self,
        request: Request<Streaming<proto::ReplicateRequest>>,
    ) -> Result<Response<ReplicateStream>, Status> {
        use proto::replicate_request::Kind;
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.kind);
        let Some(Kind::Hello(hello)) = first else {
            return Err(misuse("a stream begins with a Hello"));
        };
        let own = self.logs.identity().node;
        if hello.node != own.0 {
            return Err(Status::failed_precondition(format!(
                "this is node {own}, not node {}",
                hello.node
            )));
        }
        let from = Life { node: NodeId(hello.from_node), incarnation: hello.from_incarnation };
        let answers = Arc::new(Answers::default());
        let ended = self.closing.child_token();
        self.tasks.spawn({
            let (logs, answers, ended) = (self.logs.clone(), Arc::clone(&answers), ended.clone());
            async move {
                let taking = take(&logs, from, requests, answers);
                if let Some(Err(status)) = ended.run_until_cancelled(taking).await {
                    tracing::debug!(%status, from = %from.node, "a stream of entries has ended");
                }
                ended.cancel();
            }
        });
        let welcome = proto::ReplicateAnswers { welcome: true, answers: Vec::new() };
        let guard = ended.clone().drop_guard();
        let stream = futures_util::stream::unfold(
            (Some(welcome), answers, ended, guard),
            |(first, answers, ended, guard)| async move {
                if let Some(first) = first {
                    return Some((Ok(first), (None, answers, ended, guard)));
                }
                let next = ended.run_until_cancelled(answers.next()).await?;
                Some((Ok(next), (None, answers, ended, guard)))
            },
        );
        Ok(Response::new(Box::pin(stream)))
    }

    async fn seal(
        &self,
        request: Request<proto::SealRequest>,
    ) -> Result<Response<proto::SealResponse>, Status> {
        let request = request.into_inner();
        if request.seals.len() > MAX_SEALS {
            return Err(misuse("too many segments in one call"));
        }
        let by = NodeId(request.by);
        let seals: Option<Vec<_>> = request.seals.iter().map(wire::seal).collect();
        let seals = seals.ok_or_else(|| misuse("a seal without a segment"))?;
        let all = join_all(seals.into_iter().map(|seal| self.logs.peer_seal(seal, by))).await;
        let mut sealed = Vec::with_capacity(all.len());
        for answer in all {
            match answer {
                Ok(answer) => sealed.push(wire::sealed_message(&answer)),
                Err(error) => tracing::warn!(%error, "could not seal a segment"),
            }
        }
        Ok(Response::new(proto::SealResponse { sealed }))
    }

    async fn fetch(
        &self,
        request: Request<proto::FetchRequest>,
    ) -> Result<Response<proto::FetchResponse>, Status> {
        let fetch = wire::fetch(&request.into_inner(), FETCH_BYTES)
            .ok_or_else(|| misuse("a question that isn't understood"))?;
        let fetched = self.logs.peer_fetch(fetch).await;
        let fetched = fetched.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(wire::fetched_message(fetched)))
    }

    async fn check(
        &self,
        request: Request<proto::CheckRequest>,
    ) -> Result<Response<proto::CheckResponse>, Status> {
        let ask = wire::checking(&request.into_inner(), CHECK_BYTES);
        let ask = ask.ok_or_else(|| misuse("a look at no segment"))?;
        let checked = self.logs.peer_check(ask).await;
        let Checked { crc, next, bytes } =
            checked.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(proto::CheckResponse { crc, next, bytes }))
    }

    async fn pull(
        &self,
        request: Request<proto::PullRequest>,
    ) -> Result<Response<proto::PullResponse>, Status> {
        let pull =
            wire::pull(&request.into_inner()).ok_or_else(|| misuse("a copy of no segment"))?;
        let end = self.logs.peer_pull(pull).await;
        let end = end.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(proto::PullResponse { end }))
    }
}

/// Takes what comes on a stream, in order.
async fn take(
    logs: &LogStore,
    from: Life,
    mut requests: Streaming<proto::ReplicateRequest>,
    answers: Arc<Answers>,
) -> Result<(), Status> {
    use proto::replicate_request::Kind;
    let replies: Arc<dyn Replies> = answers;
    while let Some(message) = requests.message().await? {
        let message = match message.kind {
            Some(Kind::Store(store)) => wire::store(store),
            Some(Kind::Committed(committed)) => wire::committed(committed),
            Some(Kind::Hello(_)) | None => None,
        };
        let message = message.ok_or_else(|| misuse("a message that has no place here"))?;
        let taken = logs.peer_receive(from, &message, &replies).await;
        taken.map_err(|error| Status::internal(error.to_string()))?;
    }
    Ok(())
}
