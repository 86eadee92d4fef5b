//! Random work over the real journal on the fault disk, power cuts at random moments, and what
//! must hold afterwards (I1, I2, I3, I6, I8), compared with what was acknowledged and seen.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;

use super::*;
use crate::disk::FaultDisk;
use crate::journal::core::Group;
use crate::store::shared::{WorkerFile, Written};
use crate::store::{
    Entry, EntryHeader, EntryStore, FoundSegment, JournalStore, Options, Position, SegmentId,
    SegmentRead, SegmentReadOutcome, StoreError, StoreEvents, keeper,
};
use crate::{AppendError, Appended};

/// Batches of a producer that are on their way at the same time: no more than are remembered.
const PIPELINE: usize = 5;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mutant {
    None,
    /// Syncs say Ok and do nothing.
    NoSync,
    /// What was appended is reported durable at once.
    AckAtAppend,
}

/// Meta that keeps the answers of some rolls back, or the rolls themselves.
struct Turnstile {
    meta: Meta,
    rng: Mutex<StdRng>,
    held: Mutex<Vec<oneshot::Sender<()>>>,
    is_dead: AtomicBool,
}

#[derive(Clone, Copy, PartialEq)]
enum Hold {
    Not,
    Before,
    After,
}

impl Turnstile {
    async fn hold(&self) -> Result<(), RegistryError> {
        let (release, held) = oneshot::channel();
        self.held.lock().push(release);
        held.await.map_err(|_| RegistryError("the power was cut".to_owned()))
    }

