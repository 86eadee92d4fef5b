//! K3–K6: Produce.

use kafka_protocol::messages::InitProducerIdRequest;
use kafka_protocol::messages::ProducerId;

use crate::batch::{Batch, Record, batch, records, unpatched};
use crate::broker::{Broker, is_reference};
use crate::client::*;

fn texts(records: &[Record]) -> Vec<&str> {
    records.iter().map(Record::text).collect()
}

fn producer_id(kafka: &mut Kafka) -> (i64, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let answer = kafka.call(&request, 4);
    assert_eq!(answer.error_code, 0);
    (*answer.producer_id, answer.producer_epoch)
}

#[test]
fn k3_acks_0_has_no_answer() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    kafka.send(&produce_request(&[(&topic, 0, batch("k", &["silent"]).bytes())], 0), PRODUCE);
    // The next answer is that of the next request: `receive` checks its number.
    kafka.append(&topic, 0, &batch("k", &["answered"]));
    assert_eq!(texts(&kafka.read(&topic, 0, 0)), ["silent", "answered"]);
}

#[test]
fn k3_an_error_with_acks_0_closes_the_connection() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    kafka.send(&produce_request(&[(&topic, 9, batch("k", &["x"]).bytes())], 0), PRODUCE);
    kafka.expect_closed();
}

#[test]
fn k3_acks_1_and_all_are_committed() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    for (acks, offset) in [(1, 0), (-1, 1)] {
        let request = produce_request(&[(&topic, 0, batch("k", &["x"]).bytes())], acks);
        let answer = kafka.call(&request, PRODUCE);
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset));
        assert_eq!(kafka.fetch(&topic, 0, 0).high_watermark, offset + 1);
    }
    let request = produce_request(&[(&topic, 0, batch("k", &["x"]).bytes())], 2);
    let answer = kafka.call(&request, PRODUCE);
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 21, "INVALID_REQUIRED_ACKS");
}

#[test]
fn k4_bad_batches_are_refused_and_others_are_not_affected() {
    let good = || batch("k", &["good", "too"]);
    let mut wrong_crc = good().bytes();
    *wrong_crc.last_mut().unwrap() ^= 1;
    let mut wrong_length = good().bytes();
    wrong_length[11] ^= 0x08;
    let cut = good().bytes()[..50].to_vec();
    let old = |magic| Batch { magic, ..good() }.bytes();
    let count = Batch { count: Some(7), ..good() }.bytes();
    let none = Batch { count: Some(0), last_delta: Some(-1), ..Batch::of(vec![]) }.bytes();
    let delta = Batch { last_delta: Some(5), ..good() }.bytes();
    let codec = Batch { attributes: 6, ..good() }.bytes();
    let mut kafka = Kafka::connect();
    for (name, bad, codes) in [
        ("crc", wrong_crc, &[2][..]),
        ("length", wrong_length, &[2, 87]),
        ("cut", cut, &[2, 87]),
        ("magic 0", old(0), &[43, 2]),
        ("magic 1", old(1), &[43, 2]),
        ("count", count, &[2, 87]),
        ("empty", none, &[2, 87]),
        ("delta", delta, &[2, 87]),
        ("codec", codec, &[2, 76, 87]),
        ("nothing", Vec::new(), &[2, 87]),
    ] {
        let topic = new_topic(&mut kafka, 2);
        let request = produce_request(&[(&topic, 0, bad), (&topic, 1, good().bytes())], -1);
        let answer = kafka.call(&request, PRODUCE);
        let code = |index| {
            let all = &answer.responses[0].partition_responses;
            all.iter().find(|p| p.index == index).unwrap().error_code
        };
        if !is_reference() {
            assert!(codes.contains(&code(0)), "{name}: {}", code(0));
        }
        assert_ne!(code(0), 0, "{name}");
        assert_eq!(code(1), 0, "{name}: the other partition");
        assert_eq!(kafka.fetch(&topic, 0, 0).high_watermark, 0, "{name}: nothing is kept");
        assert_eq!(texts(&kafka.read(&topic, 1, 0)), ["good", "too"]);
    }
}

