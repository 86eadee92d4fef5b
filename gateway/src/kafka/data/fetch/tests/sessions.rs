//! K9: sessions tell what is new, end, and are bounded.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::{FetchRequest, FetchResponse};

use super::{append, batches, fetch, name, own, partitions, request, values};
use crate::kafka::data::DataLimits;
use crate::kafka::data::fake::{FakeLogs, id_of, plane, plane_with, topic};

/// The request in a session.
fn in_session(request: FetchRequest, id: i32, epoch: i32) -> FetchRequest {
    request.with_session_id(id).with_session_epoch(epoch)
}

#[tokio::test]
async fn k9_a_session_tells_only_what_is_new() {
    for version in [7, 12, 13, 18] {
        let logs = FakeLogs::new([1, 2]);
        let plane = plane(&logs, [topic("t", &[1, 2], &[])]);
        append(&logs, 1, &["a"]).await;
        let first = in_session(request(version, &[("t", &[(0, 0), (1, 0)])]), 0, 0);
        let response = fetch(&plane, version, &first).await;
        let id = response.session_id;
        assert!(id > 0);
        assert_eq!(partitions(&response).len(), 2);
        // The consumer moves on in one partition; nothing is new.
        let moved = request(version, &[("t", &[(0, 1)])]);
        let response = fetch(&plane, version, &in_session(moved, id, 1)).await;
        assert_eq!((response.session_id, response.error_code), (id, 0));
        assert!(response.responses.is_empty());
        // Something is new in the other.
        append(&logs, 2, &["b"]).await;
        let same = in_session(request(version, &[]), id, 2);
        let response = fetch(&plane, version, &same).await;
        let all = partitions(&response);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].0, values(all[0].1)), (1, own(&[(0, "b")])));
        // A partition is forgotten.
        let mut forget = in_session(request(version, &[]), id, 3);
        let forgotten = ForgottenTopic::default().with_partitions(vec![1]);
        forget.forgotten_topics_data = vec![if version >= 13 {
            forgotten.with_topic_id(id_of("t"))
        } else {
            forgotten.with_topic(name("t"))
        }];
        append(&logs, 1, &["c"]).await;
        let response = fetch(&plane, version, &forget).await;
        let all = partitions(&response);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].0, values(all[0].1)), (0, own(&[(1, "c")])));
        assert_eq!(plane.sessions().counts(), (1, 1));
        // The log's start alone is news too.
        let caught_up = in_session(request(version, &[("t", &[(0, 2)])]), id, 4);
        assert!(fetch(&plane, version, &caught_up).await.responses.is_empty());
        logs.set_start(1, 1);
        let response = fetch(&plane, version, &in_session(request(version, &[]), id, 5)).await;
        assert_eq!(partitions(&response)[0].1.log_start_offset, 1);
    }
}

