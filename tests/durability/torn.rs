//! The power goes in the middle of writing: what was torn was never acknowledged, and is cut
//! without a word of damage.

use interflow_logstore::disk::FaultDisk;

use crate::kafka::{create_request, produce_request};
use crate::running::{Running, config, journal, meta};
use crate::scene::{PUBLISHED, Scene, TOPIC, kafka};
use crate::wire::Mqtt;

/// The units in which disks write.
const SECTORS: [u64; 2] = [512, 4096];

#[test]
fn torn_writes_of_the_journal_are_cut() {
    for sector in SECTORS {
        for seed in 0..4 {
            println!("sectors of {sector}, seed {seed}");
            let disk = FaultDisk::new();
            let running = Running::start(&disk, config()).unwrap();
            let mut scene = Scene::begin(running.addresses);
            journal(&disk).hold_syncs();
            let mut producer = kafka(running.addresses);
            let mut publisher = Mqtt::connect(running.addresses.mqtt, "torn").unwrap();
            for n in 0..4 {
                let value = format!("torn-{n}-{}", "x".repeat(20_000));
                producer.send(7, &produce_request(TOPIC, &value)).unwrap();
                publisher.send(PUBLISHED, &format!("torn-{n}"), n + 1, false).unwrap();
            }
            journal(&disk).wait_for_a_held_sync();
            disk.tear(seed, sector);
            drop(running);

            let running = Running::start(&disk, config()).unwrap();
            scene.check(running.addresses);
            scene.add(running.addresses, "second");
            disk.crash(seed);
            drop(running);
            let running = Running::start(&disk, config()).unwrap();
            scene.check(running.addresses);
        }
    }
}

#[test]
fn torn_writes_of_the_metadata_are_undone() {
    for sector in SECTORS {
        for seed in 0..4 {
            println!("sectors of {sector}, seed {seed}");
            let disk = FaultDisk::new();
            let running = Running::start(&disk, config()).unwrap();
            let mut scene = Scene::begin(running.addresses);
            meta(&disk).hold_syncs();
            let mut client = kafka(running.addresses);
            client.send(5, &create_request("torn", 50, &[])).unwrap();
            meta(&disk).wait_for_a_held_sync();
            disk.tear(seed, sector);
            drop(running);

            let running = Running::start(&disk, config()).unwrap();
            scene.check(running.addresses);
            scene.add(running.addresses, "second");
            disk.crash(seed);
            drop(running);
            let running = Running::start(&disk, config()).unwrap();
            scene.check(running.addresses);
        }
    }
}
