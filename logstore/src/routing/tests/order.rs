//! Random schedules of calls, refusals, cuts, moves and crashes, over the real routes and queues.
//!
//! Nodes are model sequencers of one log: what arrives at the log's node is kept, once for each
//! append key, and with a key only in its producer's order; another node refuses it.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

use interflow_proto::log as proto;
use parking_lot::Mutex;
use proptest::prelude::*;
use proto::append_request::Kind;

use super::super::routes::Doubted;
use super::*;
use crate::rpc::client::queues::{QueueLimits, Queues};
use crate::{AppendKey, AppendResult, Appended, NodeClient, NodeId, Unanswered};

const NODES: usize = 3;
const LIMITS: QueueLimits = QueueLimits {
    max_bytes: 1 << 20,
    max_log_bytes: 1 << 20,
    max_batch_bytes: 1 << 16,
    timeout: Duration::from_secs(1_000),
    silence: Duration::from_secs(3),
    is_routed: true,
};

/// A node's client over its real queues.
struct Lane {
    id: NodeId,
    queues: Mutex<Queues>,
}

impl NodeClient for Lane {
    fn node(&self) -> NodeId {
        self.id
    }

    fn send(&self, append: Unanswered) {
        self.queues.lock().put(append, Instant::now());
    }

    fn take_back(&self, log: LogId) -> VecDeque<Unanswered> {
        self.queues.lock().take_back(log)
    }

    fn resume(&self, log: LogId) {
        self.queues.lock().resume(log);
    }

    fn has_unanswered(&self, log: LogId) -> bool {
        self.queues.lock().has_unanswered(log)
    }
}

#[async_trait]
impl LogClient for Lane {
    fn append(&self, _: Append) -> AppendTicket {
        panic!("a router sends")
    }

    async fn bounds(&self, _: LogId) -> Result<Bounds, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn read(&self, _: Read) -> Result<ReadOutcome, ReadError> {
        Err(ReadError::NoSuchLog)
    }

    async fn observe(&self, _: LogId, _: Arc<dyn LogObserver>) -> Result<Observation, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn batch_at_time(&self, _: LogId, _: i64) -> Result<Option<(Offset, i64)>, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn batch_of_max_time(&self, _: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn end_of_leader_epoch(
        &self,
        _: LogId,
        _: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn trim(&self, _: LogId, _: Offset) -> Result<Offset, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn refresh(&self, _: LogId) -> Result<(), LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn describe(&self, _: LogId) -> Result<LogDescription, LogError> {
        Err(LogError::NoSuchLog)
    }
}

/// An append at a node that isn't answered: its id, and its name if it was kept.
type AtNode = (u64, Result<i64, AppendError>);

#[derive(Default)]
struct Node {
    unanswered: VecDeque<AtNode>,
    /// It answers nothing more until it is cut.
    is_silent: bool,
}

struct World {
    routes: Routes,
    lanes: Vec<Arc<Lane>>,
    nodes: Vec<Node>,
    owner: usize,
    /// What the log holds, and whether that can't be lost.
    kept: Vec<(i64, bool)>,
    /// The key of the next call with one, and how many of those the log holds.
    key: AppendKey,
    keys: BTreeMap<i64, AppendKey>,
    /// It came back to a node that hadn't answered what came before.
    has_returned: bool,
    /// How often each name arrived at the log's node.
    arrivals: BTreeMap<i64, u32>,
    tickets: Vec<(AppendTicket, bool)>,
    is_looking: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Call(bool),
    Send(usize),
    Answer(usize, usize),
    Cut(usize),
    /// The log's node gives it to another, with all that it has.
    Move(usize),
    /// The log's node says nothing more; another goes on with so much of what wasn't committed.
    Crash(usize, usize),
    Doubt(usize),
    Find,
    /// A call's lookup, of now, is remembered.
    Remember,
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<bool>().prop_map(Step::Call),
        8 => (0..NODES).prop_map(Step::Send),
        6 => (0..NODES, 1..5_usize).prop_map(|(node, count)| Step::Answer(node, count)),
        2 => (0..NODES).prop_map(Step::Cut),
        1 => (0..NODES).prop_map(Step::Move),
        1 => (0..NODES, 0..5_usize).prop_map(|(node, kept)| Step::Crash(node, kept)),
        2 => (0..NODES).prop_map(Step::Doubt),
        4 => Just(Step::Find),
        1 => Just(Step::Remember),
        1 => Just(Step::Forget),
    ]
}

impl World {
    fn new() -> Self {
        let lane = |id| {
            let mut queues = Queues::new(LIMITS);
            queues.welcomed(2_000);
            Arc::new(Lane { id: NodeId(id), queues: Mutex::new(queues) })
        };
        Self {
            routes: Routes::new(1 << 20, 1),
            lanes: (0..3).map(lane).collect(),
            nodes: (0..NODES).map(|_| Node::default()).collect(),
            owner: 0,
            kept: Vec::new(),
            key: AppendKey { producer_id: 1, producer_epoch: 0, sequence: 0 },
            keys: BTreeMap::new(),
            has_returned: false,
            arrivals: BTreeMap::new(),
            tickets: Vec::new(),
            is_looking: false,
        }
    }

