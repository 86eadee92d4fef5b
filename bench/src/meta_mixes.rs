//! What is done to the metadata: transactions of the entities' own functions, as gateways and log
//! stores make them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{bail, ensure};
use interflow_meta::groups::CommittedOffset;
use interflow_meta::logs::{Closing, Opening};
use interflow_meta::retained::{self, MatchQuery};
use interflow_meta::{
    DEFAULT_TENANT, Epoch, LogId, Meta, MetaError, NodeId, Transaction, groups, logs, nodes,
};

use crate::meta_load::scattered;
use crate::meta_setup::{
    BARE_PREFIX, BATCH_TOPICS, FIRST_LIFE, Sizes, filter, message, node_id, retain_all, topic,
};

/// Bare commits draw their keys from this many, three each.
const BARE_KEYS: u64 = 1_000_000;
const BARE_VALUE: [u8; 100] = [7; 100];
/// Records of a segment.
const SEGMENT_RECORDS: u64 = 1_000;
/// Bytes of a page of matches, as a gateway reads them.
const PAGE_BYTES: usize = 64 << 10;

/// One kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Three random keys, nothing read: what the store allows.
    Bare,
    /// A group commits offsets of some partitions.
    Offsets,
    /// A log's segment closes, and the next one opens.
    Rolls,
    /// A node says that its life goes on.
    Leases,
    /// A retained message is replaced.
    Update,
    /// Many are, in one transaction after the other, as a gateway does.
    UpdateBatch,
    /// `a/b/#`.
    Narrow,
    /// `a/+/c/d`.
    Middle,
    /// `+/b/c/d`.
    Front,
}

/// All of them, in an order in which each finds what it needs.
pub const MIXES: [Mix; 9] = [
    Mix::Bare,
    Mix::Offsets,
    Mix::Rolls,
    Mix::Leases,
    Mix::Update,
    Mix::UpdateBatch,
    Mix::Narrow,
    Mix::Middle,
    Mix::Front,
];

impl Mix {
    /// The scenario's name in reports.
    pub fn name(self, sizes: &Sizes) -> String {
        let topics = sizes.retained_topics;
        match self {
            Self::Bare => "bare commits, 3 random keys".to_owned(),
            Self::Offsets => format!(
                "offset commits, {} groups, {} partitions each",
                sizes.groups, sizes.partitions
            ),
            Self::Rolls => format!("segment rolls, {} logs", sizes.logs),
            Self::Leases => format!("lease bumps, {} nodes", sizes.nodes),
            Self::Update => format!("retained updates, {topics} topics"),
            Self::UpdateBatch => {
                format!("retained updates, {topics} topics, {BATCH_TOPICS} each, one writer")
            }
            Self::Narrow => format!("wildcard reads a/b/#, {topics} topics"),
            Self::Middle => format!("wildcard reads a/+/c/d, {topics} topics"),
            Self::Front => format!("wildcard reads +/b/c/d, {topics} topics"),
        }
    }

    /// It commits something.
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Narrow | Self::Middle | Self::Front)
    }

    /// It needs the retained topics.
    pub fn is_of_retained(self) -> bool {
        !matches!(self, Self::Bare | Self::Offsets | Self::Rolls | Self::Leases)
    }

    /// How many things it goes round.
    pub fn things(self, sizes: &Sizes) -> u64 {
        match self {
            Self::Bare => BARE_KEYS,
            Self::Offsets => sizes.groups,
            Self::Rolls => sizes.logs,
            Self::Leases => sizes.nodes,
            Self::UpdateBatch => sizes.retained_topics / BATCH_TOPICS,
            Self::Update | Self::Narrow | Self::Middle | Self::Front => sizes.retained_topics,
        }
    }

    /// How many transactions are under way at a time.
    pub fn committers(self, sizes: &Sizes) -> u64 {
        if self == Self::UpdateBatch { 1 } else { sizes.committers }
    }
}

/// Acts on the metadata, and counts attempts.
#[derive(Clone, Debug)]
pub struct Actor {
    meta: Meta,
    sizes: Sizes,
    logs: Arc<[LogId]>,
    attempts: Arc<AtomicU64>,
}

impl Actor {
    /// On `meta`, where `logs` were created.
    pub fn new(meta: Meta, sizes: Sizes, logs: Vec<LogId>) -> Self {
        Self { meta, sizes, logs: logs.into(), attempts: Arc::default() }
    }

    /// How often a transaction's body ran since the last call.
    pub fn take_attempts(&self) -> u64 {
        self.attempts.swap(0, Ordering::Relaxed)
    }

