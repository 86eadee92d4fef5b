//! Things that were acknowledged in all ways, and a look whether they are there.

use std::collections::{BTreeMap, BTreeSet};

use crate::admin;
use crate::check;
use crate::mqtt5::Mqtt5;
use crate::running::Addresses;
use crate::wire::{Kafka, Mqtt};

/// The Kafka topic; it has one partition.
pub(crate) const TOPIC: &str = "t";
/// The MQTT topic of the publishes.
pub(crate) const PUBLISHED: &str = "d/0";
/// The MQTT topic of the retained message.
pub(crate) const RETAINED: &str = "r/0";
/// The partitions of the topic that MQTT publishes go to.
pub(crate) const MQTT_PARTITIONS: i32 = 8;

/// What must be there.
#[derive(Default)]
pub(crate) struct Scene {
    produced: BTreeMap<i64, String>,
    published: Vec<String>,
    retained: String,
    committed: i64,
}

impl Scene {
    pub(crate) fn begin(addresses: Addresses) -> Self {
        assert_eq!(kafka(addresses).create(TOPIC, 1, &[]), 0);
        let mut scene = Self::default();
        scene.add(addresses, "first");
        scene
    }

    /// Writes in every way; all of it has to be acknowledged.
    pub(crate) fn add(&mut self, addresses: Addresses, name: &str) {
        let mut kafka = kafka(addresses);
        let mut mqtt = Mqtt5::connect(addresses.mqtt, name, true);
        for n in 0..5 {
            let value = format!("{name}-{n}");
            let (code, offset) = kafka.produce(TOPIC, &value);
            assert_eq!(code, 0, "produce {value}");
            self.produced.insert(offset, value.clone());
            let qos = 1 + n % 2;
            assert_eq!(mqtt.publish(PUBLISHED, &value, qos, false), 0, "publish {value}");
            self.published.push(value);
        }
        self.retained = format!("{name}-retained");
        assert_eq!(mqtt.publish(RETAINED, &self.retained, 1, true), 0);
        self.committed += 1;
        assert_eq!(kafka.commit(self.committed), 0);
    }

    /// A record was acknowledged.
    pub(crate) fn produced(&mut self, offset: i64, value: &str) {
        self.produced.insert(offset, value.to_owned());
    }

    /// A publish was acknowledged.
    pub(crate) fn published(&mut self, payload: &str) {
        self.published.push(payload.to_owned());
    }

    /// Everything is there, once, and nothing is damaged.
    pub(crate) fn check(&self, addresses: Addresses) {
        self.check_produced(addresses);
        self.check_published(addresses);
        self.check_meta(addresses);
        for topic in [TOPIC, "mqtt"] {
            assert_eq!(admin::damage(addresses.admin, topic), []);
        }
    }

    fn check_produced(&self, addresses: Addresses) {
        let found = check::read(&mut kafka(addresses), TOPIC, 0).expect("all can be read");
        for (offset, value) in &self.produced {
            assert_eq!(found.get(offset).map(|found| &found.value), Some(value), "at {offset}");
        }
        let unique: BTreeSet<_> = found.values().map(|found| &found.value).collect();
        assert_eq!(unique.len(), found.len(), "a record is there twice");
    }

    pub(crate) fn check_published(&self, addresses: Addresses) {
        let mut kafka = kafka(addresses);
        let all = (0..MQTT_PARTITIONS).flat_map(|partition| {
            check::read(&mut kafka, "mqtt", partition).expect("all can be read").into_values()
        });
        let found: Vec<String> =
            all.filter(|found| found.key == PUBLISHED).map(|found| found.value).collect();
        let mut rest = found.iter();
        for payload in &self.published {
            assert!(rest.any(|found| found == payload), "{payload} is not in {found:?}");
        }
        let unique: BTreeSet<_> = found.iter().collect();
        assert_eq!(unique.len(), found.len(), "a message is there twice");
    }

    pub(crate) fn check_meta(&self, addresses: Addresses) {
        assert_eq!(kafka(addresses).committed(), (0, self.committed));
        let mut mqtt = Mqtt5::connect(addresses.mqtt, "check", true);
        mqtt.subscribe("r/#");
        assert_eq!(mqtt.message(), (RETAINED.to_owned(), self.retained.clone()));
    }

    /// How many records of the Kafka topic were acknowledged.
    pub(crate) fn produced_count(&self) -> i64 {
        self.produced.len() as i64
    }
}

pub(crate) fn kafka(addresses: Addresses) -> Kafka {
    Kafka::connect(addresses.kafka).expect("a connection")
}

/// Whether an MQTT 3.1.1 publish is not acknowledged: its connection is closed, so that it is sent
/// again.
pub(crate) fn is_closed_by(addresses: Addresses, payload: &str) -> bool {
    let mut client = Mqtt::connect(addresses.mqtt, "old").expect("a connection");
    client.send(PUBLISHED, payload, 1, false).expect("a server that reads");
    let Err(error) = client.acknowledged() else { return false };
    let is_timeout =
        matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
    assert!(!is_timeout, "the connection stays open");
    true
}
