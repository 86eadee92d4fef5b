//! A sync of the metadata store fails: what needs it is refused, what doesn't goes on, and a
//! restart cures it.

use interflow_logstore::disk::FaultDisk;

use crate::admin;
use crate::kafka::{COORDINATOR_NOT_AVAILABLE, REQUEST_TIMED_OUT};
use crate::mqtt5::{Mqtt5, QUOTA_EXCEEDED};
use crate::running::{Addresses, Running, config, meta};
use crate::scene::{PUBLISHED, RETAINED, Scene, TOPIC, kafka};

/// What is changed in the metadata, with an error for each.
const CHANGES: [fn(Addresses); 3] = [
    |addresses| assert_eq!(kafka(addresses).create("refused", 1, &[]), REQUEST_TIMED_OUT),
    |addresses| assert_eq!(kafka(addresses).commit(1_000), COORDINATOR_NOT_AVAILABLE),
    |addresses| {
        let mut client = Mqtt5::connect(addresses.mqtt, "retains", true);
        assert_eq!(client.publish(RETAINED, "refused", 1, true), QUOTA_EXCEEDED);
    },
];

#[test]
fn a_failed_sync_of_the_metadata_refuses_its_changes_and_keeps_logs_going() {
    for (number, first) in CHANGES.iter().enumerate() {
        println!("change {number} comes first");
        let disk = FaultDisk::new();
        let running = Running::start(&disk, config()).unwrap();
        let addresses = running.addresses;
        let mut scene = Scene::begin(addresses);

        meta(&disk).fail_sync_after(0);
        first(addresses);
        CHANGES.iter().for_each(|change| change(addresses));
        let (status, why) = admin::get(addresses.admin, "/healthz");
        assert_eq!(status, 503);
        assert!(why.contains("metadata") && why.contains("sync"), "{why}");

        // Logs that are open take appends, and all that was there is read.
        let (code, offset) = kafka(addresses).produce(TOPIC, "without metadata");
        assert_eq!(code, 0);
        scene.produced(offset, "without metadata");
        let mut client = Mqtt5::connect(addresses.mqtt, "publishes", true);
        assert_eq!(client.publish(PUBLISHED, "without metadata", 1, false), 0);
        scene.published("without metadata");
        scene.check(addresses);

        disk.kill();
        drop(running);
        let running = Running::start(&disk, config()).unwrap();
        let addresses = running.addresses;
        assert_eq!(admin::get(addresses.admin, "/healthz").0, 200);
        check_after(&scene, addresses);
        scene.add(addresses, "second");
        scene.check(addresses);

        disk.crash(number as u64);
        drop(running);
        let running = Running::start(&disk, config()).unwrap();
        scene.check(running.addresses);
        scene.add(running.addresses, "third");
        scene.check(running.addresses);
    }
}

/// Nothing that was refused came to be: the file's header was put back. But the retained message's
/// record is in the log, so the start may retain it: then it is as new as any.
fn check_after(scene: &Scene, addresses: Addresses) {
    scene.check_published(addresses);
    assert_eq!(kafka(addresses).committed().0, 0);
    assert_eq!(kafka(addresses).create("refused", 1, &[]), 0);
}