/// Records aren't decoded on arrival: counts must agree with each other, and what they say is how
/// many offsets the batch takes.
#[test]
fn k4_counts_of_a_compressed_batch_that_lies() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    let honest = || batch("k", &["a", "b", "c"]).gzip();
    for (count, last_delta) in [(0, -1), (-1, -2), (2, 2), (4, 2), (3, 3), (0, 2), (i32::MIN, 2)] {
        let lie = Batch { count: Some(count), last_delta: Some(last_delta), ..honest() };
        let code = kafka.produce(&topic, 0, &lie).error_code;
        if is_reference() {
            assert_ne!(code, 0);
        } else {
            assert_eq!(code, 87, "INVALID_RECORD for {count} and {last_delta}");
        }
    }
    assert_eq!(kafka.fetch(&topic, 0, 0).high_watermark, 0);
    if is_reference() {
        return;
    }
    let mut next = 0;
    for count in [2, 7] {
        let lie = Batch { count: Some(count), last_delta: Some(count - 1), ..honest() };
        assert_eq!(kafka.append(&topic, 0, &lie), next);
        let data = kafka.fetch(&topic, 0, next).records.unwrap();
        assert_eq!(unpatched(&data), lie.bytes(), "a consumer gets what was sent");
        next += i64::from(count);
    }
    // From the middle of what was said, and behind it.
    assert!(!kafka.fetch(&topic, 0, next - 1).records.unwrap().is_empty());
    assert_eq!(kafka.append(&topic, 0, &honest()), next);
    assert_eq!(texts(&kafka.read(&topic, 0, next)), ["a", "b", "c"]);
}

#[test]
fn k4_magic_0_and_1_have_a_code_of_their_own() {
    if is_reference() {
        return;
    }
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    for magic in [0, 1] {
        let old = Batch { magic, ..batch("k", &["x"]) };
        assert_eq!(kafka.produce(&topic, 0, &old).error_code, 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT");
    }
}

#[test]
fn k4_max_message_bytes() {
    let mut kafka = Kafka::connect();
    let topic = crate::broker::unique("k4");
    assert_eq!(kafka.create(&topic, 1, &[("max.message.bytes", "1000")]), 0);
    let large = "x".repeat(1000);
    assert_eq!(
        kafka.produce(&topic, 0, &batch("k", &[&large])).error_code,
        10,
        "MESSAGE_TOO_LARGE"
    );
    kafka.append(&topic, 0, &batch("k", &["fits"]));
    assert_eq!(texts(&kafka.read(&topic, 0, 0)), ["fits"]);
}

#[test]
fn k4_timestamps_have_bounds() {
    let mut kafka = Kafka::connect();
    let topic = crate::broker::unique("k4");
    let bounds = [
        ("message.timestamp.before.max.ms", "3600000"),
        ("message.timestamp.after.max.ms", "3600000"),
    ];
    assert_eq!(kafka.create(&topic, 1, &bounds), 0);
    let now = now_ms();
    for (timestamp, code) in [(now, 0), (now - 7_200_000, 32), (now + 7_200_000, 32)] {
        let one = Batch::of(vec![Record::new("k", "v").at(timestamp)]);
        assert_eq!(kafka.produce(&topic, 0, &one).error_code, code);
    }
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis() as i64
}

#[test]
fn k5_bytes_come_back_as_they_were_sent() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    let odd = vec![
        Record { key: None, value: None, ..Record::default() },
        Record { key: Some(vec![]), value: Some(vec![]), ..Record::default() },
        Record { key: Some(vec![0, 255]), value: None, ..Record::default() }.at(5),
        Record::new("k", "v")
            .header("same", b"1")
            .header("same", b"2")
            .header("", b"")
            .at(1_700_000_000_000),
        Record { headers: vec![("null".into(), None)], ..Record::new("k", "v") },
    ];
    for (n, sent) in [Batch::of(odd.clone()), Batch::of(odd).gzip()].iter().enumerate() {
        let offset = kafka.append(&topic, 0, sent);
        assert_eq!(offset, 5 * n as i64);
        let data = kafka.fetch(&topic, 0, offset).records.unwrap();
        assert_eq!(&data[..8], &offset.to_be_bytes());
        assert_eq!(unpatched(&data), sent.bytes());
    }
}

#[test]
fn k5_log_append_time_changes_two_fields() {
    let mut kafka = Kafka::connect();
    let topic = crate::broker::unique("k5");
    assert_eq!(kafka.create(&topic, 1, &[("message.timestamp.type", "LogAppendTime")]), 0);
    let before = now_ms();
    let sent = Batch::of(vec![
        Record::new("k", "v").header("h", b"x").at(1000),
        Record::new("k", "w").at(2000),
    ]);
    let answer = kafka.produce(&topic, 0, &sent);
    assert_eq!(answer.error_code, 0);
    let got = kafka.read(&topic, 0, 0);
    assert!(got.iter().all(|record| record.timestamp == answer.log_append_time_ms));
    assert!((before..=now_ms()).contains(&answer.log_append_time_ms));
    assert_eq!(texts(&got), ["v", "w"]);
    assert_eq!(got[0].headers, sent.records[0].headers);
}

