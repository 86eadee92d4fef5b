//! What a client may rely on, whichever the transport.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interflow_logstore::{
    Append, AppendError, AppendKind, KeyDigest, LogError, LogId, NodeId, Read, ReadError,
};
use interflow_meta::logs::Policy;

use super::bed::{Bed, Recorder, Told, batch, key, keyed, name, read};

/// Each case by each transport.
macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod in_process {
            $(#[tokio::test]
            async fn $case() {
                let bed = super::Bed::in_process().await;
                super::$case(&bed).await;
                bed.end().await;
            })*
        }

        mod remote {
            $(#[tokio::test]
            async fn $case() {
                let bed = super::Bed::remote().await;
                super::$case(&bed).await;
                bed.end().await;
            })*
        }
    };
}

suite! {
    appends_get_offsets_and_are_read_back,
    the_order_of_the_calls_is_the_order_in_the_log,
    what_was_appended_comes_back_whole,
    a_retry_is_answered_with_its_first_offset,
    a_sequence_out_of_order_is_refused_and_can_come_in_order,
    an_older_epoch_is_fenced,
    a_batch_too_large_is_refused,
    a_log_that_does_not_exist_is_an_error_everywhere,
    a_log_of_another_node_is_not_served,
    a_dropped_ticket_takes_nothing_back,
    an_offset_outside_is_told_with_the_bounds,
    reads_are_bounded_in_bytes_and_get_on,
    a_filtered_read_skips_and_advances,
    an_observer_hears_where_the_log_is_and_each_change,
    early_batches_come_in_order_and_before_their_advance,
    a_deleted_log_ends_its_observation,
    times_are_found,
    the_end_of_a_leader_epoch_is_known,
    a_trim_moves_the_start,
    a_description_shows_the_segments,
    many_logs_are_described_at_once,
    many_logs_and_producers_do_not_mix,
    large_batches_pass,
}

async fn appends_get_offsets_and_are_read_back(bed: &Bed) {
    let log = bed.node.log().await;
    assert_eq!(bed.client.bounds(log).await.unwrap().committed, 0);
    let first = bed.client.append(batch(log, 3, "a")).await.unwrap();
    let second = bed.client.append(batch(log, 2, "b")).await.unwrap();
    assert_eq!((first.base_offset, second.base_offset, second.duplicate), (0, 3, false));
    assert_eq!(bed.read_all(log).await, [(0, "a".into()), (3, "b".into())]);
    let bounds = bed.client.bounds(log).await.unwrap();
    assert_eq!((bounds.start, bounds.committed, bounds.stable), (0, 5, 5));
}

async fn the_order_of_the_calls_is_the_order_in_the_log(bed: &Bed) {
    let log = bed.node.log().await;
    let tickets: Vec<_> =
        (0..300).map(|n| bed.client.append(batch(log, 1, &n.to_string()))).collect();
    for (n, ticket) in (0_u64..).zip(tickets) {
        assert_eq!(ticket.await.unwrap().base_offset, n);
    }
}

async fn what_was_appended_comes_back_whole(bed: &Bed) {
    let log = bed.node.log().await;
    let append =
        Append { kind: AppendKind::Commit, max_timestamp: -1, ..keyed(log, i64::MAX, 0, "marker") };
    bed.client.append(append.clone()).await.unwrap();
    let outcome = bed.client.read(read(log, 0)).await.unwrap();
    let [found] = &outcome.batches[..] else { panic!("{outcome:?}") };
    assert_eq!((found.kind, found.key, found.count), (append.kind, append.key, 1));
    assert_eq!((found.max_timestamp, name(&found.bytes)), (-1, "marker".to_owned()));
    assert_eq!(outcome.next_offset, 1);
}

async fn a_retry_is_answered_with_its_first_offset(bed: &Bed) {
    let log = bed.node.log().await;
    let first = bed.client.append(keyed(log, 7, 0, "a"));
    let again = bed.client.append(keyed(log, 7, 0, "a"));
    assert!(!first.await.unwrap().duplicate);
    let again = again.await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (0, true));
    assert_eq!(bed.read_all(log).await.len(), 1);
}

async fn a_sequence_out_of_order_is_refused_and_can_come_in_order(bed: &Bed) {
    let log = bed.node.log().await;
    bed.client.append(keyed(log, 7, 0, "a")).await.unwrap();
    let refused = AppendError::OutOfOrderSequence { expected: 1, got: 2 };
    assert_eq!(bed.client.append(keyed(log, 7, 2, "c")).await, Err(refused));
    assert_eq!(bed.client.append(keyed(log, 7, 1, "b")).await.unwrap().base_offset, 1);
    assert_eq!(bed.client.append(keyed(log, 7, 2, "c")).await.unwrap().base_offset, 2);
}

