//! What operators see of a topic's logs: the chains in meta, and what their nodes say.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future, stream};
use interflow_logstore::{LogClient, LogDescription, LogId, ReplicaDescription};
use interflow_meta::logs::{self, Chain};
use interflow_meta::{Meta, MetaError};
use serde::{Deserialize, Serialize};

use super::failure::{Failure, unavailable};
use crate::topics::Topics;

/// The nodes of logs are asked for so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// Logs of an answer.
const MAX_LOGS: usize = 1_000;
/// Chains that are read in a transaction, and how many of those there are at a time.
const CHAINS: usize = 100;
const AT_ONCE: usize = 4;

/// One partition's log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LogReport {
    /// The partition.
    pub partition: u32,
    /// The log's id.
    pub log: u64,
    /// The first offset that can be read.
    pub start: u64,
    /// The high watermark; the open segment's base while the node doesn't answer.
    pub committed: u64,
    /// The last stable offset; the same.
    pub stable: u64,
    /// Kafka's leader epoch.
    pub leader_epoch: u32,
    /// Producers whose sequences are remembered.
    pub producers: usize,
    /// The node that gives out offsets.
    pub sequencer: u32,
    /// How many replicas its segments are to have.
    pub replication_factor: u32,
    /// Why the node didn't answer: what is said is meta's then.
    pub unavailable: Option<String>,
    /// The segments, oldest first.
    pub segments: Vec<SegmentReport>,
}

/// One segment.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SegmentReport {
    /// Its number in the chain.
    pub epoch: u32,
    /// Its first offset.
    pub base: u64,
    /// One past its last offset; none while it is open.
    pub end: Option<u64>,
    /// Bytes of its entries on disk.
    pub bytes: u64,
    /// The nodes that store it.
    pub replicas: Vec<u32>,
    /// Fewer replicas than a quorum hold all of it: it is still to be repaired.
    pub is_short: bool,
    /// Damaged offsets, each range without its end.
    pub damaged: Vec<(u64, u64)>,
    /// How each replica of the open segment keeps up; none while its sequencer can't be asked.
    pub lags: Option<Vec<LagReport>>,
}

/// How a replica keeps up with its sequencer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct LagReport {
    /// The node.
    pub node: u32,
    /// Records up to the next offset that it isn't known to have durable.
    pub records: u64,
    /// It is connected, and neither slow nor left behind.
    pub is_in_sync: bool,
}

impl LagReport {
    fn new(said: &ReplicaDescription) -> Self {
        Self { node: said.node.0, records: said.lag, is_in_sync: said.is_in_sync }
    }
}

impl LogReport {
    /// The report of partition `partition`, by its chain in meta and what its node says.
    fn new(
        partition: u32,
        log: LogId,
        chain: &Chain,
        description: Result<LogDescription, String>,
    ) -> Self {
        let open = &chain.head.open;
        let (description, unavailable) = match description {
            Ok(description) => (Some(description), None),
            Err(error) => (None, Some(error)),
        };
        let bounds = description.as_ref().map(|description| description.bounds);
        let said = |epoch: u32| {
            let segments = description.iter().flat_map(|description| &description.segments);
            segments.into_iter().find(|segment| segment.epoch == epoch)
        };
        // Who isn't the sequencer of the segment that meta knows as open says nothing of it.
        let is_said = said(open.epoch.0).is_some_and(|segment| segment.end.is_none());
        let lags = description.as_ref().filter(|said| is_said && !said.replicas.is_empty());
        let lags = lags.map(|said| said.replicas.iter().map(LagReport::new).collect());
        let closed = chain.closed.iter().map(|segment| SegmentReport {
            epoch: segment.epoch.0,
            base: segment.base,
            end: Some(segment.end),
            bytes: said(segment.epoch.0).map_or(segment.bytes, |said| said.bytes),
            replicas: segment.replicas.iter().map(|node| node.0).collect(),
            is_short: segment.is_short,
            damaged: said(segment.epoch.0).map(|said| said.damaged.clone()).unwrap_or_default(),
            lags: None,
        });
        let mut segments: Vec<_> = closed.collect();
        segments.push(SegmentReport {
            epoch: open.epoch.0,
            base: open.base,
            end: None,
            bytes: said(open.epoch.0).map_or(0, |said| said.bytes),
            replicas: open.replicas.iter().map(|node| node.0).collect(),
            is_short: false,
            damaged: said(open.epoch.0).map(|said| said.damaged.clone()).unwrap_or_default(),
            lags,
        });
        Self {
            partition,
            log: log.0,
            start: bounds.map_or(chain.head.trim, |bounds| bounds.start),
            committed: bounds.map_or(open.base, |bounds| bounds.committed),
            stable: bounds.map_or(open.base, |bounds| bounds.stable),
            leader_epoch: bounds.map_or(open.leader_epoch, |bounds| bounds.leader_epoch),
            producers: description.as_ref().map_or(0, |description| description.producers),
            sequencer: open.sequencer.0,
            replication_factor: chain.head.replication_factor,
            unavailable,
            segments,
        }
    }
}

