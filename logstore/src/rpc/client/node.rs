//! What is between a router and the client of one node: appends go there, and come back when they
//! are to be made elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;

use interflow_meta::grpc::is_refusal;
use interflow_meta::{LogId, NodeId};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{Append, AppendError, AppendReply, LogClient};

/// An append that isn't answered. It is in one place at a time: with the router, or at one node.
#[derive(Debug)]
pub struct Unanswered {
    /// What is appended.
    pub append: Append,
    /// Its caller.
    pub reply: AppendReply,
    /// When its caller hears that it is late.
    pub deadline: Instant,
    /// Rises with the calls that one router was given for a log.
    pub number: u64,
    /// It was sent, and nobody has said that it wasn't kept.
    pub may_be_kept: bool,
    /// A node's client has taken it once: no other refuses it as too much.
    pub was_admitted: bool,
}

impl Unanswered {
    /// Its time is up, or there is nowhere to make it, because of `reason`.
    pub fn give_up(self, reason: AppendError) {
        let error = if self.may_be_kept { AppendError::Unknown } else { reason };
        self.reply.send(Err(error));
    }
}

/// The client of one node, for a router. All of it but the calls is called under the router's
/// locks: it neither blocks nor tells of doubts.
pub trait NodeClient: LogClient {
    /// Whose client it is.
    fn node(&self) -> NodeId;

    /// Makes an append, behind those of its log that were sent before it. Until its answer or its
    /// deadline it is here, and can be taken back.
    fn send(&self, append: Unanswered);

    /// Takes back the log's appends, in the order of the calls, to be made at another node. Those
    /// without an append key that may have been kept stay until they are answered; if the node
    /// refuses them as not the sequencer after that, so do their callers hear, for what was behind
    /// them is elsewhere by then.
    fn take_back(&self, log: LogId) -> VecDeque<Unanswered>;

    /// The node is the log's sequencer after all: what it refused as another's is sent again.
    fn resume(&self, log: LogId);

    /// Whether appends of the log are here.
    fn has_unanswered(&self, log: LogId) -> bool;
}

/// Why a node may not be the one that serves a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It said that another node is the sequencer.
    NotSequencer,
    /// It can't be reached.
    Unreachable,
    /// It is connected, and hasn't answered an append for long.
    Silent,
}

/// Is told of doubts about the node of a log. It must neither block nor wait, and is called without
/// locks.
#[derive(Clone, Default)]
pub struct Doubts(Option<Tell>);

type Tell = Arc<dyn Fn(NodeId, LogId, Doubt) + Send + Sync>;

impl Doubts {
    /// Calls `tell`.
    pub fn new(tell: impl Fn(NodeId, LogId, Doubt) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    /// The node may not be the log's.
    pub fn tell(&self, node: NodeId, log: LogId, doubt: Doubt) {
        if let Some(tell) = &self.0 {
            tell(node, log, doubt);
        }
    }

    /// Whether anybody is told, who then sees to the appends that a node refused as another's.
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }
}

impl std::fmt::Debug for Doubts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Doubts").field(&self.0.is_some()).finish()
    }
}

/// The node lets nobody in, and nobody knows when it will. A router finds out where another node's
/// place is taken: that is as if it couldn't be reached.
pub(super) fn is_final(status: &Status, doubts: &Doubts) -> bool {
    let is_other = status.code() == Code::FailedPrecondition;
    is_refusal(status) && !(is_other && doubts.is_heard())
}