async fn an_older_epoch_is_fenced(bed: &Bed) {
    let log = bed.node.log().await;
    let newer = interflow_logstore::AppendKey { producer_epoch: 3, ..key(7, 0) };
    bed.client.append(Append { key: Some(newer), ..batch(log, 1, "a") }).await.unwrap();
    let fenced = bed.client.append(keyed(log, 7, 1, "b")).await;
    assert_eq!(fenced, Err(AppendError::ProducerFenced { current: 3 }));
}

async fn a_batch_too_large_is_refused(bed: &Bed) {
    let log = bed.node.log().await;
    let large = Bytes::from(vec![0; (8 << 20) + 1]);
    let refused = bed.client.append(Append { batch: large, ..batch(log, 1, "") }).await;
    assert_eq!(refused, Err(AppendError::TooLarge { max_bytes: 8 << 20 }));
    bed.client.append(batch(log, 1, "a")).await.unwrap();
}

async fn a_log_that_does_not_exist_is_an_error_everywhere(bed: &Bed) {
    let (log, client) = (LogId(4711), &bed.client);
    assert_eq!(client.append(batch(log, 1, "a")).await, Err(AppendError::NoSuchLog));
    assert_eq!(client.read(read(log, 0)).await.unwrap_err(), ReadError::NoSuchLog);
    assert_eq!(client.bounds(log).await, Err(LogError::NoSuchLog));
    assert_eq!(client.trim(log, 1).await, Err(LogError::NoSuchLog));
    assert_eq!(client.refresh(log).await, Err(LogError::NoSuchLog));
    assert_eq!(client.batch_at_time(log, 0).await, Err(LogError::NoSuchLog));
    assert_eq!(client.batch_of_max_time(log).await, Err(LogError::NoSuchLog));
    assert_eq!(client.end_of_leader_epoch(log, 0).await, Err(LogError::NoSuchLog));
    assert_eq!(client.describe(log).await.unwrap_err(), LogError::NoSuchLog);
    let recorder = Arc::new(Recorder::default());
    assert_eq!(client.observe(log, recorder.clone()).await.err(), Some(LogError::NoSuchLog));
    assert_eq!(recorder.told(), []);
}

async fn a_log_of_another_node_is_not_served(bed: &Bed) {
    let log = bed.node.log_of(NodeId(2), Policy::default()).await;
    let client = &bed.client;
    for _ in 0..2 {
        assert_eq!(client.append(batch(log, 1, "a")).await, Err(AppendError::NotSequencer));
        assert_eq!(client.read(read(log, 0)).await.unwrap_err(), ReadError::NotSequencer);
        assert_eq!(client.bounds(log).await, Err(LogError::NotSequencer));
    }
    // Nothing was opened behind what the other node has.
    let head = interflow_meta::logs::load_head(&bed.node.meta.begin(), log).await.unwrap().unwrap();
    assert_eq!((head.open.sequencer, head.open.epoch.0), (NodeId(2), 0));
}

async fn a_dropped_ticket_takes_nothing_back(bed: &Bed) {
    let log = bed.node.log().await;
    drop(bed.client.append(batch(log, 1, "a")));
    assert_eq!(bed.client.append(batch(log, 1, "b")).await.unwrap().base_offset, 1);
    assert_eq!(bed.read_all(log).await, [(0, "a".into()), (1, "b".into())]);
}

async fn an_offset_outside_is_told_with_the_bounds(bed: &Bed) {
    let log = bed.node.log().await;
    bed.client.append(batch(log, 2, "a")).await.unwrap();
    let outside = ReadError::OutOfRange { offset: 3, start: 0, committed: 2 };
    assert_eq!(bed.client.read(read(log, 3)).await.unwrap_err(), outside);
    let end = bed.client.read(read(log, 2)).await.unwrap();
    assert_eq!((end.batches.len(), end.next_offset, end.bounds.committed), (0, 2, 2));
}

async fn reads_are_bounded_in_bytes_and_get_on(bed: &Bed) {
    let log = bed.node.log().await;
    for n in 0..4 {
        bed.client.append(batch(log, 1, &format!("{n}{}", "x".repeat(83)))).await.unwrap();
    }
    let bounded = |offset, max_bytes| Read { max_bytes, ..read(log, offset) };
    let two = bed.client.read(bounded(0, 250)).await.unwrap();
    assert_eq!((two.batches.len(), two.next_offset), (2, 2));
    let at_least_one = bed.client.read(bounded(2, 1)).await.unwrap();
    assert_eq!((at_least_one.batches.len(), at_least_one.next_offset), (1, 3));
}