#[test]
fn k6_idempotence() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    let (id, epoch) = producer_id(&mut kafka);
    let send = |kafka: &mut Kafka, sequence: i32, text: &str| {
        let answer =
            kafka.produce(&topic, 0, &batch("k", &[text, text]).producer(id, epoch, sequence));
        (answer.error_code, answer.base_offset)
    };
    for n in 0..6 {
        assert_eq!(send(&mut kafka, 2 * n, &format!("{n}")), (0, 2 * i64::from(n)));
    }
    // A repeat of one of the last five is answered with its first offset.
    for n in (1..6).rev() {
        assert_eq!(
            send(&mut kafka, 2 * n, &format!("{n}")),
            (0, 2 * i64::from(n)),
            "repeat of {n}"
        );
    }
    assert_eq!(send(&mut kafka, 20, "gap").0, 45, "OUT_OF_ORDER_SEQUENCE_NUMBER");
    assert_eq!(send(&mut kafka, 12, "next"), (0, 12));
    assert_eq!(kafka.fetch(&topic, 0, 0).high_watermark, 14);
}

#[test]
fn k6_an_old_epoch_is_fenced() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    let (id, epoch) = producer_id(&mut kafka);
    let with = |epoch, sequence| batch("k", &["x"]).producer(id, epoch, sequence);
    assert_eq!(kafka.produce(&topic, 0, &with(epoch, 0)).error_code, 0);
    assert_eq!(kafka.produce(&topic, 0, &with(epoch + 1, 0)).error_code, 0);
    assert_eq!(kafka.produce(&topic, 0, &with(epoch, 1)).error_code, 47, "INVALID_PRODUCER_EPOCH");
    assert_eq!(
        kafka.produce(&topic, 0, &with(epoch + 2, 5)).error_code,
        45,
        "a new epoch starts at 0"
    );
}

#[test]
fn k6_idempotence_over_a_restart() {
    if is_reference() {
        return;
    }
    for signal in ["TERM", "KILL"] {
        let broker = Broker::start(&[], &[]);
        let mut kafka = Kafka::connect_to(&broker);
        let topic = new_topic(&mut kafka, 1);
        let (id, epoch) = producer_id(&mut kafka);
        for n in 0..3 {
            kafka.append(&topic, 0, &batch("k", &[&format!("{n}")]).producer(id, epoch, n));
        }
        broker.signal(signal);
        let broker = broker.restart(&[]);
        let mut kafka = Kafka::connect_to(&broker);
        for n in 0..3 {
            let offset =
                kafka.append(&topic, 0, &batch("k", &[&format!("{n}")]).producer(id, epoch, n));
            assert_eq!(offset, i64::from(n), "a repeat after SIG{signal}");
        }
        let gap = batch("k", &["gap"]).producer(id, epoch, 9);
        assert_eq!(kafka.produce(&topic, 0, &gap).error_code, 45);
        kafka.append(&topic, 0, &batch("k", &["3"]).producer(id, epoch, 3));
        assert_eq!(texts(&kafka.read(&topic, 0, 0)), ["0", "1", "2", "3"]);
        let (other, _) = producer_id(&mut kafka);
        assert_ne!(other, id, "producer ids are never given twice");
    }
}

#[test]
fn k6_sequences_go_on_at_0_after_the_largest() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    let (id, epoch) = producer_id(&mut kafka);
    let mut send = |sequence: i32| {
        let two = batch("k", &["x", "y"]).producer(id, epoch, sequence);
        let answer = kafka.produce(&topic, 0, &two);
        (answer.error_code, answer.base_offset)
    };
    assert_eq!(send(i32::MAX - 2), (0, 0));
    assert_eq!(send(0).0, 45, "OUT_OF_ORDER_SEQUENCE_NUMBER: one is left");
    // One sequence number before the end, one behind it.
    assert_eq!(send(i32::MAX), (0, 2));
    assert_eq!(send(1), (0, 4));
    for (sequence, offset) in [(i32::MAX - 2, 0), (i32::MAX, 2), (1, 4)] {
        assert_eq!(send(sequence), (0, offset), "a repeat");
    }
    assert_eq!(send(3), (0, 6));
}

#[test]
fn k6_an_unknown_producer_starts_anywhere() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    let (id, epoch) = producer_id(&mut kafka);
    assert_eq!(kafka.produce(&topic, 0, &batch("k", &["x"]).producer(id, epoch, 77)).error_code, 0);
    assert_eq!(records(&kafka.fetch(&topic, 0, 0).records.unwrap()).len(), 1);
}
