//! A connection's life between CONNACK and its end.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use smallvec::SmallVec;

use super::keep_alive::KeepAlive;
use super::shared::ConnShared;
use super::wire::Wire;
use crate::mqtt::broker::Broker;
use crate::mqtt::codec::{DecodeError, FrameRules, Reason, Receiver, Version};
use crate::mqtt::deliver::feed;
use crate::mqtt::session::{Session, Tally};

pub(super) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The client closed or reset it, or writing failed.
    Lost,
    /// DISCONNECT; whether its will is published.
    Disconnected { with_will: bool },
    /// The client broke a rule.
    Broken(DecodeError),
    /// The server ends it.
    Ended(Reason),
}

/// A connected client: what doesn't do I/O.
pub(super) struct Core {
    pub(super) broker: Arc<Broker>,
    pub(super) session: Arc<Session>,
    /// Of the connection within its session.
    pub(super) number: u64,
    pub(super) shared: Arc<ConnShared>,
    pub(super) version: Version,
    pub(super) receiver: Receiver,
    pub(super) rules: FrameRules,
    pub(super) keep_alive: Option<KeepAlive>,
    /// The session expiry that CONNECT asked for.
    pub(super) expiry_s: u32,
    /// Topic aliases of the client, from 1.
    pub(super) aliases: Vec<Option<Arc<str>>>,
    /// Something that must end before the next packet is looked at.
    pub(super) job: Option<Job>,
    /// Whole packets may lie unread: they wait for the job, or for room.
    pub(super) is_stalled: bool,
    /// They wait until the client has taken its answers.
    pub(super) is_clogged: bool,
    /// Writers that got publishes since they were last flushed.
    pub(super) touched: SmallVec<[u16; 8]>,
    feeder: Option<Job>,
}

/// A connected client.
pub(super) struct Connection {
    pub(super) core: Core,
    pub(super) wire: Wire,
}

impl Core {
    pub(super) fn new(
        broker: Arc<Broker>,
        session: Arc<Session>,
        number: u64,
        shared: Arc<ConnShared>,
        receiver: Receiver,
        keep_alive_s: u16,
        expiry_s: u32,
    ) -> Self {
        Self {
            rules: FrameRules::server(receiver.version, broker.config.max_packet_bytes),
            broker,
            session,
            number,
            shared,
            version: receiver.version,
            receiver,
            keep_alive: KeepAlive::new(keep_alive_s),
            expiry_s,
            aliases: Vec::new(),
            job: None,
            is_stalled: true, // packets may have come with CONNECT
            is_clogged: false,
            touched: SmallVec::new(),
            feeder: None,
        }
    }

    /// The job that holds up packets goes on. True if there is none (any more).
    fn poll_job(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(job) = &mut self.job else { return true };
        if job.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.job = None;
        true
    }

    fn poll_feeder(&mut self, cx: &mut Context<'_>) {
        loop {
            if self.feeder.is_none() {
                if !self.session.lock().needs_feed() {
                    return;
                }
                let parts = self.broker.feed.clone();
                self.feeder = Some(Box::pin(feed(parts, self.session.clone(), self.number)));
            }
            let Some(feeder) = &mut self.feeder else { return };
            if feeder.as_mut().poll(cx).is_pending() {
                return;
            }
            self.feeder = None;
            // What became due meanwhile is fed by the next one, unless it would end at once again.
            if !self.session.lock().needs_feed() {
                return;
            }
        }
    }
}

impl Connection {
    /// Serves the client until its connection ends.
    pub(super) async fn run(&mut self) -> Close {
        let close = poll_fn(|cx| self.poll(cx)).await;
        // Nobody polls it any more, and others may wait for the read that it is in.
        self.core.feeder = None;
        close
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        self.core.shared.register(cx.waker());
        if let Some(reason) = self.core.shared.closing() {
            // What the client sent before counts: acknowledgements above all.
            let _ = self.poll_input(cx);
            return Poll::Ready(Close::Ended(reason));
        }
        if let Some(keep_alive) = &mut self.core.keep_alive
            && keep_alive.poll(cx).is_ready()
        {
            return Poll::Ready(Close::Ended(Reason::KeepAliveTimeout));
        }
        loop {
            if let Poll::Ready(close) = self.poll_input(cx) {
                return Poll::Ready(close);
            }
            self.core.poll_feeder(cx);
            if let Poll::Ready(close) = self.poll_output(cx) {
                return Poll::Ready(close);
            }
            if !self.core.is_clogged || self.core.owes_too_much() {
                return Poll::Pending;
            }
        }
    }

    /// Reads and handles packets until there are no more, or they have to wait.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        let Self { core, wire } = self;
        loop {
            if !core.poll_job(cx) {
                return Poll::Pending;
            }
            if core.is_stalled {
                core.is_stalled = false;
                if let Err(close) = wire.consume_input(|bytes| core.consume(bytes)) {
                    return Poll::Ready(close);
                }
                if core.job.is_some() {
                    continue;
                }
                if core.is_stalled {
                    return Poll::Pending; // whoever makes room wakes it
                }
            }
            let consumed = match wire.poll_read(cx, |bytes| core.consume(bytes)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(consumed))) => consumed,
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Close::Lost),
            };
            if let Err(close) = consumed {
                return Poll::Ready(close);
            }
            if core.is_stalled && core.job.is_none() {
                return Poll::Pending;
            }
        }
    }

    /// Writes what there is; pending at the end in any case.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        let Self { core, wire } = self;
        loop {
            let has_more = core.take_output(wire);
            match wire.poll_write(cx) {
                Poll::Ready(Ok(())) if has_more => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Close::Lost),
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
            }
            // The client took something: what waited for room may go on.
            core.poll_feeder(cx);
        }
    }
}

impl Core {
    /// Moves the session's output to the wire, if that is empty. False if there is nothing.
    pub(super) fn take_output(&mut self, wire: &mut Wire) -> bool {
        let limits = self.broker.limits;
        let mut state = self.session.lock();
        let is_writing = wire.is_writing();
        {
            let Some(online) = state.online_of(self.number) else { return false };
            online.wake_queued = false;
            if is_writing {
                online.wants_wake = false;
                return true;
            }
            online.unsent = 0;
        }
        let mut tally = Tally::default();
        state.pump(limits, self.broker.clock.now_ms(), &mut tally);
        state.groups.iter().for_each(|group| group.has_room());
        let Some(online) = state.online_of(self.number) else { return false };
        online.wants_wake = false;
        let taken = online.out.drain_into(wire.output());
        online.unsent = taken;
        drop(state);
        self.broker.feed.dispatch.count(&tally);
        let metrics = &self.broker.metrics;
        metrics.bytes_received.add(std::mem::take(&mut wire.bytes_read));
        metrics.bytes_sent.add(std::mem::take(&mut wire.bytes_written));
        taken > 0
    }
}