async fn a_filtered_read_skips_and_advances(bed: &Bed) {
    let log = bed.node.log().await;
    for (hash, text) in [(1, "a"), (2, "b"), (1, "c")] {
        let digest = Some(KeyDigest(Arc::from([hash])));
        bed.client.append(Append { digest, ..batch(log, 1, text) }).await.unwrap();
    }
    let filter = Some(Arc::from([2]));
    let found = bed.client.read(Read { filter, ..read(log, 0) }).await.unwrap();
    let names: Vec<_> = found.batches.iter().map(|batch| name(&batch.bytes)).collect();
    assert_eq!(names, ["b"]);
    let filter = Some(Arc::from([9]));
    let nothing = bed.client.read(Read { filter, ..read(log, 0) }).await.unwrap();
    assert_eq!((nothing.batches.len(), nothing.next_offset), (0, 3));
}

async fn an_observer_hears_where_the_log_is_and_each_change(bed: &Bed) {
    let log = bed.node.log().await;
    bed.client.append(batch(log, 2, "a")).await.unwrap();
    let (recorder, other) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
    let observation = bed.client.observe(log, recorder.clone()).await.unwrap();
    assert_eq!(recorder.told(), [Told::Advanced(0, 2)]);
    bed.client.append(batch(log, 3, "b")).await.unwrap();
    let told = recorder.committed(5).await;
    assert_eq!(told, [Told::Advanced(0, 2), Told::Advanced(0, 5)]);
    drop(observation);
    let _other = bed.client.observe(log, other.clone()).await.unwrap();
    bed.client.append(batch(log, 1, "c")).await.unwrap();
    other.committed(6).await;
    assert_eq!(recorder.told(), told);
}

async fn early_batches_come_in_order_and_before_their_advance(bed: &Bed) {
    let log = bed.node.log().await;
    let recorder = Arc::new(Recorder::default());
    let _observation = bed.client.observe(log, recorder.clone()).await.unwrap();
    let tickets: Vec<_> = (0..50)
        .map(|n| bed.client.append(Append { early: true, ..keyed(log, 7, n, "e") }))
        .collect();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let told = recorder.committed(50).await;
    let mut seen = 0;
    for told in &told {
        match *told {
            Told::Early(sequence) => {
                assert_eq!(u64::try_from(sequence).unwrap(), seen);
                seen += 1;
            }
            Told::Advanced(_, committed) => assert!(committed <= seen, "{told:?}"),
            Told::Withheld(_) | Told::Ended => panic!("{told:?}"),
        }
    }
    assert_eq!(seen, 50);
}

async fn a_deleted_log_ends_its_observation(bed: &Bed) {
    let log = bed.node.log().await;
    let recorder = Arc::new(Recorder::default());
    let _observation = bed.client.observe(log, recorder.clone()).await.unwrap();
    bed.node.delete(log).await;
    bed.client.refresh(log).await.unwrap();
    let told = recorder.until(|told| *told == Told::Ended).await;
    assert_eq!(told, [Told::Advanced(0, 0), Told::Ended]);
    assert_eq!(bed.client.append(batch(log, 1, "a")).await, Err(AppendError::NoSuchLog));
}

async fn times_are_found(bed: &Bed) {
    let log = bed.node.log().await;
    assert_eq!(bed.client.batch_of_max_time(log).await, Ok(None));
    for max_timestamp in [100, 300, 200] {
        bed.client.append(Append { max_timestamp, ..batch(log, 1, "a") }).await.unwrap();
    }
    assert_eq!(bed.client.batch_at_time(log, 101).await, Ok(Some((1, 300))));
    assert_eq!(bed.client.batch_at_time(log, -5).await, Ok(Some((0, 100))));
    assert_eq!(bed.client.batch_at_time(log, 301).await, Ok(None));
    assert_eq!(bed.client.batch_of_max_time(log).await, Ok(Some((1, 300))));
}

async fn the_end_of_a_leader_epoch_is_known(bed: &Bed) {
    let log = bed.node.log().await;
    bed.client.append(batch(log, 4, "a")).await.unwrap();
    assert_eq!(bed.client.end_of_leader_epoch(log, 0).await, Ok(Some((0, 4))));
    assert_eq!(bed.client.end_of_leader_epoch(log, 9).await, Ok(Some((0, 4))));
}

