//! A consumer: joins, takes its share, and if that is the partition commits one offset after the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interflow_meta::DEFAULT_TENANT;
use interflow_meta::groups::{self as stored, CommittedOffset};
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::world::{Life, World};
use crate::kafka::groups::core::{Answer, Identity, Join, Name, Sync};

/// A client that isn't answered for so long looks for another connection.
const PATIENCE: Duration = Duration::from_secs(3);
const SESSION_MS: u64 = 6_000;
const REBALANCE_MS: u64 = 2_000;

pub(super) struct Client {
    world: Arc<World>,
    /// The gateway that it takes for the coordinator.
    at: Option<usize>,
    who: Identity,
    /// What it has joined: the generation, and for its leader everybody.
    joined: Option<(i32, Vec<Name>)>,
    /// It has its share of that generation; and if it owns the partition, what it commits next.
    share: Option<Option<u64>>,
    /// When it was last let through, in the generation that it has, by which gateway.
    beat: Option<(Instant, usize)>,
}

impl Client {
    pub(super) fn new(world: Arc<World>) -> Self {
        let who = Identity::default();
        Self { world, at: None, who, joined: None, share: None, beat: None }
    }

    /// Runs until it is over; the generation that it is in, and when it was last let through.
    pub(super) async fn run(mut self, over: CancellationToken) -> (i32, Option<Instant>) {
        while !over.is_cancelled() {
            let at = *self.at.get_or_insert_with(|| self.world.find());
            let life = self.world.at(at);
            if !self.world.is_calm() && self.world.chance.percent(1) {
                self.disturb(&life).await;
            }
            let outcome = match (&self.joined, &self.share) {
                (None, _) => self.join(&life).await,
                (Some(_), None) => self.sync(&life).await,
                // Only a heartbeat is told of a rebalance.
                (Some(_), Some(Some(_))) if self.world.chance.percent(75) => {
                    self.commit(&life).await
                }
                (Some(_), Some(_)) => self.heartbeat(&life).await,
            };
            match outcome {
                Ok(()) => {
                    if self.share.is_some() {
                        let moved = self.beat.is_some_and(|(_, before)| before != at);
                        self.world.oracle.totals.lock().kept_generation += u64::from(moved);
                        self.beat = Some((Instant::now(), at));
                    }
                }
                Err(error) => self.heed(error),
            }
            let most_ms = if self.world.is_calm() { 1_000 } else { 30 };
            sleep(Duration::from_millis(self.world.chance.below(most_ms))).await;
        }
        (self.joined.map_or(0, |(generation, _)| generation), self.beat.map(|(at, _)| at))
    }

    /// What clients do about errors.
    fn heed(&mut self, error: ResponseError) {
        match error {
            ResponseError::NotCoordinator | ResponseError::CoordinatorNotAvailable => {
                self.at = None;
                // Some join again when their SyncGroup is refused, some send it again.
                if self.share.is_none() && self.world.chance.percent(50) {
                    self.rejoin();
                }
            }
            ResponseError::UnknownMemberId => {
                self.who = Identity::default();
                self.rejoin();
            }
            ResponseError::IllegalGeneration | ResponseError::RebalanceInProgress => self.rejoin(),
            ResponseError::MemberIdRequired => {}
            other => panic!("{other:?}"),
        }
    }

    /// Leaves, asks for a rebalance, or is silent for longer than its session.
    async fn disturb(&mut self, life: &Life) {
        match self.world.chance.below(5) {
            0 => sleep(Duration::from_millis(SESSION_MS + 1_000)).await,
            1 => {
                let (groups, who) = (&life.groups, [self.who.clone()]);
                let left = groups.with(&self.world.group, false, |_, group, out| {
                    group.leave(groups.now(), groups.settings(), &who, out)
                });
                // It's gone, whether or not anybody knows.
                let _ = left.await;
                self.who = Identity::default();
                self.rejoin();
            }
            _ => self.rejoin(),
        }
    }

    fn rejoin(&mut self) {
        (self.joined, self.share, self.beat) = (None, None, None);
    }

