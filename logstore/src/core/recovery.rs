//! The crash close of a log's open segment, by anyone, without locks.
//!
//! ```text
//!   Head ─► Sealing ─F answers─► Copying ─Q hold the tail─► Closing ─► Finished
//!     ▲        │                    │  └ too few live ones: short ─┘
//!     └────────┴──── again ◄────────┘
//! ```
//!
//! The tail is the **largest** end among F sealed replicas: any Q have one of them, so all that
//! was acknowledged is below it (I1), and with F sealed no Q can take any more (I2). What the
//! replicas answer stays true (a seal is never unset, an end never goes back: I6, I9), so an
//! answer may come late or twice. Only the set that decides is asked anew by each round, because
//! a node that held the tail may have died since.

#[cfg(test)]
mod tests;

use interflow_meta::{Epoch, NodeId, Offset};
use smallvec::{SmallVec, smallvec};

use super::closing::{self, Closing, Finish};
use super::rules::{Broken, Rules};
use super::segment::{Head, Nodes};

/// Times and bounds of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RecoveryLimits {
    /// A question without an answer is asked again after so long. Milliseconds.
    pub(crate) retry_ms: u64,
    /// How often that is done before the round is given up.
    pub(crate) max_retries: u32,
    /// Rounds before the recovery is given up; its caller begins another later.
    pub(crate) max_rounds: u32,
}

impl Default for RecoveryLimits {
    fn default() -> Self {
        Self { retry_ms: 200, max_retries: 10, max_rounds: 10 }
    }
}

/// What happens to a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// The head as it was read; `None`: no such log.
    Head(Option<Head>),
    /// It could not be read.
    HeadUnread,
    /// A replica is sealed.
    Sealed {
        /// Which.
        node: NodeId,
        /// Everything below is durable there.
        end: Offset,
        /// Not damaged, and its node has not lost data.
        counts: bool,
    },
    /// A copy has come to here; from a replica's answers to repairs.
    Copied {
        /// To which node.
        node: NodeId,
        /// Everything below is durable there.
        end: Offset,
    },
    /// The copy to this node came to an end before its goal.
    CopyFailed {
        /// To which node.
        node: NodeId,
    },
    /// For the closing.
    Closing(closing::Event),
    /// The time that was asked for has come, or a later one.
    Tick,
}

/// What a recovery wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Read the log's head.
    ReadHead,
    /// Seal the segment at these nodes; it begins at `base`, for those that never saw it.
    Seal {
        /// Where.
        nodes: Nodes,
        /// The segment.
        epoch: Epoch,
        /// Its first offset.
        base: Offset,
    },
    /// Copy entries, as repairs.
    Copy {
        /// Who has them.
        source: NodeId,
        /// Who lacks them.
        target: NodeId,
        /// From this offset, with snapshots there.
        from: Offset,
        /// Up to here.
        until: Offset,
    },
    /// As the closing says.
    Closing(closing::Effect),
    /// This recovery has closed the segment. The next one's sequencer is to take the last
    /// producer snapshot below `end` and replay the headers behind it, before its first append.
    Replay {
        /// The closed segment.
        epoch: Epoch,
        /// Who holds all of it.
        holders: Nodes,
        /// One past its last offset.
        end: Offset,
    },
    /// Tell [`Event::Tick`] at that time, and forget earlier timers.
    Timer {
        /// On the monotonic clock. Milliseconds.
        at_ms: u64,
    },
    /// It is over.
    Finished(Result<Finish, GivenUp>),
}

/// Why a recovery came to nothing. Nothing was closed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum GivenUp {
    /// Meta doesn't answer.
    #[error("the log's head can't be read")]
    HeadUnread,
    /// Too few replicas answer for the tail to be known.
    #[error("{answers} of {needed} replicas have answered that are needed to know the end")]
    TooFewAnswers {
        /// Those that did, and count.
        answers: usize,
        /// F.
        needed: usize,
    },
    /// The end is known, but copies up to it can't be made.
    #[error("the segment's end can't be copied to enough replicas")]
    CopiesFailed,
}

/// Effects of one step.
pub(crate) type Effects = SmallVec<[Effect; 2]>;

#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
enum Stage {
    Head,
    Sealing,
    /// The tail is known.
    Copying {
        tail: Offset,
        copies: SmallVec<[NodeId; 2]>,
    },
    Closing(Closing),
    Finished,
}

/// A recovery of a log whose open segment has epoch `epoch`.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Recovery {
    epoch: Epoch,
    token: u64,
    head: Option<Head>,
    /// Who has answered the seal in this round, and up to where each has all.
    answers: SmallVec<[(NodeId, Offset); 3]>,
    stage: Stage,
    /// When the stage's questions are asked again.
    retry_at_ms: u64,
    retries: u32,
    rounds: u32,
    limits: RecoveryLimits,
    rules: Rules,
}