async fn a_trim_moves_the_start(bed: &Bed) {
    let log = bed.node.log().await;
    for text in ["a", "b", "c"] {
        bed.client.append(batch(log, 1, text)).await.unwrap();
    }
    let recorder = Arc::new(Recorder::default());
    let _observation = bed.client.observe(log, recorder.clone()).await.unwrap();
    assert_eq!(bed.client.trim(log, 2).await, Ok(2));
    recorder.until(|told| *told == Told::Advanced(2, 3)).await;
    assert_eq!(bed.client.trim(log, 1).await, Ok(2));
    assert_eq!(bed.client.trim(log, 99).await, Ok(3));
    assert_eq!(bed.client.bounds(log).await.unwrap().start, 3);
}

async fn a_description_shows_the_segments(bed: &Bed) {
    let policy = Policy { segment_bytes: 500, ..Policy::default() };
    let log = bed.node.log_of(super::bed::NODE, policy).await;
    for n in 0..10 {
        bed.client.append(keyed(log, 7, n, &"x".repeat(84))).await.unwrap();
    }
    let description = bed.client.describe(log).await.unwrap();
    assert_eq!((description.bounds.committed, description.producers), (10, 1));
    let segments = &description.segments;
    assert!(segments.len() > 1);
    assert!(segments.windows(2).all(|pair| pair[0].end == Some(pair[1].base)));
    assert_eq!((segments[0].base, segments[segments.len() - 1].end), (0, None));
    assert!(segments.iter().map(|segment| segment.bytes).sum::<u64>() >= 1_000);
}

async fn many_logs_are_described_at_once(bed: &Bed) {
    let mut logs = Vec::new();
    for n in 0..3_u64 {
        let log = bed.node.log().await;
        for sequence in 0..i32::try_from(n).unwrap() {
            bed.client.append(keyed(log, 7, sequence, "a")).await.unwrap();
        }
        logs.push(log);
    }
    // More than go in a call, and one that doesn't exist among them.
    let asked: Vec<_> = (0..2_500).map(|n| logs[n % 3]).chain([LogId(1 << 40)]).collect();
    let described = bed.client.describe_many(&asked, Duration::from_secs(60)).await;
    assert_eq!(described.len(), asked.len());
    for (n, described) in described[..2_500].iter().enumerate() {
        let described = described.as_ref().unwrap();
        assert_eq!(described.bounds.committed, n as u64 % 3);
    }
    assert_eq!(described[2_500].as_ref().unwrap_err(), &LogError::NoSuchLog);
}

async fn many_logs_and_producers_do_not_mix(bed: &Bed) {
    let mut logs = Vec::new();
    for _ in 0..8 {
        logs.push(bed.node.log().await);
    }
    let producers = (0..4_i64).map(|producer| {
        let (logs, client) = (logs.clone(), bed.client.clone());
        tokio::spawn(async move {
            let tickets: Vec<_> = (0..100)
                .flat_map(|n| logs.iter().map(move |log| (n, *log)))
                .map(|(n, log)| client.append(keyed(log, producer, n, &format!("{producer}-{n}"))))
                .collect();
            for ticket in tickets {
                ticket.await.unwrap();
            }
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await.unwrap();
    }
    for log in logs {
        let all = bed.read_all(log).await;
        assert_eq!(all.len(), 400);
        for producer in 0..4 {
            let own = all.iter().filter_map(|(_, name)| name.strip_prefix(&format!("{producer}-")));
            let wanted: Vec<_> = (0..100).map(|n: i32| n.to_string()).collect();
            assert_eq!(own.collect::<Vec<_>>(), wanted);
        }
    }
}

async fn large_batches_pass(bed: &Bed) {
    let log = bed.node.log().await;
    let tickets: Vec<_> = (0_u8..12)
        .map(|n| {
            let bytes = Bytes::from(vec![n; 1 << 20]);
            bed.client.append(Append { batch: bytes, ..batch(log, 1, "") })
        })
        .collect();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let mut offset = 0;
    while offset < 12 {
        let all = Read { max_bytes: usize::MAX, ..read(log, offset) };
        let outcome = bed.client.read(all).await.unwrap();
        for batch in &outcome.batches {
            // The base offset and the leader epoch were set.
            assert_eq!(batch.bytes.len(), 1 << 20);
            assert_eq!(u64::from(batch.bytes[100]), batch.base_offset);
        }
        assert!(outcome.next_offset > offset);
        offset = outcome.next_offset;
    }
}
