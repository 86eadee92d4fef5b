//! A sync of the journal fails: nothing is acknowledged any more, everything else goes on, and a
//! restart cures it.

use interflow_logstore::disk::FaultDisk;

use crate::admin;
use crate::kafka::STORAGE_ERROR;
use crate::mqtt5::{Mqtt5, QUOTA_EXCEEDED};
use crate::running::{Addresses, Running, config, journal};
use crate::scene::{PUBLISHED, RETAINED, Scene, TOPIC, is_closed_by, kafka};

/// Whose write is the one that the failing sync should have made durable.
#[derive(Clone, Copy, Debug)]
enum First {
    Mqtt5,
    Mqtt311,
    Kafka,
}

fn write(addresses: Addresses, who: First) {
    match who {
        First::Mqtt5 => {
            let mut client = Mqtt5::connect(addresses.mqtt, "new", true);
            for (topic, qos, retain) in
                [(PUBLISHED, 1, false), (PUBLISHED, 2, false), (RETAINED, 1, true)]
            {
                let reason = client.publish(topic, &format!("refused-{qos}"), qos, retain);
                assert_eq!(reason, QUOTA_EXCEEDED, "{topic} {qos}");
            }
        }
        First::Mqtt311 => assert!(is_closed_by(addresses, "of an old client")),
        First::Kafka => {
            assert_eq!(kafka(addresses).produce(TOPIC, "refused").0, STORAGE_ERROR);
        }
    }
}

#[test]
fn a_failed_sync_of_the_journal_ends_acknowledgements_and_a_restart_brings_them_back() {
    for first in [First::Mqtt5, First::Mqtt311, First::Kafka] {
        println!("{first:?} writes first");
        let disk = FaultDisk::new();
        let running = Running::start(&disk, config()).unwrap();
        let addresses = running.addresses;
        let mut scene = Scene::begin(addresses);
        assert_eq!(admin::get(addresses.admin, "/healthz").0, 200);

        journal(&disk).fail_sync_after(0);
        write(addresses, first);
        for who in [First::Mqtt5, First::Mqtt311, First::Kafka] {
            write(addresses, who);
        }
        let (status, why) = admin::get(addresses.admin, "/healthz");
        assert_eq!(status, 503);
        assert!(why.contains("journal") && why.contains("sync"), "{why}");
        assert_eq!(admin::get(addresses.admin, "/readyz").0, 503);
        scene.check(addresses);
        let mut client = kafka(addresses);
        let end = client.fetch(TOPIC, 0, 0).high_watermark;
        assert_eq!(end, scene.produced_count(), "what was not synced is not shown");
        // What needs the metadata only goes on.
        assert_eq!(client.create("made-meanwhile", 1, &[]), 0);

        // The process ends; what its system still holds in memory was not written.
        disk.kill();
        drop(running);
        let running = Running::start(&disk, config()).unwrap();
        assert_eq!(admin::get(running.addresses.admin, "/healthz").0, 200);
        scene.check(running.addresses);
        scene.add(running.addresses, "second");
        scene.check(running.addresses);

        // The power goes.
        disk.crash(first as u64);
        drop(running);
        let running = Running::start(&disk, config()).unwrap();
        scene.check(running.addresses);
        scene.add(running.addresses, "third");
        scene.check(running.addresses);
    }
}
