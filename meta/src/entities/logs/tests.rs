use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{Durability, EmbeddedStore, Env, Meta};

const LOG: LogId = LogId(5);

fn opening(base: Offset, token: u64) -> Opening {
    Opening {
        base,
        leader_epoch: 3,
        sequencer: NodeId(1),
        incarnation: 2,
        replicas: vec![NodeId(1), NodeId(2)],
        token,
        opened_ms: 10,
    }
}

fn closing(epoch: u32, end: Offset) -> Closing {
    Closing {
        expected_epoch: Epoch(epoch),
        end,
        closed_ms: 20,
        max_timestamp_ms: Some(15),
        bytes: 100,
        is_short: false,
    }
}

fn head() -> LogHead {
    LogHead {
        open: OpenSegment::new(Epoch(0), &opening(0, 1), &Policy::default()),
        trim: 0,
        durability: Durability::Volatile,
        policy: Policy::default(),
        tenant: String::new(),
        topic: "t".to_owned(),
        topic_id: Uuid::nil(),
        partition: 0,
        replication_factor: 1,
    }
}

async fn meta() -> Meta {
    let env = Env::default();
    let store = EmbeddedStore::in_memory(env.clone()).unwrap();
    let meta = Meta::new(Arc::new(store), env, "test");
    meta.transact(|tx| async move { create(&tx, LOG, &head()) }).await.unwrap();
    meta
}

async fn roll(meta: &Meta, closing: Closing, opening: Opening) -> Result<LogHead, ChainError> {
    let (closing, opening) = (&closing, &opening);
    meta.transact(|tx| async move { close_and_open(&tx, LOG, closing, opening).await }).await
}

