//! Where logs are kept, asked of one node: questions that come while others are on their way go
//! together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use interflow_meta::LogId;
use interflow_meta::grpc::Gather;
use interflow_proto::log as proto;
use proto::replicas_result;

use super::Grpc;
use super::calls::{Calls, not_understood, refusal};
use crate::rpc::{MAX_LOGS, wire};
use crate::{LogError, LogReplicas};

/// Calls at a time.
const CALLS: usize = 4;
/// A node has what it says at hand: one that takes longer says nothing, and others can.
const PATIENCE: Duration = Duration::from_secs(1);

type Said = Result<LogReplicas, LogError>;

/// See the module.
#[derive(Debug)]
pub(super) struct Replicas {
    calls: Arc<Calls>,
    wanted: Arc<Gather<LogId, Said>>,
}

impl Replicas {
    pub(super) fn new(calls: Arc<Calls>) -> Self {
        Self { calls, wanted: Gather::new(MAX_LOGS, CALLS) }
    }

    /// Where the node says that a log is kept. Calls are made in tasks that `spawn` starts.
    pub(super) async fn of(&self, log: LogId, spawn: impl FnOnce(BoxFuture<'static, ()>)) -> Said {
        let calls = Arc::clone(&self.calls);
        let call = move |logs: Vec<LogId>| {
            let calls = Arc::clone(&calls);
            async move { calls.replicas(&logs).await }
        };
        self.wanted.ask(spawn, log, call).await.unwrap_or_else(|| Err(silent()))
    }
}

fn silent() -> LogError {
    LogError::Unavailable("it doesn't answer".to_owned())
}

impl Calls {
    async fn replicas(&self, logs: &[LogId]) -> Vec<Said> {
        let request = proto::ReplicasRequest { logs: logs.iter().map(|log| log.0).collect() };
        let call = |mut grpc: Grpc| {
            let request = request.clone();
            async move { grpc.replicas(request).await }
        };
        // Without a doubt, and at once: nobody needs the node for this.
        if self.is_pausing() {
            return vec![Err(silent()); logs.len()];
        }
        let error = match tokio::time::timeout(PATIENCE, self.attempt(call)).await {
            Ok(Ok(answer)) if answer.results.len() == logs.len() => {
                return answer.results.iter().map(said).collect();
            }
            Ok(Ok(_)) => not_understood(),
            Ok(Err(unreachable)) => unreachable.into(),
            Err(_) => silent(),
        };
        vec![Err(error); logs.len()]
    }
}

fn said(result: &proto::ReplicasResult) -> Said {
    match &result.result {
        Some(replicas_result::Result::Kept(kept)) => Ok(LogReplicas {
            leader_epoch: kept.leader_epoch,
            replicas: kept.replicas.iter().map(wire::replica).collect(),
            replication_factor: kept.replication_factor,
        }),
        Some(replicas_result::Result::Error(error)) => Err(refusal(error.clone())),
        None => Err(not_understood()),
    }
}
