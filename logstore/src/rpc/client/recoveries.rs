//! Recoveries of logs, asked of one node: those that are wanted at the same time go in one call, and
//! each has its result when it is done.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use interflow_meta::grpc::{Asked, Gather, told};
use interflow_meta::{Epoch, LogId};
use interflow_proto::log as proto;
use tokio::sync::oneshot;

use super::Grpc;
use super::calls::{Calls, refusal};
use crate::LogError;
use crate::rpc::MAX_LOGS;

/// Calls at a time, each until the last of its logs is recovered or given up.
const CALLS: usize = 8;

type Recovered = Result<(), LogError>;
type Asker = oneshot::Sender<Recovered>;

/// See the module.
#[derive(Debug)]
pub(super) struct Recoveries {
    calls: Arc<Calls>,
    wanted: Arc<Gather<(LogId, Epoch), Recovered>>,
}

impl Recoveries {
    pub(super) fn new(calls: Arc<Calls>) -> Self {
        Self { calls, wanted: Gather::new(MAX_LOGS, CALLS) }
    }

    /// Has the node recover a log. Calls are made in tasks that `spawn` starts.
    pub(super) async fn recover(
        &self,
        log: LogId,
        epoch: Epoch,
        spawn: impl FnOnce(BoxFuture<'static, ()>),
    ) -> Recovered {
        let calls = Arc::clone(&self.calls);
        let call = move |asked| {
            let calls = Arc::clone(&calls);
            async move { calls.recover(asked).await }
        };
        let recovered = self.wanted.ask_each(spawn, (log, epoch), call).await;
        recovered.unwrap_or_else(|| Err(LogError::Unavailable("it doesn't answer".to_owned())))
    }
}

impl Calls {
    /// Makes a call for these logs. It is over when all are answered, or nobody waits any more.
    async fn recover(&self, asked: Vec<Asked<(LogId, Epoch), Recovered>>) {
        let recovery =
            |(log, epoch): &(LogId, Epoch)| proto::Recovery { log: log.0, epoch: epoch.0 };
        let recoveries = asked.iter().map(|(of, _)| recovery(of)).collect();
        let request = proto::RecoverRequest { recoveries };
        let mut askers: Vec<_> = asked.into_iter().map(|(_, asker)| Some(asker)).collect();
        let call = |mut grpc: Grpc| {
            let request = request.clone();
            async move { grpc.recover(request).await }
        };
        // Without a doubt: another node is the logs'.
        let mut answers = match self.attempt(call).await {
            Ok(answers) => answers,
            Err(unreachable) => return fail(askers, unreachable.into()),
        };
        loop {
            let answer = tokio::select! {
                answer = answers.message() => answer,
                () = left(&mut askers) => return,
            };
            match answer {
                Ok(Some(answer)) => {
                    for proto::Recovered { place, error } in answer.recovered {
                        let place = usize::try_from(place).unwrap_or(usize::MAX);
                        if let Some(asker) = askers.get_mut(place).and_then(Option::take) {
                            // It may have lost its patience.
                            let _ = asker.send(error.map_or(Ok(()), |error| Err(refusal(error))));
                        }
                    }
                }
                Ok(None) => return,
                Err(status) => return fail(askers, LogError::Unavailable(told(&status))),
            }
        }
    }
}

/// Those that have no answer don't wait any more. Where all have one the call ends by itself.
async fn left(askers: &mut [Option<Asker>]) {
    if askers.iter().all(Option::is_none) {
        std::future::pending::<()>().await;
    }
    for asker in askers.iter_mut().flatten() {
        asker.closed().await;
    }
}

fn fail(askers: Vec<Option<Asker>>, error: LogError) {
    for asker in askers.into_iter().flatten() {
        let _ = asker.send(Err(error.clone()));
    }
}
