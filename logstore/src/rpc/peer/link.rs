//! The way to the replicas of one node: a stream, and on the next one when that ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use interflow_meta::NodeId;
use interflow_meta::grpc::{Backoff, told};
use interflow_proto::peer as proto;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::client::{GrpcPeers, Known};
use super::wire;
use crate::core::segment::Life;
use crate::peers::{Link, LinkEvents, ToReplica};

/// A node whose stream isn't welcomed for so long has no connection.
const WELCOME: Duration = Duration::from_secs(3);

/// See the module.
pub(super) struct PeerLink {
    state: Mutex<State>,
    /// There is something to send.
    filled: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<ToReplica>,
    /// Which stream sends; none: what is to be sent is dropped.
    stream: Option<u64>,
    last_stream: u64,
}

impl PeerLink {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), filled: Notify::new() })
    }

    /// Keeps a stream to `to` until `closing`.
    pub(super) async fn run(
        self: Arc<Self>,
        peers: Arc<GrpcPeers>,
        to: NodeId,
        events: Arc<dyn LinkEvents>,
        closing: CancellationToken,
    ) {
        let keeping = async {
            let backoff = Backoff::default();
            loop {
                backoff.ready().await;
                let reason = match peers.known(to) {
                    Ok(known) => self.one_stream(known, peers.me(), to, &*events, &backoff).await,
                    Err(error) => error.to_string(),
                };
                tracing::debug!(%to, reason, "no connection to a replica's node");
                backoff.failed();
            }
        };
        closing.run_until_cancelled(keeping).await;
    }

    /// One stream, to its end; says why it ended.
    async fn one_stream(
        self: &Arc<Self>,
        known: Known,
        me: Life,
        to: NodeId,
        events: &dyn LinkEvents,
        backoff: &Backoff,
    ) -> String {
        let stream = {
            let mut state = self.state.lock();
            state.last_stream += 1;
            state.last_stream
        };
        let hello =
            proto::Hello { node: to.0, from_node: me.node.0, from_incarnation: me.incarnation };
        let mut grpc = known.entries;
        let requests = requests(Arc::clone(self), hello, stream);
        let opening = async {
            let mut answers = grpc.replicate(requests).await?.into_inner();
            let first = answers.message().await?;
            match first.is_some_and(|first| first.welcome) {
                true => Ok(answers),
                false => Err(Status::internal("a stream that doesn't begin with a welcome")),
            }
        };
        let mut answers = match tokio::time::timeout(WELCOME, opening).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(status)) => return told(&status),
            Err(_) => return "it doesn't answer".to_owned(),
        };
        backoff.worked();
        self.state.lock().stream = Some(stream);
        events.attached();
        let reason = loop {
            let message = match answers.message().await {
                Ok(Some(message)) => message,
                Ok(None) => break "the node has ended the stream".to_owned(),
                Err(status) => break told(&status),
            };
            let mut is_understood = true;
            for message in message.answers {
                match wire::answer(message) {
                    Some((id, reply)) => events.replied(id, reply),
                    None => is_understood = false,
                }
            }
            if !is_understood {
                break "an answer that isn't understood".to_owned();
            }
        };
        {
            let mut state = self.state.lock();
            state.stream = None;
            state.queue.clear();
        }
        self.filled.notify_waiters();
        events.detached();
        reason
    }
}

impl Link for PeerLink {
    fn send(&self, message: ToReplica) {
        {
            let mut state = self.state.lock();
            if state.stream.is_none() {
                return;
            }
            state.queue.push_back(message);
        }
        self.filled.notify_waiters();
    }
}

/// What is to be sent on a stream, as it comes up.
fn requests(
    link: Arc<PeerLink>,
    hello: proto::Hello,
    stream: u64,
) -> impl Stream<Item = proto::ReplicateRequest> + Send + 'static {
    let kind = Some(proto::replicate_request::Kind::Hello(hello));
    let first = Some(proto::ReplicateRequest { kind });
    futures_util::stream::unfold((link, first), move |(link, first)| async move {
        if let Some(first) = first {
            return Some((first, (link, None)));
        }
        loop {
            let filled = link.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            {
                let mut state = link.state.lock();
                if state.last_stream != stream {
                    return None;
                }
                if state.stream == Some(stream)
                    && let Some(message) = state.queue.pop_front()
                {
                    drop(state);
                    return Some((wire::request_message(message), (Arc::clone(&link), None)));
                }
            }
            filled.await;
        }
    })
}