#[tokio::test]
async fn k9_wrong_ids_and_epochs_are_refused_and_a_session_can_end() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let first = in_session(request(12, &[("t", &[(0, 0)])]), 0, 0);
    let id = fetch(&plane, 12, &first).await.session_id;
    let code = |response: &FetchResponse| ResponseError::try_from_code(response.error_code);
    let again = |epoch| in_session(request(12, &[]), id, epoch);
    let response = fetch(&plane, 12, &again(2)).await;
    assert_eq!(code(&response), Some(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!(code(&fetch(&plane, 12, &again(1)).await), None);
    let response = fetch(&plane, 12, &again(1)).await;
    assert_eq!(code(&response), Some(ResponseError::InvalidFetchSessionEpoch));
    let other = in_session(request(12, &[]), id ^ 1, 1);
    let response = fetch(&plane, 12, &other).await;
    assert_eq!(code(&response), Some(ResponseError::FetchSessionIdNotFound));
    // Ids where the session has names, also in a request that adds none. The session stays.
    for added in [&[("t", &[(0, 0)][..])][..], &[]] {
        let by_id = in_session(request(13, added), id, 2);
        let response = fetch(&plane, 13, &by_id).await;
        assert_eq!(code(&response), Some(ResponseError::FetchSessionTopicIdError));
        assert_eq!(response.session_id, 0);
    }
    assert_eq!(code(&fetch(&plane, 12, &again(2)).await), None);
    // Epoch 0 with an id begins anew, −1 ends.
    let anew = in_session(request(12, &[("t", &[(0, 0)])]), id, 0);
    let renewed = fetch(&plane, 12, &anew).await.session_id;
    assert_ne!(renewed, id);
    assert_eq!(plane.sessions().counts(), (1, 1));
    let last = in_session(request(12, &[("t", &[(0, 0)])]), renewed, -1);
    let response = fetch(&plane, 12, &last).await;
    assert_eq!((response.session_id, partitions(&response).len()), (0, 1));
    assert_eq!(plane.sessions().counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn k9_sessions_are_bounded_and_stale_ones_make_place() {
    let logs = FakeLogs::new([1, 2]);
    let limits =
        DataLimits { fetch_sessions: 2, fetch_session_partitions: 3, ..DataLimits::default() };
    let plane = plane_with(&logs, [topic("t", &[1, 2], &[])], limits);
    let one = in_session(request(12, &[("t", &[(0, 0)])]), 0, 0);
    let two = in_session(request(12, &[("t", &[(0, 0), (1, 0)])]), 0, 0);
    let a = fetch(&plane, 12, &one).await.session_id;
    tokio::time::advance(Duration::from_secs(60)).await;
    let b = fetch(&plane, 12, &one).await.session_id;
    assert!(a > 0 && b > 0);
    assert_eq!(fetch(&plane, 12, &one).await.session_id, 0, "no place, and none idle for long");
    tokio::time::advance(Duration::from_secs(61)).await;
    let c = fetch(&plane, 12, &two).await.session_id;
    assert!(c > 0, "the oldest made place");
    assert_eq!(plane.sessions().counts(), (2, 3));
    let gone = in_session(request(12, &[]), a, 1);
    let response = fetch(&plane, 12, &gone).await;
    let not_found = ResponseError::FetchSessionIdNotFound.code();
    assert_eq!(response.error_code, not_found);
    // A session that grows past the bound ends, and says so.
    let grown = in_session(request(12, &[("t", &[(1, 0)])]), b, 1);
    let response = fetch(&plane, 12, &grown).await;
    assert_eq!((response.error_code, response.session_id), (0, 0));
    assert_eq!(plane.sessions().counts(), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn k9_a_larger_session_takes_the_place_of_a_smaller_one_that_has_had_its_time() {
    let logs = FakeLogs::new([1, 2, 3]);
    let limits = DataLimits { fetch_sessions: 2, ..DataLimits::default() };
    let plane = plane_with(&logs, [topic("t", &[1, 2, 3], &[])], limits);
    let of = |partitions: &[(i32, i64)]| in_session(request(12, &[("t", partitions)]), 0, 0);
    let small = of(&[(0, 0)]);
    let middle = of(&[(0, 0), (1, 0)]);
    let large = of(&[(0, 0), (1, 0), (2, 0)]);
    let a = fetch(&plane, 12, &middle).await.session_id;
    let b = fetch(&plane, 12, &small).await.session_id;
    let mut epoch = 0;
    for _ in 0..3 {
        // Neither has lived for two minutes yet.
        assert_eq!(fetch(&plane, 12, &large).await.session_id, 0);
        tokio::time::advance(Duration::from_secs(41)).await;
        epoch += 1;
        for id in [a, b] {
            let used = fetch(&plane, 12, &in_session(request(12, &[]), id, epoch)).await;
            assert_eq!((used.error_code, used.session_id), (0, id));
        }
    }
    assert_eq!(fetch(&plane, 12, &small).await.session_id, 0, "it isn't larger");
    assert!(fetch(&plane, 12, &large).await.session_id > 0, "the smallest made place");
    assert_eq!(plane.sessions().counts(), (2, 5));
    let gone = fetch(&plane, 12, &in_session(request(12, &[]), b, epoch + 1)).await;
    assert_eq!(gone.error_code, ResponseError::FetchSessionIdNotFound.code());
    let kept = fetch(&plane, 12, &in_session(request(12, &[]), a, epoch + 1)).await;
    assert_eq!((kept.error_code, kept.session_id), (0, a));
}

#[tokio::test(start_paused = true)]
async fn k9_what_does_not_fit_anyhow_evicts_nobody() {
    let logs = FakeLogs::new([1, 2, 3]);
    let limits = DataLimits { fetch_session_partitions: 2, ..DataLimits::default() };
    let plane = plane_with(&logs, [topic("t", &[1, 2, 3], &[])], limits);
    let small = in_session(request(12, &[("t", &[(0, 0)])]), 0, 0);
    let id = fetch(&plane, 12, &small).await.session_id;
    tokio::time::advance(Duration::from_secs(1_000)).await;
    let large = in_session(request(12, &[("t", &[(0, 0), (1, 0), (2, 0)])]), 0, 0);
    assert_eq!(fetch(&plane, 12, &large).await.session_id, 0);
    let used = fetch(&plane, 12, &in_session(request(12, &[]), id, 1)).await;
    assert_eq!((used.error_code, used.session_id), (0, id));
}

#[tokio::test(start_paused = true)]
async fn k9_a_session_that_is_evicted_while_its_fetch_waits_says_so() {
    let logs = FakeLogs::new([1]);
    let limits = DataLimits { fetch_sessions: 1, ..DataLimits::default() };
    let plane = plane_with(&logs, [topic("t", &[1], &[])], limits);
    let one = in_session(request(12, &[("t", &[(0, 0)])]), 0, 0);
    let id = fetch(&plane, 12, &one).await.session_id;
    let waiting = in_session(request(12, &[]), id, 1).with_max_wait_ms(600_000).with_min_bytes(1);
    let waiting = fetch(&plane, 12, &waiting);
    let mut waiting = std::pin::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    tokio::time::advance(Duration::from_secs(121)).await;
    let other = fetch(&plane, 12, &one).await.session_id;
    assert!(other > 0 && other != id);
    append(&logs, 1, &["a"]).await;
    let response = waiting.await;
    assert_eq!((response.error_code, response.session_id), (0, 0));
    assert_eq!(values(partitions(&response)[0].1), own(&[(0, "a")]));
    assert_eq!(plane.sessions().counts(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn k9_who_only_ends_its_session_waits_for_nothing() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let first = in_session(request(12, &[("t", &[(0, 0)])]), 0, 0);
    let id = fetch(&plane, 12, &first).await.session_id;
    let last = in_session(request(12, &[]), id, -1).with_max_wait_ms(500).with_min_bytes(1);
    let began = tokio::time::Instant::now();
    assert_eq!(fetch(&plane, 12, &last).await.error_code, 0);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(plane.sessions().counts(), (0, 0));
}

#[tokio::test]
async fn k9_a_session_without_partitions_ends() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let first = in_session(request(12, &[("t", &[(0, 0)])]), 0, 0);
    let id = fetch(&plane, 12, &first).await.session_id;
    // What one request names and forgets is forgotten.
    let mut last = in_session(request(12, &[("t", &[(0, 5)])]), id, 1);
    let forgotten = ForgottenTopic::default().with_topic(name("t")).with_partitions(vec![0]);
    last.forgotten_topics_data = vec![forgotten];
    let response = fetch(&plane, 12, &last).await;
    assert_eq!((response.error_code, response.session_id), (0, 0));
    assert!(response.responses.is_empty());
    assert_eq!(plane.sessions().counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_dropped_leaves_nothing_behind() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let first = in_session(request(12, &[("t", &[(0, 0)])]), 0, 0);
    let id = fetch(&plane, 12, &first).await.session_id;
    {
        let wanted = in_session(request(12, &[]), id, 1).with_max_wait_ms(60_000);
        let fetching = fetch(&plane, 12, &wanted);
        let mut fetching = std::pin::pin!(fetching);
        assert!(futures_util::poll!(fetching.as_mut()).is_pending());
    }
    assert_eq!(plane.sessions().counts(), (0, 0));
    append(&logs, 1, &["a"]).await;
}

#[tokio::test]
async fn no_partition_starves_in_a_session() {
    let logs = FakeLogs::new([1, 2, 3]);
    let plane = plane(&logs, [topic("t", &[1, 2, 3], &[])]);
    for log in 1..=3 {
        append(&logs, log, &["a"]).await;
    }
    let all = in_session(request(12, &[("t", &[(0, 0), (1, 0), (2, 0)])]), 0, 0).with_max_bytes(1);
    let response = fetch(&plane, 12, &all).await;
    let with_data = |response: &FetchResponse| -> Vec<i32> {
        let all = partitions(response);
        all.iter().filter(|(_, p)| !batches(p).is_empty()).map(|(index, _)| *index).collect()
    };
    assert_eq!(with_data(&response), [0]);
    let id = response.session_id;
    for (epoch, expected) in [(1, 1), (2, 2), (3, 0)] {
        let next = in_session(request(12, &[]), id, epoch).with_max_bytes(1);
        assert_eq!(with_data(&fetch(&plane, 12, &next).await), [expected]);
    }
}
