//! A store in memory that takes its time, loses answers, and makes commits after their answer was
//! lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use interflow_meta::{
    Commit, Committed, KeyRange, MetaError, Mutation, Page, STAMP_BYTES, Snapshot, Store,
};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::chance::Chance;
use super::oracle::Oracle;

#[derive(Clone, Debug)]
pub(super) struct SlowStore {
    chance: Chance,
    oracle: Arc<Oracle>,
    state: Arc<Mutex<State>>,
    /// It takes every commit, whatever its snapshot, and makes none late: what must not go unnoticed.
    is_blind: bool,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    map: Arc<BTreeMap<Bytes, Bytes>>,
    /// What each version has written.
    written: Vec<(u64, KeyRange)>,
}

#[derive(Debug)]
struct SlowSnapshot {
    store: SlowStore,
    version: u64,
    map: Arc<BTreeMap<Bytes, Bytes>>,
}

impl SlowStore {
    pub(super) fn new(chance: Chance, oracle: Arc<Oracle>, is_blind: bool) -> Self {
        Self { chance, oracle, state: Arc::default(), is_blind }
    }

    fn apply(&self, version: u64, commit: &Commit) -> Result<Committed, MetaError> {
        let mut state = self.state.lock();
        let overlaps = |a: &KeyRange, b: &KeyRange| a.begin < b.end && b.begin < a.end;
        let is_late = state.written.iter().any(|(at, range)| {
            *at > version && commit.reads.iter().any(|read| overlaps(read, range))
        });
        if is_late && !self.is_blind {
            return Err(MetaError::Conflict);
        }
        if !commit.mutations.is_empty() {
            state.version += 1;
        }
        let now = state.version;
        for mutation in &commit.mutations {
            let map = Arc::make_mut(&mut state.map);
            match mutation {
                Mutation::Set(key, value) => drop(map.insert(key.clone(), value.clone())),
                Mutation::Clear(key) => drop(map.remove(key)),
                Mutation::ClearRange(range) => map.retain(|key, _| !range.contains(key)),
                other => panic!("{other:?}"),
            }
            state.written.push((now, mutation.touches()));
        }
        Ok(Committed { version: now, stamp: [0; STAMP_BYTES] })
    }
}

#[async_trait]
impl Store for SlowStore {
    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, MetaError> {
        self.chance.pause().await;
        let state = self.state.lock();
        let (version, map) = (state.version, state.map.clone());
        Ok(Arc::new(SlowSnapshot { store: self.clone(), version, map }))
    }

    async fn close(&self) {}
}

#[async_trait]
impl Snapshot for SlowSnapshot {
    fn version(&self) -> u64 {
        self.version
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.store.chance.pause().await;
        Ok(self.map.get(key).cloned())
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        rows: usize,
        _: usize,
        is_reverse: bool,
    ) -> Result<Page, MetaError> {
        self.store.chance.pause().await;
        let found = self.map.range(range.begin.clone()..range.end.clone());
        let pair = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        let found: Vec<_> = match is_reverse {
            true => found.rev().map(pair).take(rows).collect(),
            false => found.map(pair).take(rows).collect(),
        };
        Ok(Page { more: found.len() == rows, rows: found })
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, MetaError> {
        let SlowStore { chance, oracle, .. } = &self.store;
        chance.pause().await;
        if chance.percent(4) {
            // Whoever commits was stopped, and goes on as if nothing had been.
            sleep(Duration::from_millis(chance.below(1_000))).await;
        }
        if commit.mutations.is_empty() || !chance.percent(12) {
            let outcome = self.store.apply(self.version, &commit);
            chance.pause().await;
            return outcome;
        }
        oracle.totals.lock().lost_answers += 1;
        if chance.percent(25) {
            self.store.apply(self.version, &commit)?;
        } else if chance.percent(70) && !self.store.is_blind {
            let (store, version) = (self.store.clone(), self.version);
            let after = chance.below(40);
            tokio::spawn(async move {
                sleep(Duration::from_millis(after)).await;
                if store.apply(version, &commit).is_ok() {
                    store.oracle.totals.lock().late += 1;
                }
            });
        }
        Err(MetaError::CommitUnknown)
    }
}