impl Recovery {
    /// A recovery of the segment that the caller knows as open; `token` is drawn at random.
    pub(crate) fn new(epoch: Epoch, token: u64, limits: RecoveryLimits, rules: Rules) -> Self {
        Self {
            epoch,
            token,
            head: None,
            answers: SmallVec::new(),
            stage: Stage::Head,
            retry_at_ms: 0,
            retries: 0,
            rounds: 0,
            limits,
            rules,
        }
    }

    /// The first things to be done.
    pub(crate) fn start(&mut self, now_ms: u64) -> Effects {
        self.rounds = 0;
        self.begin_round(now_ms)
    }

    /// Whether its result was given.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Finished)
    }

    /// What is to be done upon `event`.
    pub(crate) fn handle(&mut self, now_ms: u64, event: Event) -> Effects {
        match event {
            Event::Head(head) => match self.stage {
                Stage::Head => self.head(now_ms, head),
                _ => self.for_closing(now_ms, closing::Event::Head(head)),
            },
            // In the first stage the timer asks again.
            Event::HeadUnread => self.for_closing(now_ms, closing::Event::HeadUnread),
            Event::Sealed { node, end, counts } => {
                if counts {
                    self.holds(node, end);
                }
                self.progress(now_ms)
            }
            Event::Copied { node, end } => {
                if self.answers.iter().any(|(answered, _)| *answered == node) {
                    self.holds(node, end);
                }
                self.progress(now_ms)
            }
            Event::CopyFailed { node } => match &mut self.stage {
                Stage::Copying { copies, .. } if copies.contains(&node) => {
                    // Whoever failed, source or target, is not asked again in this round.
                    self.again(now_ms, GivenUp::CopiesFailed)
                }
                _ => Effects::new(),
            },
            Event::Closing(event) => self.for_closing(now_ms, event),
            Event::Tick => self.tick(now_ms),
        }
    }

    fn begin_round(&mut self, now_ms: u64) -> Effects {
        self.answers.clear();
        self.head = None;
        self.stage = Stage::Head;
        self.retries = 0;
        smallvec![Effect::ReadHead, self.timer(now_ms)]
    }

    fn timer(&mut self, now_ms: u64) -> Effect {
        self.retry_at_ms = now_ms.saturating_add(self.limits.retry_ms);
        Effect::Timer { at_ms: self.retry_at_ms }
    }

    fn head(&mut self, now_ms: u64, head: Option<Head>) -> Effects {
        let Some(head) = head else { return self.finish(Ok(Finish::Gone)) };
        if head.epoch != self.epoch {
            return self.finish(Ok(Finish::Lost(head)));
        }
        let nodes = head.replicas.clone();
        let (epoch, base) = (head.epoch, head.base);
        self.head = Some(head);
        self.stage = Stage::Sealing;
        self.retries = 0;
        smallvec![Effect::Seal { nodes, epoch, base }, self.timer(now_ms)]
    }

    /// `node` is sealed and has everything below `end`.
    fn holds(&mut self, node: NodeId, end: Offset) {
        let Some(head) = &self.head else { return };
        if !head.replicas.contains(&node) {
            return;
        }
        match self.answers.iter_mut().find(|(answered, _)| *answered == node) {
            Some((_, known)) => *known = end.max(*known),
            None => self.answers.push((node, end.max(head.base))),
        }
    }

    fn seals(&self, head: &Head) -> usize {
        if self.rules.breaks(Broken::SealQuorumOne) { 1 } else { head.quorum().seals() }
    }

    /// Goes on as far as the answers allow.
    fn progress(&mut self, now_ms: u64) -> Effects {
        let Some(head) = &self.head else { return Effects::new() };
        let mut effects = Effects::new();
        if matches!(self.stage, Stage::Sealing) && self.answers.len() >= self.seals(head) {
            let ends = self.answers.iter().map(|(_, end)| *end);
            let tail =
                if self.rules.breaks(Broken::SmallestTail) { ends.min() } else { ends.max() };
            self.stage =
                Stage::Copying { tail: tail.unwrap_or(head.base), copies: SmallVec::new() };
            self.retries = 0;
            effects.push(self.timer(now_ms));
        }
        if let Stage::Copying { tail, .. } = self.stage {
            effects.extend(self.copy(tail));
        }
        effects
    }

    /// Closes if Q replicas hold all up to the tail (I4), else has copies made.
    fn copy(&mut self, tail: Offset) -> Effects {
        let Some(head) = &self.head else { return Effects::new() };
        let acks = head.quorum().acks;
        if self.holders(tail).len() >= acks || self.rules.breaks(Broken::NoRepair) {
            return self.close(tail, false);
        }
        let missing = acks - self.holders(tail).len();
        let Some(source) = self.holders(tail).first().copied() else { return Effects::new() };
        // Those that lack least first.
        let mut targets: SmallVec<[(Offset, NodeId); 3]> =
            self.answers.iter().filter(|(_, end)| *end < tail).map(|(n, e)| (*e, *n)).collect();
        targets.sort_unstable_by(|a, b| b.cmp(a));
        let Stage::Copying { copies, .. } = &mut self.stage else { return Effects::new() };
        let mut effects = Effects::new();
        for (from, target) in targets.into_iter().take(missing) {
            if !copies.contains(&target) {
                copies.push(target);
                effects.push(Effect::Copy { source, target, from, until: tail });
            }
        }
        effects
    }

    fn holders(&self, tail: Offset) -> Nodes {
        self.answers.iter().filter(|(_, end)| *end >= tail).map(|(node, _)| *node).collect()
    }

    fn close(&mut self, tail: Offset, is_short: bool) -> Effects {
        let Some(head) = &self.head else { return Effects::new() };
        let closing = Closing::crashed(head, tail, is_short, self.token);
        let effect = closing.start();
        self.stage = Stage::Closing(closing);
        smallvec![Effect::Closing(effect)]
    }

    fn for_closing(&mut self, now_ms: u64, event: closing::Event) -> Effects {
        let Stage::Closing(closing) = &mut self.stage else { return Effects::new() };
        match closing.handle(event) {
            None => Effects::new(),
            Some(closing::Effect::Later) => smallvec![self.timer(now_ms)],
            Some(closing::Effect::Finished(finish)) => {
                let end = closing.close().end;
                let mut effects = Effects::new();
                if matches!(finish, Finish::Won(_)) {
                    let holders = self.holders(end);
                    effects.push(Effect::Replay { epoch: self.epoch, holders, end });
                }
                effects.extend(self.finish(Ok(finish)));
                effects
            }
            Some(effect) => smallvec![Effect::Closing(effect)],
        }
    }

    fn tick(&mut self, now_ms: u64) -> Effects {
        if now_ms < self.retry_at_ms || self.is_finished() {
            return Effects::new();
        }
        if matches!(self.stage, Stage::Closing(_)) {
            // Never given up: what it wrote may have been written.
            return self.for_closing(now_ms, closing::Event::Tick);
        }
        self.retries = self.retries.saturating_add(1);
        let is_enough = self.retries > self.limits.max_retries;
        match (&self.stage, &self.head) {
            (Stage::Head, _) if is_enough => self.again(now_ms, GivenUp::HeadUnread),
            (Stage::Head, _) => smallvec![Effect::ReadHead, self.timer(now_ms)],
            (Stage::Sealing, Some(head)) => {
                let (answers, needed) = (self.answers.len(), self.seals(head));
                if is_enough {
                    return self.again(now_ms, GivenUp::TooFewAnswers { answers, needed });
                }
                let nodes = self.silent(head);
                let (epoch, base) = (head.epoch, head.base);
                smallvec![Effect::Seal { nodes, epoch, base }, self.timer(now_ms)]
            }
            (Stage::Copying { tail, .. }, Some(head)) => {
                let (tail, acks) = (*tail, head.quorum().acks);
                if !is_enough {
                    // Some that were silent may be live all the same, and make the close whole.
                    let nodes = self.silent(head);
                    let (epoch, base) = (head.epoch, head.base);
                    return smallvec![Effect::Seal { nodes, epoch, base }, self.timer(now_ms)];
                }
                if self.answers.len() < acks && !self.holders(tail).is_empty() {
                    return self.close(tail, true);
                }
                self.again(now_ms, GivenUp::CopiesFailed)
            }
            _ => Effects::new(),
        }
    }

    fn silent(&self, head: &Head) -> Nodes {
        let has_answered = |node| self.answers.iter().any(|(answered, _)| *answered == node);
        head.replicas.iter().copied().filter(|node| !has_answered(*node)).collect()
    }

    /// Begins anew: with the set of replicas that answer now.
    fn again(&mut self, now_ms: u64, reason: GivenUp) -> Effects {
        self.rounds += 1;
        if self.rounds >= self.limits.max_rounds {
            return self.finish(Err(reason));
        }
        self.begin_round(now_ms)
    }

    fn finish(&mut self, result: Result<Finish, GivenUp>) -> Effects {
        self.stage = Stage::Finished;
        smallvec![Effect::Finished(result)]
    }
}