    /// Makes one transaction of `mix` on `thing`, for the time number `pass`; returns how many rows,
    /// offsets or messages it wrote or read.
    ///
    /// # Errors
    /// The store's; a transaction that did something else than it should.
    pub async fn act(self, mix: Mix, thing: u64, pass: u64) -> anyhow::Result<u64> {
        let thing = scattered(thing, mix.things(&self.sizes));
        match mix {
            Mix::Bare => self.bare().await,
            Mix::Offsets => self.commit_offsets(thing, pass).await,
            Mix::Rolls => self.roll(thing, pass).await,
            Mix::Leases => self.bump_lease(thing).await,
            Mix::Update => self.update(thing..thing + 1, 1, pass).await,
            Mix::UpdateBatch => {
                self.update(thing * BATCH_TOPICS..(thing + 1) * BATCH_TOPICS, 2, pass).await
            }
            Mix::Narrow | Mix::Middle | Mix::Front => self.read(mix, thing).await,
        }
    }

    fn counted(&self, tx: Transaction) -> Transaction {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        tx
    }

    async fn bare(&self) -> anyhow::Result<u64> {
        self.meta
            .transact(|tx| async {
                let tx = self.counted(tx);
                for _ in 0..3 {
                    let key = (tx.random_u64() % BARE_KEYS).to_be_bytes();
                    tx.set([BARE_PREFIX, &key].concat(), &BARE_VALUE[..])?;
                }
                Ok::<_, MetaError>(())
            })
            .await?;
        Ok(3)
    }

    async fn commit_offsets(&self, group: u64, pass: u64) -> anyhow::Result<u64> {
        let offset =
            CommittedOffset { offset: pass, committed_ms: 1, ..CommittedOffset::default() };
        let offsets: Vec<_> = (0..self.sizes.partitions)
            .map(|partition| ("orders".to_owned(), partition, offset.clone()))
            .collect();
        let (group, offsets) = (&format!("group-{group}"), &offsets);
        self.meta
            .transact(|tx| async {
                groups::commit_offsets(&self.counted(tx), DEFAULT_TENANT, group, offsets)
            })
            .await?;
        Ok(offsets.len() as u64)
    }

    async fn roll(&self, log: u64, pass: u64) -> anyhow::Result<u64> {
        let Some(log) = self.logs.get(usize::try_from(log)?).copied() else {
            bail!("no log {log}")
        };
        let end = (pass + 1) * SEGMENT_RECORDS;
        let closing = &Closing {
            expected_epoch: Epoch(u32::try_from(pass)?),
            end,
            closed_ms: 1,
            max_timestamp_ms: Some(1),
            bytes: 1 << 30,
            is_short: false,
        };
        let opening = &Opening {
            base: end,
            leader_epoch: 0,
            sequencer: NodeId(0),
            incarnation: 1,
            replicas: vec![NodeId(0), NodeId(1), NodeId(2)],
            token: self.meta.random_u64(),
            opened_ms: 1,
        };
        self.meta
            .transact(|tx| async {
                let tx = self.counted(tx);
                logs::close_and_open(&tx, log, closing, opening).await.map(drop)
            })
            .await?;
        Ok(1)
    }

    async fn bump_lease(&self, node: u64) -> anyhow::Result<u64> {
        let id = node_id(node)?;
        let lease = self
            .meta
            .transact(|tx| async { nodes::bump_lease(&self.counted(tx), id, FIRST_LIFE).await })
            .await?;
        ensure!(lease.is_some(), "the life of {id:?} is over");
        Ok(1)
    }

    /// `generation` sets one mix's versions apart from another's.
    async fn update(
        &self,
        places: std::ops::Range<u64>,
        generation: u64,
        pass: u64,
    ) -> anyhow::Result<u64> {
        let topics = self.sizes.retained_topics;
        let topics: Vec<_> = places.map(|place| topic(scattered(place, topics))).collect();
        let (topics, message) = (&topics, &message(generation, pass));
        self.meta
            .transact(|tx| async { retain_all(&self.counted(tx), topics, message).await })
            .await?;
        Ok(topics.len() as u64)
    }

    /// All pages of one filter, each in a transaction of its own, as a gateway reads them.
    async fn read(&self, mix: Mix, thing: u64) -> anyhow::Result<u64> {
        let (filter, matches) = filter(mix, thing, self.sizes.retained_topics);
        let mut query = MatchQuery {
            tenant: DEFAULT_TENANT,
            filter: &filter,
            from: None,
            now_ms: 1,
            max_bytes: PAGE_BYTES,
        };
        let mut found = 0;
        loop {
            let page = retained::matching(&self.counted(self.meta.begin()), &query).await?;
            found += page.messages.len() as u64;
            if page.next.is_none() {
                break;
            }
            query.from = page.next;
        }
        ensure!(found == matches, "{filter} matched {found} topics, not {matches}");
        Ok(found)
    }
}
