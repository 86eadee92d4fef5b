//! Drives the crash close of a log's open segment: seals and copies at the replicas, the
//! transaction in meta.

use std::sync::Arc;
use std::time::Duration;

use interflow_meta::{Epoch, LogId, NodeId, Offset};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::closing::{self, Filled};
use super::metrics::add;
use super::service::Inner;
use super::state::{SharedLog, segment};
use super::{pulling, replicas};
use crate::LogError;
use crate::core::closing::{Effect as CloseEffect, Finish};
use crate::core::recovery::{Effect, Event, GivenUp, Recovery, RecoveryLimits};
use crate::core::segment::{Factor, Head, Nodes};
use crate::peers::{Pull, Seal, Sealed};
use crate::store::SegmentId;

/// What a question to a node has brought.
enum Told {
    Sealed(NodeId, Sealed),
    /// It gave no answer.
    Silent(NodeId),
    Event(Event),
}

struct Driver<'a> {
    inner: &'a Arc<Inner>,
    log: &'a SharedLog,
    epoch: Epoch,
    factor: Factor,
    /// The head as it was read a moment ago.
    read: Option<Head>,
    head: Option<Head>,
    filled: Option<Filled>,
    /// Nodes that gave no answer when they were asked last.
    silent: Vec<NodeId>,
    /// Somebody can't reach it: it isn't to be the next sequencer, if others can.
    suspect: Option<NodeId>,
    told: mpsc::UnboundedSender<Told>,
    timer: Option<Instant>,
}

/// Closes the log's segment `epoch`, whose sequencer is gone, and opens the next one. `head` is what
/// meta has, if that was read just now. `suspect` answers here, perhaps, but not to all who need it:
/// another is to be the sequencer, if there is one.
///
/// # Errors
/// Too few replicas answer, or meta doesn't.
pub(super) async fn recover(
    inner: &Arc<Inner>,
    log: &SharedLog,
    epoch: Epoch,
    factor: Factor,
    head: Option<Head>,
    suspect: Option<NodeId>,
) -> Result<Finish, LogError> {
    let (told, mut heard) = mpsc::unbounded_channel();
    let limits = RecoveryLimits { max_rounds: 3, ..RecoveryLimits::default() };
    let mut core = Recovery::new(epoch, inner.registry.token(), limits, inner.rules);
    let mut driver = Driver {
        inner,
        log,
        epoch,
        factor,
        read: head,
        head: None,
        filled: None,
        silent: Vec::new(),
        suspect,
        told,
        timer: None,
    };
    let mut effects = core.start(inner.clock.monotonic_ms()).into_vec();
    loop {
        for effect in std::mem::take(&mut effects) {
            if let Some(result) = driver.perform(effect) {
                return result.map_err(|error: GivenUp| LogError::Unavailable(error.to_string()));
            }
        }
        let event = tokio::select! {
            biased;
            () = inner.stop.cancelled() => {
                return Err(LogError::Stopped("the log store is shutting down".into()));
            }
            told = heard.recv() => match told {
                Some(told) => driver.hear(told),
                None => None,
            },
            () = until(driver.timer) => {
                driver.timer = None;
                Some(Event::Tick)
            }
        };
        if let Some(event) = event {
            effects = core.handle(inner.clock.monotonic_ms(), event).into_vec();
        }
    }
}

/// Closes the log's segment `epoch`, if it is open still, and opens the next one with another sequencer,
/// if there is one.
///
/// # Errors
/// As of [`recover`].
pub(super) async fn take_over(inner: &Arc<Inner>, id: LogId, epoch: Epoch) -> Result<(), LogError> {
    let record = inner.record(id).await.map_err(|error| LogError::Meta(error.0))?;
    let record = record.ok_or(LogError::NoSuchLog)?;
    let is_here = record.head.sequencer == inner.me();
    if record.head.epoch != epoch || is_here || record.head.replicas.len() == 1 {
        return Ok(());
    }
    let log = inner.log(id);
    let suspect = Some(record.head.sequencer.node);
    recover(inner, &log, epoch, record.factor, Some(record.head), suspect).await.map(|_| ())
}