    fn check(&self) -> Result<(), RegistryError> {
        match self.is_dead.load(Ordering::SeqCst) {
            true => Err(RegistryError("the power was cut".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Registry for Turnstile {
    async fn load(&self, log: LogId) -> Result<Option<LogRecord>, RegistryError> {
        self.check()?;
        Registry::load(&self.meta, log).await
    }

    async fn roll(&self, roll: &Roll) -> Result<RollOutcome, RegistryError> {
        let hold = match self.rng.lock().random_range(0..10) {
            0..2 => Hold::Before,
            2..4 => Hold::After,
            _ => Hold::Not,
        };
        if hold == Hold::Before {
            self.hold().await?;
        }
        self.check()?;
        let outcome = self.meta.roll(roll).await;
        if hold == Hold::After {
            self.hold().await?;
        }
        outcome
    }

    async fn trim(&self, log: LogId, before: Offset) -> Result<Option<Offset>, RegistryError> {
        self.check()?;
        Registry::trim(&self.meta, log, before).await
    }

    async fn set_replicas(
        &self,
        log: LogId,
        closed: &crate::core::chain::Closed,
        replicas: &[NodeId],
    ) -> Result<bool, RegistryError> {
        self.check()?;
        self.meta.set_replicas(log, closed, replicas).await
    }

    async fn logs(
        &self,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<(LogId, Head)>, RegistryError> {
        self.check()?;
        self.meta.logs(after, limit).await
    }

    fn token(&self) -> u64 {
        self.meta.random_u64()
    }
}

/// The journal as the service sees it; the mutant that reports too early is here.
struct Reporter {
    journal: JournalStore,
    progress: Arc<Progress>,
    mutant: Mutant,
}

#[async_trait]
impl EntryStore for Reporter {
    fn append(&self, entry: &Entry<'_>) -> Result<Position, StoreError> {
        let position = self.journal.append(entry)?;
        if self.mutant == Mutant::AckAtAppend {
            // Never from within the call: the log's lock is held.
            let progress = Arc::clone(&self.progress);
            tokio::spawn(async move { progress.durable(position) });
        }
        Ok(position)
    }

    fn try_read(&self, read: &SegmentRead) -> Option<Result<SegmentReadOutcome, StoreError>> {
        self.journal.try_read(read)
    }

    async fn read(&self, read: SegmentRead) -> Result<SegmentReadOutcome, StoreError> {
        self.journal.read(read).await
    }

    async fn headers(
        &self,
        id: SegmentId,
        from: Offset,
    ) -> Result<Vec<(EntryHeader, Option<Bytes>)>, StoreError> {
        self.journal.headers(id, from).await
    }

    async fn last_snapshot(
        &self,
        id: SegmentId,
    ) -> Result<Option<(EntryHeader, Bytes)>, StoreError> {
        self.journal.last_snapshot(id).await
    }

    async fn seek_time(
        &self,
        id: SegmentId,
        timestamp: i64,
        end: Offset,
    ) -> Result<Option<(Offset, i64)>, StoreError> {
        self.journal.seek_time(id, timestamp, end).await
    }

    fn segment(&self, id: SegmentId) -> Option<FoundSegment> {
        self.journal.segment(id)
    }

    fn segments_of(&self, log: LogId) -> Vec<FoundSegment> {
        self.journal.segments_of(log)
    }

    fn segments(&self) -> Vec<FoundSegment> {
        self.journal.segments()
    }

    fn may_lack_segments(&self) -> bool {
        self.journal.may_lack_segments()
    }

    fn close_segment(&self, id: SegmentId) {
        self.journal.close_segment(id);
    }

    fn drop_segment(&self, id: SegmentId) {
        self.journal.drop_segment(id);
    }

    fn expect_lives(&self, lives: &[(LogId, Option<Duration>)]) {
        self.journal.expect_lives(lives);
    }

    fn knows_life(&self, log: LogId) -> bool {
        self.journal.knows_life(log)
    }

    fn look_for_room(&self) {
        self.journal.look_for_room();
    }

    async fn close(&self) {
        self.journal.close().await;
    }
}

/// A thread of the journal, as far as it got.
enum Worker {
    Idle,
    Took(Group),
    Synced(Written),
}

/// One life of the process.
struct Life {
    logs: LogStore,
    store: Arc<Reporter>,
    turnstile: Arc<Turnstile>,
    workers: Vec<(Worker, WorkerFile)>,
}

/// An idempotent producer of one log, as a Kafka client is one.
struct Producer {
    id: i64,
    next: i32,
    /// Sent and not acknowledged, in order.
    pipeline: VecDeque<Sent>,
}

struct Sent {
    sequence: i32,
    count: u32,
    text: String,
    answer: Answer,
}

enum Answer {
    Waiting(AppendTicket),
    Acked(Appended),
    Failed(AppendError),
    /// Its fate is not known: it has to be sent again.
    Lost,
}

/// A log and all that was promised about it.
struct Promises {
    log: LogId,
    is_durable: bool,
    producers: Vec<Producer>,
    /// Batches without a key: no retry, so at most once.
    plain: Vec<(String, AppendTicket)>,
    acked: BTreeMap<Offset, String>,
    seen: BTreeMap<Offset, String>,
    committed: Offset,
}

struct World {
    rng: StdRng,
    mutant: Mutant,
    disk: FaultDisk,
    meta: Meta,
    clock: Arc<ManualClock>,
    life: Life,
    incarnation: u64,
    all: Vec<Promises>,
    serial: u64,
}

fn options(seed: u64) -> Options {
    Options {
        extent_bytes: 32 << 10,
        sync_depth: 3,
        max_in_flight_bytes: 16 << 10,
        chunk_bytes: 4 << 10,
        tail_cache_bytes: 8 << 10,
        index_cache_bytes: 4 << 10,
        min_free_bytes: 0,
        min_free_percent: 0,
        rewrite_live_percent: 50,
        rewrite_bytes_per_second: u64::MAX,
        seed: Some(seed),
        threads: false,
        ..Options::default()
    }
}

fn start(
    disk: &FaultDisk,
    meta: &Meta,
    clock: &Arc<ManualClock>,
    incarnation: u64,
    seed: u64,
    mutant: Mutant,
) -> Life {
    let progress = Progress::new();
    let journal = JournalStore::open(
        Arc::new(disk.folder("journal")),
        options(seed),
        Arc::clone(&progress) as Arc<dyn StoreEvents>,
    )
    .expect("the journal starts");
    let store = Arc::new(Reporter { journal, progress: Arc::clone(&progress), mutant });
    let turnstile = Arc::new(Turnstile {
        meta: meta.clone(),
        rng: Mutex::new(StdRng::seed_from_u64(seed)),
        held: Mutex::default(),
        is_dead: AtomicBool::new(false),
    });
    let config = LogConfig { snapshot_batches: 7, ..LogConfig::default() };
    let logs = LogStore::start(Parts {
        registry: Arc::clone(&turnstile) as Arc<dyn Registry>,
        upkeep: Arc::clone(&turnstile) as Arc<dyn Registry>,
        store: Arc::clone(&store) as Arc<dyn EntryStore>,
        progress,
        clock: Arc::clone(clock) as Arc<dyn crate::clock::Clock>,
        config,
        identity: Identity { node: NODE, incarnation },
        peers: Arc::new(crate::peers::Alone(NODE)),
        seals: Default::default(),
        rules: Default::default(),
    });
    let workers = (0..3).map(|_| (Worker::Idle, WorkerFile::default())).collect();
    Life { logs, store, turnstile, workers }
}

impl Life {
    fn work(&mut self, n: usize) {
        let shared = &self.store.journal.shared;
        let (worker, file) = &mut self.workers[n];
        *worker = match std::mem::replace(worker, Worker::Idle) {
            Worker::Idle => match shared.state.lock().core.take() {
                Some(group) => Worker::Took(group),
                None => Worker::Idle,
            },
            Worker::Took(group) => {
                let written = shared.write(&group, file).expect("no write fails here");
                written.file.sync().expect("no sync fails here");
                Worker::Synced(written)
            }
            Worker::Synced(written) => {
                shared.finish(&written);
                Worker::Idle
            }
        };
    }

    /// Lets held rolls go on.
    fn release(&self) {
        for held in std::mem::take(&mut *self.turnstile.held.lock()) {
            let _ = held.send(());
        }
    }

    /// Waits until tasks have come as far as they can.
    async fn settle(&self) {
        // A held call to meta, and those who wait for its answer.
        let inner = &self.logs.inner;
        while inner.tasks() > self.turnstile.held.lock().len() + inner.gathers.unanswered() {
            tokio::task::yield_now().await;
        }
    }

    /// Moves everything on until nothing is under way.
    async fn drain(&mut self) {
        loop {
            self.release();
            self.settle().await;
            for n in 0..self.workers.len() {
                for _ in 0..3 {
                    self.work(n);
                }
            }
            while keeper::keep_one(&self.store.journal.shared).is_some() {}
            let is_quiet = self.logs.inner.tasks() == 0 && self.logs.durable_lag() == 0;
            if is_quiet || self.logs.health() != crate::Health::Serving {
                return;
            }
        }
    }
}

impl World {
    async fn new(seed: u64, mutant: Mutant) -> Self {
        let disk = FaultDisk::new();
        let store = EmbeddedStore::in_memory(Env::default()).expect("a store in memory");
        let meta = Meta::new(Arc::new(store), Env::default(), "test");
        let clock = Arc::new(ManualClock::new(START_MS));
        let life = start(&disk, &meta, &clock, 1, seed, mutant);
        disk.set_no_sync(mutant == Mutant::NoSync);
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            mutant,
            disk,
            meta,
            clock,
            life,
            incarnation: 1,
            all: Vec::new(),
            serial: 0,
        };
        for n in 0..4 {
            let class = if n == 3 { Durability::Volatile } else { Durability::Durable };
            let log = world.create(class, n).await;
            let producers =
                (0..3).map(|id| Producer { id, next: 0, pipeline: VecDeque::new() }).collect();
            world.all.push(Promises {
                log,
                is_durable: class == Durability::Durable,
                producers,
                plain: Vec::new(),
                acked: BTreeMap::new(),
                seen: BTreeMap::new(),
                committed: 0,
            });
        }
        world
    }

    async fn create(&self, durability: Durability, n: u32) -> LogId {
        let policy = Policy {
            segment_bytes: 200 + u64::from(n) * 1500,
            retention_bytes: (n == 1).then_some(6000),
            ..Policy::default()
        };
        let opening = Opening {
            base: 0,
            leader_epoch: 0,
            sequencer: NODE,
            incarnation: 1,
            replicas: vec![NODE],
            token: 1,
            opened_ms: START_MS,
        };
        let new = NewTopic {
            name: format!("topic-{n}"),
            id: Uuid::from_u128(u128::from(n) + 1),
            partitions: 1,
            config: Default::default(),
            logs: NewLogs { durability, policy, replication_factor: 1, opening },
        };
        let new = &new;
        let topic = self
            .meta
            .transact(|tx| async move { topics::create(&tx, DEFAULT_TENANT, new).await })
            .await
            .expect("a new topic");
        topic.logs[0]
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.rng.random_range(0..100) {
            0..40 => self.send(),
            40..75 => {
                let n = self.rng.random_range(0..self.life.workers.len());
                self.life.work(n);
            }
            75..82 => {
                keeper::keep_one(&self.life.store.journal.shared);
            }
            82..90 => self.life.release(),
            90..93 => {
                self.life.release();
                self.life.settle().await;
                self.life.release();
                self.life.logs.retain_now().await;
            }
            93..95 => {
                let n = self.rng.random_range(0..self.all.len());
                self.life.release();
                self.life.settle().await;
                let log = self.all[n].log;
                self.check(n).await?;
                if n == 2 && self.rng.random_bool(0.3) {
                    let target = self.rng.random_range(0..self.all[n].committed + 1);
                    let start = self.life.logs.trim(log, target).await;
                    start.map_err(|error| format!("trim: {error}"))?;
                }
            }
            95..98 => self.clock.advance(self.rng.random_range(0..1000)),
            _ => {
                let n = self.rng.random_range(0..self.all.len());
                self.life.settle().await;
                self.check_held_free(n).await?;
            }
        }
        if self.rng.random_bool(0.7) {
            self.life.settle().await;
        }
        self.collect().await
    }

    async fn check_held_free(&mut self, n: usize) -> Result<(), String> {
        if self.life.turnstile.held.lock().is_empty() {
            self.check(n).await?;
        }
        Ok(())
    }

    /// A client does something.
    fn send(&mut self) {
        let n = self.rng.random_range(0..self.all.len());
        let promises = &mut self.all[n];
        let count = self.rng.random_range(1..4);
        let len = if self.rng.random_bool(0.05) { 2500 } else { 150 };
        let len = self.rng.random_range(8..len);
        self.serial += 1;
        let text = format!("{}-{}", self.serial, "x".repeat(len));
        if self.rng.random_bool(0.2) {
            let append = Append { count, ..batch(promises.log, 1, &text) };
            promises.plain.push((text, self.life.logs.append(append)));
            return;
        }
        let which = self.rng.random_range(0..promises.producers.len());
        let producer = &mut promises.producers[which];
        let is_answered = |sent: &Sent| !matches!(sent.answer, Answer::Waiting(_));
        let is_failed = |sent: &Sent| matches!(sent.answer, Answer::Failed(_) | Answer::Lost);
        if producer.pipeline.iter().any(is_failed) {
            // All that failed goes again, in order, once all were answered.
            if producer.pipeline.iter().all(is_answered) {
                for sent in &mut producer.pipeline {
                    let append = Append {
                        count: sent.count,
                        ..keyed(promises.log, producer.id, sent.sequence, &sent.text)
                    };
                    if is_failed(sent) {
                        sent.answer = Answer::Waiting(self.life.logs.append(append));
                    }
                }
            }
        } else if producer.pipeline.len() < PIPELINE {
            let sequence = producer.next;
            producer.next += i32::try_from(count).expect("small");
            let append = Append { count, ..keyed(promises.log, producer.id, sequence, &text) };
            let answer = Answer::Waiting(self.life.logs.append(append));
            producer.pipeline.push_back(Sent { sequence, count, text, answer });
        }
    }

    /// Takes in what was answered.
    async fn collect(&mut self) -> Result<(), String> {
        tokio::task::yield_now().await;
        for promises in &mut self.all {
            for producer in &mut promises.producers {
                for sent in &mut producer.pipeline {
                    if let Answer::Waiting(ticket) = &mut sent.answer
                        && let Some(result) = poll(ticket).await
                    {
                        sent.answer = match result {
                            Ok(appended) => Answer::Acked(appended),
                            Err(error) => Answer::Failed(error),
                        };
                    }
                }
                // A sequence error is a bug, unless an earlier batch was refused for a reason.
                for sent in &producer.pipeline {
                    match &sent.answer {
                        Answer::Failed(
                            AppendError::Unknown
                            | AppendError::Busy
                            | AppendError::JournalFailed
                            | AppendError::Stopped(_),
                        ) => break,
                        Answer::Failed(error) => {
                            return Err(format!(
                                "log {}: {error} for {}",
                                promises.log, sent.sequence
                            ));
                        }
                        Answer::Lost => break,
                        Answer::Waiting(_) | Answer::Acked(_) => {}
                    }
                }
                while let Some(Sent { answer: Answer::Acked(appended), .. }) =
                    producer.pipeline.front()
                {
                    let offset = appended.base_offset;
                    let sent = producer.pipeline.pop_front().expect("looked at");
                    promise(&mut promises.acked, offset, sent.text)?;
                }
            }
            let mut left = Vec::new();
            for (text, mut ticket) in std::mem::take(&mut promises.plain) {
                match poll(&mut ticket).await {
                    None => left.push((text, ticket)),
                    Some(Ok(appended)) => promise(&mut promises.acked, appended.base_offset, text)?,
                    Some(Err(
                        AppendError::Unknown
                        | AppendError::Busy
                        | AppendError::JournalFailed
                        | AppendError::Stopped(_),
                    )) => {}
                    Some(Err(error)) => return Err(format!("log {}: {error}", promises.log)),
                }
            }
            promises.plain = left;
        }
        Ok(())
    }

    /// Reads a log from end to end and compares.
    async fn check(&mut self, n: usize) -> Result<(), String> {
        self.collect().await?;
        let promises = &mut self.all[n];
        let log = promises.log;
        let fail = |what: String| Err(format!("log {log}: {what}"));
        let bounds = self.life.logs.bounds(log).await.map_err(|error| error.to_string())?;
        if bounds.committed < promises.committed {
            return fail(format!("committed went back from {}", promises.committed));
        }
        promises.committed = bounds.committed;
        let mut found = BTreeMap::new();
        let mut texts = std::collections::BTreeSet::new();
        let mut offset = bounds.start;
        let mut last_end = 0;
        while offset < bounds.committed {
            let outcome =
                match self.life.logs.read(Read { max_bytes: 1000, ..read(log, offset) }).await {
                    Ok(outcome) => outcome,
                    Err(error) => return fail(format!("read at {offset}: {error}")),
                };
            if outcome.next_offset <= offset {
                return fail(format!("no way on from {offset}"));
            }
            for batch in &outcome.batches {
                if batch.base_offset < last_end {
                    return fail(format!("offset {} overlaps", batch.base_offset));
                }
                if batch.bytes[..8] != batch.base_offset.to_be_bytes() {
                    return fail(format!("offset {} is not in its batch", batch.base_offset));
                }
                last_end = batch.base_offset + u64::from(batch.count);
                let text = text(&batch.bytes);
                if !texts.insert(text.clone()) {
                    return fail(format!("twice in the log (I8): {text}"));
                }
                found.insert(batch.base_offset, text);
            }
            offset = outcome.next_offset;
        }
        for promised in [&promises.acked, &promises.seen] {
            for (offset, text) in promised.range(bounds.start..) {
                match found.get(offset) {
                    Some(found) if found == text => {}
                    // A batch at the very start may begin below it.
                    None if !promises.is_durable => {}
                    Some(_) => return fail(format!("offset {offset} is another record (I1, I3)")),
                    None => return fail(format!("offset {offset} is lost (I1)")),
                }
            }
        }
        promises.seen.extend(found);
        Ok(())
    }

    /// Cuts the power and starts again; or stops in order.
    async fn restart(&mut self) -> Result<(), String> {
        let is_in_order = self.rng.random_bool(0.2);
        if is_in_order {
            self.life.drain().await;
            self.life.logs.shutdown().await;
            self.collect().await?;
        }
        self.life.turnstile.is_dead.store(true, Ordering::SeqCst);
        // Nothing is tried again.
        self.life.logs.inner.stop.cancel();
        self.life.turnstile.held.lock().clear();
        self.life.settle().await;
        // What was answered before the cut was promised.
        self.collect().await?;
        if is_in_order {
            self.disk.kill();
        } else {
            self.disk.crash(self.rng.random());
        }
        for promises in &mut self.all {
            promises.plain.clear();
            for sent in promises.producers.iter_mut().flat_map(|producer| &mut producer.pipeline) {
                if !matches!(sent.answer, Answer::Acked(_)) {
                    sent.answer = Answer::Lost;
                }
            }
            if !promises.is_durable && !is_in_order {
                // Acknowledged batches may be lost, and with them the sequence: producers of such
                // a log begin anew.
                for producer in &mut promises.producers {
                    *producer =
                        Producer { id: producer.id + 10, next: 0, pipeline: VecDeque::new() };
                }
            }
        }
        self.incarnation += 1;
        let seed = self.rng.random();
        self.life = start(&self.disk, &self.meta, &self.clock, self.incarnation, seed, self.mutant);
        self.disk.set_no_sync(self.mutant == Mutant::NoSync);
        for n in 0..self.all.len() {
            loop {
                self.life.release();
                let log = self.all[n].log;
                let logs = self.life.logs.clone();
                let waiting = tokio::spawn(async move { logs.bounds(log).await.is_ok() });
                while !waiting.is_finished() {
                    self.life.release();
                    tokio::task::yield_now().await;
                }
                if waiting.await.expect("no panic") {
                    break;
                }
            }
            self.check(n).await?;
        }
        Ok(())
    }

    /// All clients get all that they want through.
    async fn finish(&mut self) -> Result<(), String> {
        for _ in 0..200 {
            for _ in 0..50 {
                let is_idle = |p: &Promises| p.producers.iter().all(|p| p.pipeline.is_empty());
                if self.all.iter().all(is_idle) {
                    break;
                }
                self.send();
            }
            self.life.drain().await;
            self.collect().await?;
        }
        for n in 0..self.all.len() {
            self.life.drain().await;
            self.check(n).await?;
        }
        Ok(())
    }
}

fn promise(
    acked: &mut BTreeMap<Offset, String>,
    offset: Offset,
    text: String,
) -> Result<(), String> {
    match acked.insert(offset, text) {
        None => Ok(()),
        Some(other) => Err(format!("offset {offset} was acknowledged twice: {other}")),
    }
}

async fn run(seed: u64, mutant: Mutant) -> Result<(), String> {
    let mut world = World::new(seed, mutant).await;
    for _ in 0..4 {
        for _ in 0..world.rng.random_range(1..250) {
            world.step().await?;
        }
        world.restart().await?;
        if world.rng.random_bool(0.2) {
            world.restart().await?;
        }
    }
    world.finish().await
}

#[tokio::test]
async fn what_was_acknowledged_or_seen_is_there_once_and_in_its_place() {
    for seed in 0..150 {
        if let Err(violation) = run(seed, Mutant::None).await {
            panic!("seed {seed}: {violation}");
        }
    }
}

async fn is_noticed(mutant: Mutant) -> bool {
    for seed in 0..20 {
        if run(seed, mutant).await.is_err() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_disk_that_does_not_sync_is_noticed() {
    assert!(is_noticed(Mutant::NoSync).await);
}

#[tokio::test]
async fn acknowledging_at_the_append_is_noticed() {
    assert!(is_noticed(Mutant::AckAtAppend).await);
}