    fn client(&self) -> Client {
        self.lanes[self.owner].clone()
    }

    fn call(&mut self, is_keyed: bool) {
        let name = i64::try_from(self.tickets.len()).unwrap();
        let batch = Bytes::from(vec![0; 100]);
        let key = is_keyed.then_some(self.key);
        if is_keyed {
            self.keys.insert(name, self.key);
            self.key.sequence += 1;
        }
        let append = Append { key, batch, max_timestamp: name, ..super::append(LOG, "") };
        let (ticket, looks) = match self.routes.offer(append, Instant::now() + LIMITS.timeout) {
            Offered::Done(ticket) => (ticket, false),
            Offered::Look(ticket) => (ticket, true),
        };
        self.is_looking |= looks;
        self.tickets.push((ticket, is_keyed));
    }

    /// One message gets from the client to the node.
    fn send(&mut self, node: usize) -> bool {
        let request = self.lanes[node].queues.lock().next(Instant::now());
        match request.and_then(|request| request.kind) {
            Some(Kind::Put(put)) => {
                let name = put.max_timestamp;
                let is_there = node == self.owner && !self.nodes[node].is_silent;
                let taken =
                    if is_there { self.arrive(name) } else { Err(AppendError::NotSequencer) };
                self.nodes[node].unanswered.push_back((put.id, taken));
                true
            }
            Some(_) => true,
            None => false,
        }
    }

    /// An append gets to the log's node.
    fn arrive(&mut self, name: i64) -> Result<i64, AppendError> {
        *self.arrivals.entry(name).or_default() += 1;
        let key = self.keys.get(&name).copied();
        assert!(key.is_some() || self.arrivals[&name] == 1, "{name} came twice");
        if self.kept.iter().any(|(kept, _)| *kept == name) {
            return Ok(name);
        }
        let of = |name: &i64| self.keys.get(name).map(|key| key.producer_id);
        let alike = |kept: &i64| of(kept) == of(&name);
        let last = self.kept.iter().rev().map(|(kept, _)| *kept).find(alike);
        if let Some(AppendKey { sequence: got, .. }) = key {
            let before = last.and_then(|last| self.keys.get(&last));
            let expected = before.map_or(0, |before| before.sequence + 1);
            if got != expected {
                return Err(AppendError::OutOfOrderSequence { expected, got });
            }
        }
        assert!(last < Some(name), "{name} came after {last:?}");
        self.kept.push((name, false));
        Ok(name)
    }

    /// The log is at `to`.
    fn put_at(&mut self, to: usize) {
        // What its node before has is below the closed tail.
        self.kept.iter_mut().for_each(|(_, is_committed)| *is_committed = true);
        self.has_returned |= !self.nodes[to].unanswered.is_empty();
        self.owner = to;
    }