#[derive(Clone)]
struct Logs {
    log: Arc<dyn LogClient>,
    topics: Arc<Topics>,
    meta: Meta,
}

pub(super) fn routes(log: Arc<dyn LogClient>, topics: Arc<Topics>, meta: Meta) -> Router {
    Router::new().route("/v1/topics/{topic}/logs", get(describe)).with_state(Logs {
        log,
        topics,
        meta,
    })
}

/// Which of a topic's partitions.
#[derive(Deserialize)]
struct Page {
    /// Those behind this one; from the first on otherwise.
    after: Option<u32>,
    /// So many; [`MAX_LOGS`] otherwise.
    limit: Option<usize>,
}

async fn describe(
    State(logs): State<Logs>,
    Path(name): Path<String>,
    Query(Page { after, limit }): Query<Page>,
) -> Result<Json<Vec<LogReport>>, Failure> {
    let limit = limit.unwrap_or(MAX_LOGS);
    if !(1..=MAX_LOGS).contains(&limit) {
        let why = format!("a limit is 1 to {MAX_LOGS}, not {limit}");
        return Err(Failure(StatusCode::BAD_REQUEST, why));
    }
    let topic = logs
        .topics
        .get(&name)
        .ok_or_else(|| Failure(StatusCode::NOT_FOUND, format!("there is no topic {name}")))?;
    let partitions = (0..).zip(topic.partitions.iter().copied());
    let page = partitions.filter(|(partition, _)| after.is_none_or(|after| *partition > after));
    let page: Vec<_> = page.take(limit).collect();
    Ok(Json(logs.describe(&page).await.map_err(unavailable)?))
}

impl Logs {
    /// The reports of partitions, without those whose log was deleted meanwhile.
    async fn describe(&self, page: &[(u32, LogId)]) -> Result<Vec<LogReport>, MetaError> {
        let ids: Vec<_> = page.iter().map(|(_, log)| *log).collect();
        let said = self.log.describe_many(&ids, PATIENCE).await;
        // Afterwards: what a node says of a segment is of one that meta knows by now.
        let chains: Vec<_> = ids.chunks(CHAINS).map(|ids| self.chains(ids).boxed()).collect();
        let chains = stream::iter(chains).buffered(AT_ONCE).try_collect::<Vec<_>>().await?;
        let chains = chains.into_iter().flatten();
        let reports = page.iter().zip(said).zip(chains).filter_map(|((of, said), chain)| {
            let (partition, log) = *of;
            Some(LogReport::new(partition, log, &chain?, said.map_err(|error| error.to_string())))
        });
        Ok(reports.collect())
    }

    /// The chain of each log.
    async fn chains(&self, ids: &[LogId]) -> Result<Vec<Option<Chain>>, MetaError> {
        let load = |tx| async move {
            future::try_join_all(ids.iter().map(|log| logs::load_chain(&tx, *log))).await
        };
        self.meta.transact(load).await
    }
}