    async fn join(&mut self, life: &Life) -> Result<(), ResponseError> {
        let (reply, answer) = oneshot::channel();
        let creates = self.who.member.is_empty();
        let join = Join {
            who: self.who.clone(),
            fresh_id: format!("m{}", self.world.meta.random_u64()).into(),
            client_id: "c".into(),
            client_host: "h".into(),
            session_ms: SESSION_MS,
            rebalance_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::new())],
            requires_known_id: self.world.chance.percent(50),
            can_skip_assignment: true,
            reply,
        };
        let groups = &life.groups;
        let found = groups.with(&self.world.group, creates, |_, group, out| {
            group.join(groups.now(), groups.settings(), join, out);
        });
        found.await?.ok_or(ResponseError::UnknownMemberId)?;
        match wait(answer).await? {
            Answer::Joined(joined) => {
                self.who.member = joined.member.clone();
                let members = joined.members.into_iter().map(|member| member.member);
                self.joined = Some((joined.generation, members.collect()));
                Ok(())
            }
            Answer::NotJoined(error, id) => {
                if error == ResponseError::MemberIdRequired {
                    self.who.member = id;
                }
                Err(error)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn sync(&mut self, life: &Life) -> Result<(), ResponseError> {
        let Some((generation, members)) = self.joined.clone() else { return Ok(()) };
        let (reply, answer) = oneshot::channel();
        let nonce = self.world.meta.random_u64();
        let owner = usize::try_from(nonce % members.len().max(1) as u64).unwrap();
        let share = |(at, id): (usize, &Name)| {
            (id.clone(), Bytes::from(format!("{nonce}/{}", u8::from(at == owner))))
        };
        let sync = Sync {
            who: self.who.clone(),
            generation,
            protocol_type: None,
            protocol: None,
            assignments: members.iter().enumerate().map(share).collect(),
            reply,
        };
        let groups = &life.groups;
        let found = groups.with(&self.world.group, false, |_, group, out| {
            group.sync(groups.now(), groups.settings(), sync, out);
        });
        found.await?.ok_or(ResponseError::UnknownMemberId)?;
        let assignment = match wait(answer).await? {
            Answer::Synced(synced) => String::from_utf8(synced.assignment.to_vec()).unwrap(),
            Answer::NotSynced(error) => return Err(error),
            other => panic!("{other:?}"),
        };
        let (nonce, is_owner) = assignment.split_once('/').unwrap();
        self.world.oracle.accept(generation, nonce.parse().unwrap());
        let next = match is_owner {
            "1" => Some(self.committed(life).await? + 1),
            _ => None,
        };
        self.share = Some(next);
        Ok(())
    }

    /// What is committed for the partition.
    async fn committed(&self, life: &Life) -> Result<u64, ResponseError> {
        let group = &self.world.group;
        life.groups.check(group)?;
        let acked = self.world.oracle.acked();
        let tx = self.world.meta.begin();
        let found = stored::fetch_offset(&tx, DEFAULT_TENANT, group, "t", 0).await.unwrap();
        let found = found.map_or(0, |found| found.offset);
        assert!(found >= acked, "{acked} was committed, {found} is left");
        Ok(found)
    }

    async fn commit(&mut self, life: &Life) -> Result<(), ResponseError> {
        let (Some((generation, _)), Some(Some(next))) = (&self.joined, &mut self.share) else {
            return Ok(());
        };
        let offset = *next;
        // Whether or not this one is kept, the next is further.
        *next += 1;
        let group = &self.world.group;
        let row = ("t".to_owned(), 0, CommittedOffset { offset, ..CommittedOffset::default() });
        let commit = life.groups.commit(group, &self.who, *generation, vec![row]);
        let took_itself_for_it = life.groups.check(group).is_ok();
        let patience = match self.world.chance.percent(10) {
            true => Duration::from_millis(self.world.chance.below(40)),
            false => PATIENCE,
        };
        let outcome = timeout(patience, commit).await;
        let outcome = outcome.unwrap_or(Err(ResponseError::CoordinatorNotAvailable));
        match outcome {
            Ok(()) => self.world.oracle.commit(offset),
            Err(ResponseError::NotCoordinator)
                if took_itself_for_it && life.groups.check(group).is_ok() =>
            {
                self.world.oracle.totals.lock().superseded += 1;
            }
            Err(_) => {}
        }
        outcome
    }

    async fn heartbeat(&self, life: &Life) -> Result<(), ResponseError> {
        let Some((generation, _)) = self.joined else { return Ok(()) };
        let groups = &life.groups;
        let beat = groups.with(&self.world.group, false, |_, group, _| {
            group.heartbeat(groups.now(), &self.who, generation)
        });
        beat.await?.unwrap_or(Err(ResponseError::UnknownMemberId))
    }
}

async fn wait(answer: oneshot::Receiver<Answer>) -> Result<Answer, ResponseError> {
    match timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(ResponseError::CoordinatorNotAvailable),
    }
}
