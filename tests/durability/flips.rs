//! Bits flip: in what was not acknowledged they are cut, in what was they are damage that is told
//! and never served.

use interflow_logstore::disk::{Disk, FaultDisk};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::admin;
use crate::kafka::{CORRUPT_MESSAGE, produce_request};
use crate::meta_file;
use crate::mqtt5::Mqtt5;
use crate::running::{Running, config, journal, meta};
use crate::scene::{MQTT_PARTITIONS, PUBLISHED, Scene, TOPIC, kafka};

/// Flips a bit in the middle of `text`, wherever the journal has it.
fn flip(disk: &FaultDisk, text: &str) {
    let folder = journal(disk);
    let mut flipped = 0;
    for name in folder.list().unwrap() {
        let contents = folder.contents(&name).unwrap();
        for at in 0..contents.len() {
            if contents[at..].starts_with(text.as_bytes()) {
                folder.flip(&name, (at + text.len() / 2) as u64, 4).unwrap();
                flipped += 1;
            }
        }
    }
    assert_eq!(flipped, 1, "{text} lies at one place");
}

#[test]
fn a_flip_in_what_was_not_synced_is_cut() {
    let disk = FaultDisk::new();
    let running = Running::start(&disk, config()).unwrap();
    let mut scene = Scene::begin(running.addresses);
    journal(&disk).hold_syncs();
    kafka(running.addresses).send(7, &produce_request(TOPIC, "never acknowledged")).unwrap();
    journal(&disk).wait_for_a_held_sync();
    disk.kill();
    drop(running);
    flip(&disk, "never acknowledged");

    let running = Running::start(&disk, config()).unwrap();
    scene.check(running.addresses);
    let end = kafka(running.addresses).fetch(TOPIC, 0, 0).high_watermark;
    assert_eq!(end, scene.produced_count(), "it is gone, as if it had never been");
    scene.add(running.addresses, "second");
    disk.crash(1);
    drop(running);
    let running = Running::start(&disk, config()).unwrap();
    scene.check(running.addresses);
}

#[test]
fn a_flip_in_what_was_acknowledged_is_damage_that_stays_where_it_is() {
    const DAMAGED: &str = "damaged";
    let disk = FaultDisk::new();
    let running = Running::start(&disk, config()).unwrap();
    let mut client = kafka(running.addresses);
    assert_eq!(client.create(DAMAGED, 1, &[]), 0);
    for n in 0..10 {
        assert_eq!(client.produce(DAMAGED, &format!("record-{n}")), (0, n));
    }
    let mut scene = Scene::begin(running.addresses);
    disk.kill();
    drop(running);
    flip(&disk, "record-4");

    // Also the second start knows it.
    for round in 0..2 {
        let running = Running::start(&disk, config()).unwrap();
        let addresses = running.addresses;
        assert_eq!(admin::damage(addresses.admin, DAMAGED), [(0, 4, 5)]);
        let mut client = kafka(addresses);
        let before = client.fetch(DAMAGED, 0, 0);
        let values = |from: i64, to: i64| -> Vec<_> {
            (from..to).map(|n| (n, format!("record-{n}"))).collect()
        };
        assert_eq!((before.code, before.records), (0, values(0, 4)));
        let at = client.fetch(DAMAGED, 0, 4);
        assert_eq!((at.code, at.records), (CORRUPT_MESSAGE, vec![]));
        let end = 10 + round;
        let behind = client.fetch(DAMAGED, 0, 5);
        assert_eq!((behind.code, behind.records), (0, values(5, end)));
        assert_eq!(client.produce(DAMAGED, &format!("record-{end}")), (0, end));
        scene.check(addresses);
        scene.add(addresses, &format!("round-{round}"));
        scene.check(addresses);
        assert_eq!(admin::get(addresses.admin, "/healthz").0, 200);
        disk.crash(round as u64);
    }
}

#[test]
fn an_mqtt_session_gets_what_lies_before_and_behind_the_damage() {
    let mut config = config();
    // Everything is read from the disk.
    config.storage.tail_cache_bytes = 0;
    let disk = FaultDisk::new();
    disk.set_cold(true);
    let running = Running::start(&disk, config).unwrap();
    let addresses = running.addresses;
    drop({
        let mut subscriber = Mqtt5::connect(addresses.mqtt, "away", true);
        subscriber.subscribe(PUBLISHED);
        subscriber
    });
    let mut publisher = Mqtt5::connect(addresses.mqtt, "publisher", true);
    for n in 0..6 {
        assert_eq!(publisher.publish(PUBLISHED, &format!("message-{n}"), 1, false), 0);
    }
    flip(&disk, "message-3");

    let mut subscriber = Mqtt5::connect(addresses.mqtt, "away", false);
    for n in [0, 1, 2, 4, 5] {
        assert_eq!(subscriber.message(), (PUBLISHED.to_owned(), format!("message-{n}")));
    }
    assert_eq!(publisher.publish(PUBLISHED, "live", 1, false), 0);
    assert_eq!(subscriber.message().1, "live");
    let mut client = kafka(addresses);
    let codes: Vec<_> = (0..MQTT_PARTITIONS)
        .map(|partition| client.fetch("mqtt", partition, 3).code)
        .filter(|code| *code == CORRUPT_MESSAGE)
        .collect();
    assert_eq!(codes.len(), 1, "a Kafka consumer of the same log is told");
    disk.kill();
}

/// A flip in the metadata is told with its cure, or there is nothing wrong.
#[test]
fn a_flip_in_the_metadata_is_told_or_harmless() {
    let disk = FaultDisk::new();
    let running = Running::start(&disk, config()).unwrap();
    let scene = Scene::begin(running.addresses);
    running.stop();
    let mut random = StdRng::seed_from_u64(1);
    let mut told = 0;
    for round in 0..24 {
        let len = meta(&disk).contents(meta_file::NAME).unwrap().len() as u64;
        let (place, mask) = (random.random_range(0..len), 1 << random.random_range(0..8));
        meta(&disk).flip(meta_file::NAME, place, mask).unwrap();
        match Running::start(&disk, config()) {
            Ok(running) => {
                scene.check(running.addresses);
                running.stop();
            }
            Err(error) => {
                assert!(error.contains("damaged") && error.contains("backup"), "{round}: {error}");
                told += 1;
                meta(&disk).flip(meta_file::NAME, place, mask).unwrap();
            }
        }
    }
    assert!(told > 0, "no flip was noticed");
    let running = Running::start(&disk, config()).unwrap();
    scene.check(running.addresses);
    running.stop();
}
