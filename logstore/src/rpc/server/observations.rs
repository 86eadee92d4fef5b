//! The observe stream, as it comes in.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use interflow_meta::LogId;
use interflow_proto::log as proto;
use proto::observe_event::Kind as Event;
use proto::observe_request::Kind;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use super::outlet::Outlet;
use super::{LogServer, check_node, misuse};
use crate::rpc::wire;
use crate::{LogClient, LogError, Observation};

pub(super) type Events =
    Pin<Box<dyn Stream<Item = Result<proto::ObserveEvents, Status>> + Send + 'static>>;

/// An observation on its way.
type Beginning = Pin<Box<dyn Future<Output = (u64, Result<Observation, LogError>)> + Send>>;

/// The reading half of a stream.
struct Intake {
    logs: Arc<dyn LogClient>,
    outlet: Arc<Outlet>,
    max_observations: usize,
    closing: CancellationToken,
    /// `None` while it begins.
    observations: HashMap<u64, Option<Observation>>,
    beginning: FuturesUnordered<Beginning>,
}

impl LogServer {
    /// Takes what comes on `requests`; what is returned are the events.
    pub(super) fn observations(
        &self,
        hello: &proto::Hello,
        requests: Streaming<proto::ObserveRequest>,
    ) -> Result<Events, Status> {
        check_node(self.identity.node.0, hello)?;
        let outlet = Outlet::new(self.options.early_bytes, self.options.log_early_bytes);
        let life = self.closing.child_token();
        let intake = Intake {
            logs: Arc::clone(&self.logs),
            outlet: Arc::clone(&outlet),
            max_observations: self.options.max_observations,
            closing: self.closing.clone(),
            observations: HashMap::new(),
            beginning: FuturesUnordered::new(),
        };
        let (failed, failure) = oneshot::channel();
        let guard = life.clone().drop_guard();
        self.tasks.spawn(async move {
            let ended = life.run_until_cancelled(intake.run(requests)).await;
            // Events that nobody reads need no end.
            let _ = failed.send(ended.unwrap_or(Ok(())));
        });
        let welcome = proto::ObserveEvents {
            events: vec![proto::ObserveEvent { id: 0, kind: Some(Event::Welcome(self.welcome())) }],
        };
        Ok(events(welcome, outlet, failure, guard))
    }
}

/// The events of a stream, until its reading half has ended. Dropped, that ends as well.
fn events(
    welcome: proto::ObserveEvents,
    outlet: Arc<Outlet>,
    failure: oneshot::Receiver<Result<(), Status>>,
    guard: DropGuard,
) -> Events {
    let first = futures_util::stream::iter([Ok(welcome)]);
    let rest = futures_util::stream::unfold(Some((outlet, failure, guard)), |state| async move {
        let (outlet, mut failure, guard) = state?;
        tokio::select! {
            events = outlet.next() => Some((Ok(events), Some((outlet, failure, guard)))),
            ended = &mut failure => match ended {
                Ok(Err(status)) => Some((Err(status), None)),
                Ok(Ok(())) | Err(_) => None,
            },
        }
    });
    Box::pin(first.chain(rest))
}

impl Intake {
    async fn run(mut self, mut requests: Streaming<proto::ObserveRequest>) -> Result<(), Status> {
        loop {
            tokio::select! {
                message = requests.message() => match message?.map(|message| message.kind) {
                    None => return Ok(()),
                    Some(Some(Kind::Observe(observe))) => self.begin(observe)?,
                    Some(Some(Kind::Unobserve(id))) => {
                        // Outside of the outlet's lock: it takes the log's.
                        drop(self.observations.remove(&id));
                        self.outlet.forget(id);
                    }
                    Some(_) => return Err(misuse("a message that has no place here")),
                },
                Some((id, begun)) = self.beginning.next() => self.begun(id, begun),
            }
        }
    }

    fn begin(&mut self, observe: proto::Observe) -> Result<(), Status> {
        let proto::Observe { id, log } = observe;
        if self.observations.contains_key(&id) {
            return Err(misuse("an observation's id was used twice"));
        }
        if self.observations.len() + self.beginning.len() >= self.max_observations {
            return Err(Status::resource_exhausted("too many observations"));
        }
        self.observations.insert(id, None);
        let teller = self.outlet.teller(id, self.closing.clone());
        let logs = Arc::clone(&self.logs);
        self.beginning.push(Box::pin(async move {
            let begun = logs.observe(LogId(log), teller).await;
            (id, begun)
        }));
        Ok(())
    }

    fn begun(&mut self, id: u64, begun: Result<Observation, LogError>) {
        // One that was given up meanwhile ends here.
        let Some(place) = self.observations.get_mut(&id) else { return };
        match begun {
            Ok(observation) => *place = Some(observation),
            Err(error) => {
                self.observations.remove(&id);
                self.outlet.end(id, Event::Failed(wire::log_error_message(&error)));
            }
        }
    }
}