/// Resolves at that time; without one never.
pub(super) async fn until(timer: Option<Instant>) {
    match timer {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Driver<'_> {
    fn hear(&mut self, told: Told) -> Option<Event> {
        match told {
            Told::Sealed(node, sealed) => {
                self.silent.retain(|silent| *silent != node);
                if let Some(filled) = &mut self.filled {
                    filled.bytes = filled.bytes.max(sealed.bytes);
                    filled.max_timestamp = filled.max_timestamp.max(sealed.max_timestamp);
                }
                Some(Event::Sealed { node, end: sealed.end, counts: sealed.counts })
            }
            Told::Silent(node) => {
                if !self.silent.contains(&node) {
                    self.silent.push(node);
                }
                None
            }
            Told::Event(event) => {
                if let Event::Head(Some(head)) = &event {
                    self.read(head);
                }
                Some(event)
            }
        }
    }

    fn read(&mut self, head: &Head) {
        if self.head.is_none() && head.epoch == self.epoch {
            self.filled = Some(Filled {
                base: head.base,
                leader_epoch: head.leader_epoch,
                replicas: head.replicas.clone(),
                acks: head.acks,
                bytes: 0,
                max_timestamp: None,
            });
            self.head = Some(head.clone());
        }
    }

    /// Does what the core wants; its result, if that is it.
    fn perform(&mut self, effect: Effect) -> Option<Result<Finish, GivenUp>> {
        match effect {
            Effect::ReadHead => self.read_head(),
            Effect::Seal { nodes, epoch, base } => self.seal(nodes, epoch, base),
            Effect::Copy { source, target, from: _, until } => self.copy(source, target, until),
            Effect::Closing(effect) => self.close(effect),
            // The next sequencer looks for that itself, from the chain in meta.
            Effect::Replay { .. } => {}
            Effect::Timer { at_ms } => {
                let left = at_ms.saturating_sub(self.inner.clock.monotonic_ms());
                self.timer = Some(Instant::now() + Duration::from_millis(left));
            }
            Effect::Finished(result) => {
                if matches!(result, Ok(Finish::Won(_))) {
                    add(&self.inner.metrics.crash_closes, 1);
                }
                return Some(result);
            }
        }
        None
    }

    fn spawn(&self, work: impl Future<Output = Told> + Send + 'static) {
        let told = self.told.clone();
        self.inner.spawn(async move {
            // The recovery may be over.
            let _ = told.send(work.await);
        });
    }

    fn read_head(&mut self) {
        if let Some(read) = self.read.take() {
            // The loop is there as long as this is.
            let _ = self.told.send(Told::Event(Event::Head(Some(read))));
            return;
        }
        let (inner, log) = (Arc::clone(self.inner), self.log.id);
        self.spawn(async move {
            Told::Event(match inner.head(log).await {
                Ok(head) => Event::Head(head),
                Err(_) => Event::HeadUnread,
            })
        });
    }

    fn seal(&self, nodes: Nodes, epoch: Epoch, base: Offset) {
        let id = segment(self.log.id, epoch);
        for node in nodes {
            let inner = Arc::clone(self.inner);
            self.spawn(async move {
                match seal_at(&inner, node, id, base).await {
                    Some(sealed) => Told::Sealed(node, sealed),
                    None => Told::Silent(node),
                }
            });
        }
    }

    fn copy(&self, source: NodeId, target: NodeId, until: Offset) {
        let Some(base) = self.filled.as_ref().map(|filled| filled.base) else { return };
        let inner = Arc::clone(self.inner);
        let pull =
            Pull { id: segment(self.log.id, self.epoch), base, source, until, is_anew: false };
        self.spawn(async move {
            Told::Event(match pulling::pull_at(&inner, target, pull).await {
                Ok(end) if end >= until => Event::Copied { node: target, end },
                Ok(_) => Event::CopyFailed { node: target },
                Err(error) => {
                    tracing::debug!(log = %pull.id.log, %error, "a copy failed");
                    Event::CopyFailed { node: target }
                }
            })
        });
    }

    fn close(&mut self, effect: CloseEffect) {
        let Some(filled) = self.filled.clone() else { return };
        let (inner, log) = (Arc::clone(self.inner), Arc::clone(self.log));
        match effect {
            // Not to those that are silent: they may be gone and meta doesn't know yet.
            CloseEffect::Place => {
                let mut placed = inner.place(log.id, self.factor, &filled.replicas, &self.silent);
                if let Some(nodes) = &mut placed
                    && nodes.first() == self.suspect.as_ref()
                {
                    nodes.rotate_left(1);
                }
                if placed.is_none() {
                    // One of them may be back.
                    let silent = self.silent.iter().copied().collect();
                    self.seal(silent, self.epoch, filled.base);
                }
                let event = crate::core::closing::Event::Placed(placed);
                // The loop is there as long as this is.
                let _ = self.told.send(Told::Event(Event::Closing(event)));
            }
            CloseEffect::ReadHead => self.read_head(),
            CloseEffect::Transact(close) => self.spawn(async move {
                let outcome = closing::transact(&inner, log.id, &close, &filled).await;
                Told::Event(Event::Closing(crate::core::closing::Event::Transacted(outcome)))
            }),
            // The core keeps its own time, and its own result.
            CloseEffect::Later | CloseEffect::Finished(_) => {}
        }
    }
}

/// Seals a segment at a node; `None` without an answer.
pub(super) async fn seal_at(
    inner: &Arc<Inner>,
    node: NodeId,
    id: SegmentId,
    base: Offset,
) -> Option<Sealed> {
    if node == inner.me().node {
        return match replicas::seal(inner, id, base, node).await {
            Ok(sealed) => Some(sealed),
            Err(error) => {
                tracing::warn!(log = %id.log, %error, "could not seal a segment here");
                None
            }
        };
    }
    inner.seal_there(node, Seal { id, base }).await
}
