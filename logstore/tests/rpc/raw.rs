//! Read streams message by message: what a server makes of any client.

use std::sync::Arc;

use interflow_logstore::{LogId, LogServerOptions};
use interflow_meta::grpc::{Credentials, Protocol};
use interflow_proto::log as proto;
use proto::log_client::LogClient;
use proto::read_answer::Kind as Answer;
use proto::read_request::Kind;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::bed::options;
use super::fake::Holding;

const HELD: LogId = LogId(1);
const FREE: LogId = LogId(2);
const PROTOCOL: Protocol = Protocol { header: "interflow-log-protocol", number: 2 };
const CLIENT: u64 = 7;
const CREDIT: u64 = 1_000;

/// A stream to a server over a log service that holds.
struct Raw {
    requests: mpsc::UnboundedSender<proto::ReadRequest>,
    answers: Streaming<proto::ReadAnswers>,
    ready: Vec<proto::ReadAnswer>,
}

struct World {
    holding: Arc<Holding>,
    port: u16,
    _closing: tokio_util::sync::DropGuard,
}

impl World {
    async fn new(options: LogServerOptions) -> Self {
        let holding = Holding::new(HELD);
        let (port, closing): (_, CancellationToken) = holding.serve(options).await;
        Self { holding, port, _closing: closing.drop_guard() }
    }

    /// A stream that begins with `first`.
    async fn begin(&self, first: Kind) -> Result<Raw, Status> {
        let channel = options(self.port).remote.channel().unwrap();
        let credentials = Credentials::new(PROTOCOL, None);
        let mut grpc = LogClient::with_interceptor(channel, credentials);
        let (requests, mut received) = mpsc::unbounded_channel();
        requests.send(proto::ReadRequest { kind: Some(first) }).unwrap();
        let sent = futures_util::stream::poll_fn(move |cx| received.poll_recv(cx));
        let answers = grpc.read(sent).await?.into_inner();
        let mut raw = Raw { requests, answers, ready: Vec::new() };
        let (0, Answer::Welcome(welcome)) = raw.next().await? else { panic!("not a welcome") };
        assert_eq!((welcome.node, welcome.incarnation), (1, 1));
        Ok(raw)
    }

    async fn welcomed(&self, stream: u64) -> Raw {
        self.begin(Kind::Hello(hello(stream))).await.unwrap()
    }
}

impl Raw {
    fn send(&self, kind: Kind) {
        self.requests.send(proto::ReadRequest { kind: Some(kind) }).unwrap();
    }

    async fn next(&mut self) -> Result<(u64, Answer), Status> {
        if self.ready.is_empty() {
            let message = self.answers.message().await?;
            self.ready = message.expect("the stream goes on").answers;
        }
        let answer = self.ready.remove(0);
        Ok((answer.id, answer.kind.unwrap()))
    }