    fn answer(&mut self, node: usize) -> bool {
        if self.nodes[node].is_silent {
            return false;
        }
        let Some((id, kept)) = self.nodes[node].unanswered.pop_front() else { return false };
        let result: AppendResult = match kept {
            Ok(name) => {
                let at = self.kept.iter().position(|(kept, _)| *kept == name).unwrap();
                self.kept[at].1 = true;
                let base_offset = u64::try_from(name).unwrap();
                Ok(Appended { base_offset, log_start: 0, duplicate: false })
            }
            Err(error) => {
                if matches!(error, AppendError::OutOfOrderSequence { .. }) {
                    // Its producer begins anew.
                    let producer_id = self.key.producer_id + 1;
                    self.key = AppendKey { producer_id, sequence: 0, ..self.key };
                }
                Err(error)
            }
        };
        let answered = self.lanes[node].queues.lock().answered(id, result).unwrap();
        if answered == crate::rpc::client::queues::Answered::Refused(LOG) {
            self.doubt(node);
        }
        true
    }

    fn cut(&mut self, node: usize) {
        self.nodes[node] = Node::default();
        let mut queues = self.lanes[node].queues.lock();
        queues.cut();
        queues.welcomed(2_000);
    }

    fn doubt(&mut self, node: usize) {
        let doubted = self.routes.doubt(LOG, self.lanes[node].id);
        self.is_looking |= matches!(doubted, Doubted::Look(_));
    }

    fn find(&mut self) {
        if std::mem::take(&mut self.is_looking) {
            self.routes.found(LOG, &self.client());
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Call(is_keyed) => self.call(is_keyed),
            Step::Send(node) => drop(self.send(node)),
            Step::Answer(node, count) => {
                for _ in 0..count {
                    self.answer(node);
                }
            }
            Step::Cut(node) => self.cut(node),
            Step::Move(to) => self.put_at(to),
            Step::Crash(to, count) if to != self.owner => {
                let committed = self
                    .kept
                    .iter()
                    .rposition(|(_, is_committed)| *is_committed)
                    .map_or(0, |at| at + 1);
                self.kept.truncate(committed + count);
                self.nodes[self.owner].is_silent = true;
                self.put_at(to);
            }
            Step::Crash(..) => {}
            Step::Doubt(node) => self.doubt(node),
            Step::Find => self.find(),
            Step::Remember => drop(self.routes.remember(LOG, &self.client())),
            Step::Forget => self.lanes.clone().into_iter().for_each(|lane| {
                let lane: Client = lane;
                self.routes.forget(LOG, &lane);
            }),
        }
    }

    /// Everything goes well from now on, and is answered.
    fn finish(&mut self) {
        for _ in 0..2 {
            for node in 0..NODES {
                self.cut(node);
                self.doubt(node);
            }
            self.find();
            self.routes.remember(LOG, &self.client());
            while (0..NODES).any(|node| self.send(node) | self.answer(node)) {
                self.find();
            }
        }
    }
}

fn answer(ticket: &mut AppendTicket) -> Option<AppendResult> {
    match std::pin::Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// In the log, a producer's appends are in the order of the calls, each once, as are those
    /// without a key; what was answered as appended is there, what was refused isn't; each is
    /// answered, with a key as appended; and nothing without a key came twice. When the log comes
    /// back to a node in the midst of refusals, a later one may be taken and an earlier one refused.
    #[test]
    fn whatever_happens_appends_arrive_in_the_order_of_the_calls_and_are_answered_once(
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
        let World { mut tickets, kept, lanes, routes, has_returned, .. } = world;
        for (name, (ticket, is_keyed)) in (0_i64..).zip(&mut tickets) {
            let is_kept = kept.iter().any(|(kept, _)| *kept == name);
            match answer(ticket) {
                Some(Ok(appended)) => {
                    prop_assert!(is_kept);
                    prop_assert_eq!(appended.base_offset, u64::try_from(name).unwrap());
                }
                Some(Err(AppendError::Unknown)) => prop_assert!(!*is_keyed, "{name} has a key"),
                Some(Err(AppendError::NotSequencer)) => {
                    prop_assert!(!is_kept && !*is_keyed, "{name} has a key or is in the log");
                }
                Some(Err(AppendError::OutOfOrderSequence { .. })) => {
                    prop_assert!(!is_kept && has_returned, "{name} isn't out of order");
                }
                other => prop_assert!(false, "{name} was answered {other:?}"),
            }
        }
        for lane in lanes {
            prop_assert!(lane.queues.lock().is_empty());
        }
        prop_assert!(routes.client(LOG).is_some() || tickets.is_empty());
    }
}
