//! The loop of one connection.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::io::poll_read_buf;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::frames::Frames;
use super::outbox::Outbox;
use super::pending::{Pending, Pendings, Work};
use crate::auth::Principal;
use crate::kafka::broker::Broker;
use crate::kafka::budget::{Queue, Share};
use crate::kafka::data::ProduceAnswer;
use crate::kafka::route::{Outcome, Refusal, Run, Running};
use crate::kafka::sasl;
use crate::kafka::server::RouteTable;
use crate::net::{Peer, Stream};

/// The next request isn't begun while more than this waits to be written: a client that doesn't
/// read holds up nobody but itself.
const MAX_UNSENT_BYTES: usize = 256 * 1024;
/// A request above this takes its share of the budget before it is read to its end.
pub(super) const FREE_BYTES: usize = 64 * 1024;
/// At shutdown a connection has this long to answer what it has begun, and a client at any time to
/// take the last bytes.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection until it ends.
pub(in crate::kafka) async fn run(
    broker: Arc<Broker>,
    routes: Arc<RouteTable>,
    stream: Stream,
    peer: Peer,
    shutdown: CancellationToken,
) {
    let now = Instant::now();
    let idle = Duration::from_millis(broker.config.connections_max_idle_ms);
    let mut connection = Connection {
        frames: Frames::new(broker.config.socket_request_max_bytes),
        outbox: Outbox::default(),
        pendings: Pendings::default(),
        running: None,
        budget: Queue::default(),
        share: None,
        share_since: now,
        principal: None,
        expects_token: false,
        is_closing: false,
        needs_flush: false,
        moved_at: now,
        timer: Box::pin(sleep_until(now + idle)),
        idle,
        shutdown: Box::pin(shutdown.cancelled_owned()),
        is_shut_down: false,
        broker,
        routes,
        stream,
        peer,
    };
    let end = poll_fn(|cx| connection.poll(cx)).await;
    tracing::debug!(peer = %connection.peer.address, %end, "a Kafka connection ended");
    // The client may be gone already, or not take what is left to be sent.
    let _ = timeout(FAREWELL, connection.stream.shutdown()).await;
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the client closed it")]
    Closed,
    #[error("all is answered")]
    Answered,
    #[error("nothing moved for too long")]
    Idle,
    #[error("a request arrives too slowly for the memory that it holds")]
    Slow,
    #[error("the stream failed: {0}")]
    Stream(#[from] std::io::Error),
    #[error("{0}")]
    Size(#[from] super::frames::SizeError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("API {0} version {1} is not served")]
    NotServed(i16, i16),
    #[error("API {0:?} before authentication")]
    NotAuthenticated(ApiKey),
    #[error("a request of {0} bytes is larger than any has reason to be")]
    TooLarge(usize),
    #[error("a Produce without an answer failed")]
    Silent,
}

/// The request whose turn it is.
pub(super) struct Turn {
    pub(super) correlation_id: i32,
    pub(super) tagged: bool,
    pub(super) api_key: i16,
    pub(super) is_barrier: bool,
    pub(super) may_wait: bool,
    pub(super) begun_at: Instant,
    pub(super) work: Running,
    pub(super) _share: Share,
}

pub(super) struct Connection {
    pub(super) broker: Arc<Broker>,
    pub(super) routes: Arc<RouteTable>,
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    pub(super) frames: Frames,
    pub(super) outbox: Outbox,
    pub(super) pendings: Pendings,
    pub(super) running: Option<Turn>,
    /// The place in the queue for memory.
    pub(super) budget: Queue,
    /// Memory for the request that arrives now.
    pub(super) share: Option<Share>,
    /// Since when it is there and the client is not held up.
    pub(super) share_since: Instant,
    pub(super) principal: Option<Principal>,
    /// The next frame is a SASL token without a header.
    pub(super) expects_token: bool,
    pub(super) is_closing: bool,
    pub(super) needs_flush: bool,
    pub(super) moved_at: Instant,
    pub(super) timer: Pin<Box<Sleep>>,
    pub(super) idle: Duration,
    pub(super) shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    pub(super) is_shut_down: bool,
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.advance(cx) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(end)) | Err(end) => Poll::Ready(end),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Result<Poll<End>, End> {
        if !self.is_shut_down && self.shutdown.as_mut().poll(cx).is_ready() {
            self.is_shut_down = true;
            self.close();
            self.moved_at = Instant::now();
            self.idle = self.idle.min(FAREWELL);
        }
        loop {
            let mut moved = self.poll_write(cx)?;
            moved |= self.poll_running(cx)?;
            if !self.is_closing {
                moved |= self.poll_cut(cx)?;
            }
            if !self.is_closing && self.takes_more() {
                moved |= self.poll_read(cx)?;
            }
            if !moved {
                break;
            }
        }
        if self.is_closing
            && self.running.is_none()
            && self.pendings.is_empty()
            && self.outbox.is_empty()
            && !self.needs_flush
        {
            return Ok(Poll::Ready(End::Answered));
        }
        self.poll_timer(cx)
    }

    /// Nothing more is read; what was begun is answered, but nothing is waited for.
    fn close(&mut self) {
        self.is_closing = true;
        self.pendings.drop_waiting();
        if self.running.as_ref().is_some_and(|turn| turn.may_wait) {
            self.running = None;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while !self.outbox.is_empty() {
            let Poll::Ready(written) = self.outbox.poll_write(&mut self.stream, cx)? else {
                return Ok(moved);
            };
            self.broker.metrics.bytes_out.add(u64::try_from(written).unwrap_or(0));
            self.moved_at = Instant::now();
            self.needs_flush = true;
            moved = true;
        }
        if self.needs_flush && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
            self.needs_flush = false;
            moved = true;
        }
        Ok(moved)
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        loop {
            if self.running.is_none() {
                if self.outbox.len() > MAX_UNSENT_BYTES {
                    return Ok(moved);
                }
                let Some(pending) = self.pendings.pop() else { return Ok(moved) };
                self.running = Some(self.begin(pending)?);
                moved = true;
            }
            let Some(turn) = &mut self.running else { return Ok(moved) };
            let Poll::Ready(outcome) = turn.work.as_mut().poll(cx) else { return Ok(moved) };
            let Some(turn) = self.running.take() else { return Ok(moved) };
            moved = true;
            let was_barrier = turn.is_barrier;
            self.answer(turn, outcome?)?;
            if was_barrier {
                self.begin_produces()?;
            }
        }
    }

    /// Begins the appends of what a barrier held up, as far as the next one, all at once: a Produce
    /// that is read from now on is begun at once and must not overtake them (K2).
    fn begin_produces(&mut self) -> Result<(), End> {
        let mut pendings = std::mem::take(&mut self.pendings);
        for pending in pendings.up_to_barrier() {
            if let Work::Request(request) = &pending.work
                && let Some(route) = self.route(request.api as i16)
                && matches!(route.run, Run::Produce)
            {
                self.check_authenticated(route)?;
                let begun = self.broker.data.start_produce(request.version, &request.body);
                pending.work = Work::Begun(Box::new(begun.map_err(Refusal::from)?));
            }
        }
        self.pendings = pendings;
        Ok(())
    }

    fn begin(&self, pending: Pending) -> Result<Turn, End> {
        let begun_at = match pending.work {
            Work::Begun(_) => pending.read_at,
            _ => Instant::now(),
        };
        let broker = self.broker.clone();
        let work: Running = match pending.work {
            Work::Begun(produce) => finish(*produce),
            Work::Token(token) => {
                let peer = self.peer.clone();
                Box::pin(async move {
                    Ok(match sasl::verify(&broker, &token, &peer).await {
                        Ok(principal) => Outcome::Authenticated(Default::default(), principal),
                        Err(_) => Outcome::Close,
                    })
                })
            }
            Work::Request(request) => {
                let route = self
                    .route(request.api as i16)
                    .ok_or(End::NotServed(request.api as i16, request.version))?;
                self.check_authenticated(route)?;
                match &route.run {
                    Run::Produce => {
                        let begun = self.broker.data.start_produce(request.version, &request.body);
                        finish(begun.map_err(Refusal::from)?)
                    }
                    Run::Call(call) => call(broker, request),
                }
            }
        };
        Ok(Turn {
            correlation_id: pending.correlation_id,
            tagged: pending.tagged,
            api_key: pending.api_key,
            is_barrier: pending.is_barrier,
            may_wait: pending.may_wait,
            begun_at,
            work,
            _share: pending.share,
        })
    }

    fn answer(&mut self, turn: Turn, outcome: Outcome) -> Result<(), End> {
        let took = turn.begun_at.elapsed();
        if turn.api_key == ApiKey::Produce as i16 {
            self.broker.metrics.produce.record(took);
        } else if turn.api_key == ApiKey::Fetch as i16 {
            self.broker.metrics.fetch.record(took);
        }
        let body = match outcome {
            Outcome::Body(body) => body,
            Outcome::Silent => return Ok(()),
            Outcome::Close => return Err(End::Silent),
            Outcome::LastBody(body) => {
                self.close();
                body
            }
            Outcome::Authenticated(body, principal) => {
                self.principal = Some(principal);
                if turn.api_key == TOKEN {
                    self.outbox.push_bare(&[]);
                    return Ok(());
                }
                body
            }
            Outcome::Handshaken(body, is_bare) => {
                self.expects_token = is_bare;
                body
            }
        };
        let len = body.len();
        if self.outbox.push(turn.correlation_id, turn.tagged, body) {
            Ok(())
        } else {
            Err(End::TooLarge(len))
        }
    }

    pub(super) fn takes_more(&self) -> bool {
        let config = &self.broker.config;
        self.pendings.len() < config.max_inflight_requests.max(1)
            && (self.pendings.is_empty() || self.pendings.bytes() < config.max_inflight_bytes)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.frames.needs_share(FREE_BYTES)? && self.share.is_none() {
            // Its memory is waited for.
            return Ok(false);
        }
        let stream = Pin::new(&mut self.stream);
        match poll_read_buf(stream, cx, self.frames.room()) {
            Poll::Pending => {
                self.frames.rest();
                Ok(false)
            }
            Poll::Ready(Ok(0)) => {
                if self.pendings.is_empty() && self.running.is_none() {
                    return Err(End::Closed);
                }
                self.close();
                Ok(true)
            }
            Poll::Ready(Ok(read)) => {
                self.frames.was_read(read);
                self.broker.metrics.bytes_in.add(u64::try_from(read).unwrap_or(0));
                self.moved_at = Instant::now();
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }
}

/// Stands for a bare SASL token where an API key is expected.
pub(super) const TOKEN: i16 = -1;

fn finish(produce: crate::kafka::data::Produce) -> Running {
    Box::pin(async move {
        Ok(match produce.finish().await {
            ProduceAnswer::Body(body) => Outcome::Body(body),
            ProduceAnswer::Silent => Outcome::Silent,
            ProduceAnswer::Close => Outcome::Close,
        })
    })
}