    /// What the stream ends with.
    async fn end(mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

fn hello(stream: u64) -> proto::Hello {
    proto::Hello { node: 1, client: CLIENT, stream }
}

/// A read that brings a batch of 100 bytes.
fn read(id: u64, log: LogId) -> proto::Read {
    proto::Read {
        id,
        log: log.0,
        offset: 100,
        max_bytes: 1,
        credit_bytes: CREDIT,
        timeout_ms: 60_000,
        stable_only: false,
        filter: None,
    }
}

#[tokio::test]
async fn answers_come_as_reads_are_done() {
    let world = World::new(LogServerOptions::default()).await;
    let mut raw = world.welcomed(1).await;
    raw.send(Kind::Read(read(1, HELD)));
    raw.send(Kind::Read(read(2, FREE)));
    raw.send(Kind::Read(read(3, HELD)));
    raw.send(Kind::Read(proto::Read { offset: CREDIT + 1, ..read(5, FREE) }));
    assert!(matches!(raw.next().await.unwrap(), (2, Answer::Outcome(_))));
    assert!(matches!(raw.next().await.unwrap(), (5, Answer::NeedsBytes(1_001))));
    world.holding.reads_allowed.add_permits(2);
    let mut rest = [raw.next().await.unwrap(), raw.next().await.unwrap()];
    rest.sort_by_key(|(id, _)| *id);
    assert!(matches!(rest, [(1, Answer::Outcome(_)), (3, Answer::Outcome(_))]));
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_done() {
    let world = World::new(LogServerOptions::default()).await;
    let mut raw = world.welcomed(1).await;
    // Its time is up before it is begun, …
    raw.send(Kind::Read(proto::Read { timeout_ms: 0, ..read(1, FREE) }));
    assert!(matches!(raw.next().await.unwrap(), (1, Answer::Dropped(_))));
    assert_eq!(world.holding.reads.borrow().begun, 0);
    // … on the way, …
    raw.send(Kind::Read(proto::Read { timeout_ms: 10, ..read(2, HELD) }));
    assert!(matches!(raw.next().await.unwrap(), (2, Answer::Dropped(_))));
    world.holding.reads(1, 1).await;
    // … and it is cancelled. A cancel that comes late, or of nothing, is nothing.
    raw.send(Kind::Read(read(3, HELD)));
    world.holding.reads(2, 1).await;
    raw.send(Kind::Cancel(3));
    raw.send(Kind::Cancel(3));
    raw.send(Kind::Cancel(77));
    assert!(matches!(raw.next().await.unwrap(), (3, Answer::Dropped(_))));
    world.holding.reads(2, 2).await;
    // A client that is gone waits for nothing.
    raw.send(Kind::Read(read(4, HELD)));
    world.holding.reads(3, 2).await;
    drop(raw);
    world.holding.reads(3, 3).await;
}

#[tokio::test]
async fn a_read_that_means_nothing_is_an_error_of_its_own() {
    let world = World::new(LogServerOptions::default()).await;
    let mut raw = world.welcomed(1).await;
    let filter = Some(proto::KeyDigest { hashes: vec![2, 1] });
    raw.send(Kind::Read(proto::Read { filter, ..read(1, FREE) }));
    assert!(matches!(raw.next().await.unwrap(), (1, Answer::Error(_))));
    raw.send(Kind::Read(read(2, FREE)));
    assert!(matches!(raw.next().await.unwrap(), (2, Answer::Outcome(_))));
}

#[tokio::test]
async fn a_stream_that_breaks_the_rules_is_ended() {
    let window = 3 * (usize::try_from(CREDIT).unwrap() + 128);
    let options =
        LogServerOptions { read_window_bytes: window, max_reads: 4, ..LogServerOptions::default() };
    let world = World::new(options).await;
    let small = |id| Kind::Read(proto::Read { credit_bytes: 0, ..read(id, HELD) });
    let whole = |id| Kind::Read(read(id, HELD));
    let huge = Kind::Read(proto::Read { credit_bytes: u64::MAX, ..read(2, HELD) });
    let broken: [(&str, Vec<Kind>, Code); 5] = [
        ("an id twice", vec![small(1), small(1)], Code::InvalidArgument),
        ("a second hello", vec![Kind::Hello(hello(9))], Code::InvalidArgument),
        ("too many", (1..=5).map(small).collect(), Code::ResourceExhausted),
        ("too much", (1..=4).map(whole).collect(), Code::ResourceExhausted),
        ("far too much", vec![whole(1), huge], Code::ResourceExhausted),
    ];
    for (stream, (what, kinds, code)) in (1..).zip(broken) {
        let raw = world.welcomed(stream).await;
        kinds.into_iter().for_each(|kind| raw.send(kind));
        assert_eq!(raw.end().await.code(), code, "{what}");
        // What was begun for it is over.
        world.holding.reads.subscribe().wait_for(|reads| reads.begun == reads.over).await.unwrap();
    }
    let raw = world.welcomed(20).await;
    raw.requests.send(proto::ReadRequest { kind: None }).unwrap();
    assert_eq!(raw.end().await.code(), Code::InvalidArgument);
    let refused = world.begin(small(1)).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let other = proto::Hello { node: 2, ..hello(30) };
    let refused = world.begin(Kind::Hello(other)).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_later_stream_of_a_client_ends_the_earlier() {
    let world = World::new(LogServerOptions::default()).await;
    let first = world.welcomed(1).await;
    first.send(Kind::Read(read(1, HELD)));
    world.holding.reads(1, 0).await;
    let mut second = world.welcomed(2).await;
    assert_eq!(first.end().await.code(), Code::Aborted);
    world.holding.reads(1, 1).await;
    second.send(Kind::Read(read(1, FREE)));
    assert!(matches!(second.next().await.unwrap(), (1, Answer::Outcome(_))));
    assert_eq!(world.begin(Kind::Hello(hello(1))).await.err().unwrap().code(), Code::Aborted);
}