async fn chain(meta: &Meta) -> Chain {
    load_chain(&meta.begin(), LOG).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_roll_closes_one_segment_and_opens_the_next() {
    let meta = meta().await;
    let head = roll(&meta, closing(0, 10), opening(10, 2)).await.unwrap();
    assert_eq!((head.open.epoch, head.open.base), (Epoch(1), 10));
    let chain = chain(&meta).await;
    assert_eq!(chain.head, head);
    let [closed] = &chain.closed[..] else {
        panic!("one closed segment: {chain:?}");
    };
    assert_eq!((closed.epoch, closed.base, closed.end), (Epoch(0), 0, 10));
    assert_eq!((closed.token, closed.max_timestamp_ms), (1, Some(15)));
}

#[tokio::test]
async fn a_repeated_roll_is_known_by_its_token() {
    let meta = meta().await;
    let first = roll(&meta, closing(0, 10), opening(10, 2)).await.unwrap();
    let again = roll(&meta, closing(0, 10), opening(10, 2)).await.unwrap();
    assert_eq!(first, again);
    let other = roll(&meta, closing(0, 11), opening(11, 3)).await;
    assert!(matches!(other, Err(ChainError::Moved(head)) if *head == first));
    assert_eq!(chain(&meta).await.closed.len(), 1);
}

/// I12: whichever way an answer is lost, the chain is the same.
#[tokio::test]
async fn a_roll_whose_answer_was_lost_is_made_once() {
    for loss in [crate::Loss::Answer, crate::Loss::Request] {
        let bed = crate::testing::TestBed::new();
        bed.meta.transact(|tx| async move { create(&tx, LOG, &head()) }).await.unwrap();
        bed.lossy.plan([loss]);
        let head = roll(&bed.meta, closing(0, 10), opening(10, 2)).await.unwrap();
        assert_eq!((head.open.epoch, head.open.token), (Epoch(1), 2));
        assert_eq!(chain(&bed.meta).await.closed.len(), 1);
    }
}

#[tokio::test]
async fn of_two_rolls_at_once_one_wins() {
    let meta = meta().await;
    let (a, b) = tokio::join!(
        roll(&meta, closing(0, 10), opening(10, 2)),
        roll(&meta, closing(0, 12), opening(12, 3)),
    );
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
}

#[tokio::test]
async fn an_empty_segment_leaves_no_trace() {
    let meta = meta().await;
    roll(&meta, closing(0, 0), opening(0, 2)).await.unwrap();
    let chain = chain(&meta).await;
    assert!(chain.closed.is_empty());
    assert_eq!(chain.head.open.epoch, Epoch(1));
}

#[tokio::test]
async fn offsets_never_go_back() {
    let meta = meta().await;
    let refused = roll(&meta, closing(0, 10), opening(9, 2)).await;
    assert!(matches!(refused, Err(ChainError::GoesBack)));
    roll(&meta, closing(0, 10), opening(15, 2)).await.unwrap();
    let refused = roll(&meta, closing(1, 14), opening(14, 3)).await;
    assert!(matches!(refused, Err(ChainError::GoesBack)));
}

#[tokio::test]
async fn a_trim_removes_what_lies_wholly_below() {
    let meta = meta().await;
    for epoch in 0..3_u32 {
        let end = u64::from(epoch + 1) * 10;
        roll(&meta, closing(epoch, end), opening(end, end)).await.unwrap();
    }
    let cut = |before| {
        let meta = meta.clone();
        async move {
            let gone =
                meta.transact(|tx| async move { trim(&tx, LOG, before).await }).await.unwrap();
            gone.into_iter().map(|segment| segment.end).collect::<Vec<_>>()
        }
    };
    assert_eq!(cut(20).await, [10, 20]);
    assert_eq!(cut(5).await, [] as [u64; 0], "a trim never goes back");
    let chain = chain(&meta).await;
    assert_eq!((chain.head.trim, chain.closed.len()), (20, 1));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let meta = meta().await;
    let tx = meta.begin();
    let gone = LogId(77);
    assert!(load_chain(&tx, gone).await.unwrap().is_none());
    let refused = trim(&tx, gone, 1).await;
    assert!(matches!(refused, Err(ChainError::NotFound)));
    let refused = set_policy(&tx, gone, Policy::default()).await;
    assert!(matches!(refused, Err(ChainError::NotFound)));
}

#[tokio::test]
async fn all_logs_come_page_by_page() {
    let meta = meta().await;
    meta.transact(|tx| async move {
        for log in [300, 2, 70_000] {
            create(&tx, LogId(log), &head())?;
        }
        Ok::<_, MetaError>(())
    })
    .await
    .unwrap();
    let tx = meta.begin();
    let ids = |logs: Vec<(LogId, LogHead)>| logs.into_iter().map(|l| l.0.0).collect::<Vec<_>>();
    assert_eq!(ids(all_logs(&tx, None, 3).await.unwrap()), [2, 5, 300]);
    let rest = all_logs(&tx, Some(LogId(300)), 3).await.unwrap();
    assert_eq!(ids(rest), [70_000]);
}

#[tokio::test]
async fn a_closed_segment_gets_other_replicas() {
    let meta = meta().await;
    let short = Closing { is_short: true, ..closing(0, 10) };
    roll(&meta, short, opening(10, 2)).await.unwrap();
    let set = async |epoch| {
        let replicas = [NodeId(4), NodeId(5)];
        meta.transact(|tx| async move { set_replicas(&tx, LOG, 0, Epoch(epoch), &replicas).await })
            .await
            .unwrap()
    };
    assert!(!set(1).await);
    assert!(chain(&meta).await.closed[0].is_short);
    assert!(set(0).await);
    let closed = chain(&meta).await.closed.remove(0);
    assert_eq!((closed.is_short, closed.replicas), (false, vec![NodeId(4), NodeId(5)]));
    assert_eq!((closed.base, closed.end), (0, 10));
}

/// What builds before feature level 2 take, who don't know the number.
#[test]
fn a_few_acknowledgements_are_no_more_than_a_majority() {
    for replicas in 1..=9 {
        for least in 0..=PLAIN_ACKS {
            assert_eq!(acks(replicas, least), acks(replicas, 0), "{least} of {replicas}");
        }
    }
    assert_ne!(acks(3, PLAIN_ACKS + 1), acks(3, 0));
}

proptest! {
    #[test]
    fn a_head_comes_back_as_it_was(
        numbers: [u64; 6], small: [u32; 4], opened_ms: i64, retention: Option<u64>,
        replicas: Vec<u32>, topic in ".{0,20}", durability in 0_u32..3,
    ) {
        let head = LogHead {
            open: OpenSegment {
                epoch: Epoch(small[0]),
                base: numbers[0],
                leader_epoch: small[1],
                sequencer: NodeId(small[2]),
                incarnation: numbers[1],
                replicas: replicas.into_iter().map(NodeId).collect(),
                token: numbers[2],
                opened_ms,
                acks: small[0].max(1),
            },
            trim: numbers[3],
            durability: crate::entities::codec::durability(durability).unwrap(),
            policy: Policy {
                retention_ms: retention,
                retention_bytes: retention.map(|n| n ^ 1),
                segment_bytes: numbers[4],
                segment_ms: numbers[5],
                min_acks: small[0].max(1),
            },
            tenant: topic.clone(),
            topic,
            topic_id: Uuid::from_u128(opened_ms.unsigned_abs().into()),
            partition: small[3],
            replication_factor: small[0].max(1),
        };
        prop_assert_eq!(LogHead::decode(head.encode()).unwrap(), head);
    }

    #[test]
    fn a_segment_comes_back_as_it_was(
        numbers: [u64; 4], small: [u32; 2], times: [i64; 2], max: Option<i64>, replicas: Vec<u32>,
    ) {
        let segment = ClosedSegment {
            epoch: Epoch(small[0]),
            leader_epoch: small[1],
            base: numbers[0],
            end: numbers[1],
            opened_ms: times[0],
                acks: small[0].max(1),
            closed_ms: times[1],
            replicas: replicas.into_iter().map(NodeId).collect(),
            token: numbers[2],
            max_timestamp_ms: max,
            bytes: numbers[3],
            is_short: numbers[3] % 2 == 1,
        };
        prop_assert_eq!(ClosedSegment::decode(segment.base, segment.encode()).unwrap(), segment);
    }
}
