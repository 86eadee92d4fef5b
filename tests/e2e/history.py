"""A workload on a cluster, what was told of it, and whether that is true: nothing acknowledged is lost, nothing
of an idempotent producer is there twice, and all that read see the same.

`python history.py --help`: the same as a long run with faults at random, and a report.
"""

import collections
import json
import threading
import time

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

import mqtt_clients

# A record is tried for so long, over whatever happens.
RETRY_MS = 60_000


class Producing(threading.Thread):
    """An idempotent producer of librdkafka over all partitions of a topic; what it was told, in the order of it."""

    def __init__(self, bootstrap, topic, partitions, name):
        super().__init__(daemon=True)
        self.topic, self.partitions, self.prefix = topic, partitions, name
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 1,
            "message.timeout.ms": RETRY_MS,
        })  # fmt: skip
        self.ending = threading.Event()
        # (partition, value) -> offset; in the order of the acknowledgements.
        self.acked = {}
        self.sent, self.errors, self.times = [], [], collections.defaultdict(list)
        self.unsent = None

    def run(self):
        number = 0
        while not self.ending.wait(0.005):
            for partition in range(self.partitions):
                value = f"{self.prefix}-{number}"
                number += 1
                self.sent.append((partition, value))
                self.producer.produce(self.topic, value, partition=partition, on_delivery=self._told)
            self.producer.poll(0)
        self.unsent = self.producer.flush(RETRY_MS / 1000)

    def _told(self, error, message):
        if error is not None:
            self.errors.append(str(error))
            return
        self.acked[(message.partition(), message.value().decode())] = message.offset()
        self.times[message.partition()].append(time.monotonic())

    def stop(self):
        self.ending.set()
        self.join(RETRY_MS / 1000 + 30)
        assert not self.is_alive() and self.unsent == 0, "the producer does not come to its end"

    def longest_silence(self):
        """The longest time without an acknowledgement of a partition, in seconds."""
        gaps = [b - a for times in self.times.values() for a, b in zip(times, times[1:])]
        return max(gaps, default=0.0)


class Publishing(threading.Thread):
    """An MQTT client that publishes with QoS 1, one message after the other; it connects again when it must."""

    def __init__(self, gateways, topic):
        super().__init__(daemon=True)
        self.gateways, self.topic = gateways, topic
        self.ending = threading.Event()
        self.acked, self.unknown, self.failures = [], [], 0
        # Packet ids that were answered by an error.
        self.refused = set()

    def run(self):
        number, client = 0, None
        while not self.ending.is_set():
            try:
                if client is None:
                    gateway = self.gateways[self.failures % len(self.gateways)]
                    client = mqtt_clients.paho_client("paho-5", gateway)
                    client.on_publish = self._told
                value = f"m{number}"
                number += 1
                told = client.publish(self.topic, value, qos=1)
                told.wait_for_publish(20)
                is_acked = told.is_published() and told.mid not in self.refused
                self.refused.discard(told.mid)
                (self.acked if is_acked else self.unknown).append(value)
            except Exception:  # noqa: BLE001 - whatever it is, the client goes elsewhere
                self.failures += 1
                self.unknown.append(f"m{number - 1}")
                client = None
        if client is not None:
            client.loop_stop()
            client.disconnect()

    def _told(self, _client, _data, mid, reason, _properties):
        if reason.is_failure:
            self.refused.add(mid)

    def stop(self):
        self.ending.set()
        self.join(60)
        assert not self.is_alive()


def create(gateway, topic, partitions, replicas=3):
    """A topic with so many copies."""
    admin = AdminClient({"bootstrap.servers": gateway.bootstrap})
    (created,) = admin.create_topics([NewTopic(topic, partitions, replicas)]).values()
    created.result()


def read_all(bootstrap, topic, partitions):
    """All records by partition: offset -> value."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": f"all-{time.monotonic_ns()}",
        "enable.partition.eof": True, "enable.auto.commit": False,
    })  # fmt: skip
    consumer.assign([confluent_kafka.TopicPartition(topic, n, confluent_kafka.OFFSET_BEGINNING) for n in range(partitions)])
    records, ended = collections.defaultdict(dict), set()
    deadline = time.monotonic() + 120
    while len(ended) < partitions:
        assert time.monotonic() < deadline, f"{topic} can't be read: {len(ended)} of {partitions} partitions have an end"
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            if message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            continue
        records[message.partition()][message.offset()] = message.value().decode()
    consumer.close()
    return records


def check(producers, bootstraps, topic, partitions):
    """Holds what producers were told against what is read at each of `bootstraps`."""
    all_reads = [read_all(bootstrap, topic, partitions) for bootstrap in bootstraps]
    assert all(records == all_reads[0] for records in all_reads), "two gateways read different logs"
    places = collections.defaultdict(list)
    for partition, records in all_reads[0].items():
        assert sorted(records) == list(range(len(records))), f"holes in partition {partition}"
        for offset, value in records.items():
            places[(partition, value)].append(offset)
    for producer in producers:
        assert producer.errors == [], producer.errors[:3]
        last = {}
        for key, offset in producer.acked.items():
            # librdkafka knows no offset of a batch whose answer it missed, and that a later one's vouches for:
            # https://github.com/confluentinc/librdkafka/pull/2081
            is_there = len(places[key]) == 1 if offset is None else places[key] == [offset]
            assert is_there, f"{key} was acknowledged at {offset} and is at {places[key]}"
        for key in producer.sent:
            assert len(places[key]) <= 1, f"{key} is there more than once"
            if places[key]:
                partition, (offset,) = key[0], places[key]
                assert last.get(partition, -1) < offset, f"{key} is out of order"
                last[partition] = offset
    return sum(len(records) for records in all_reads[0].values())


def main():
    """Faults at random, one after the other, under load; a report in JSON."""
    import argparse
    import random

    from cluster import Cluster

    options = argparse.ArgumentParser(description="A cluster under load and faults, and a check of its history.")
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--partitions", type=int, default=12)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options = options.parse_args()
    chance = random.Random(options.seed)
    report = {"seed": options.seed, "faults": collections.Counter(), "silences": []}
    settings = {"INTERFLOW_STORAGE__DEFAULT_REPLICATION_FACTOR": "3"}
    with Cluster(stores=3, gateways=2, settings=settings) as cluster:
        create(cluster.gateways[0], "history", options.partitions)
        bootstrap = ",".join(gateway.bootstrap for gateway in cluster.gateways)
        producers = [Producing(bootstrap, "history", options.partitions, f"p{n}") for n in range(2)]
        for producer in producers:
            producer.start()
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            time.sleep(chance.uniform(2, 8))
            kind = chance.choice(["kill", "terminate", "stop", "gateway"])
            report["faults"][kind] += 1
            fault(cluster, kind, chance)
        time.sleep(5)
        for producer in producers:
            producer.stop()
            report["silences"].append(round(producer.longest_silence(), 3))
        report["records"] = check(
            producers, [gateway.bootstrap for gateway in cluster.gateways], "history", options.partitions
        )
    print(json.dumps(report, indent=1))


def fault(cluster, kind, chance):
    """One fault, over when this returns."""
    import signal

    store = chance.choice(cluster.stores)
    if kind == "kill":
        store.kill()
        time.sleep(chance.uniform(0, 6))
        store.start()
    elif kind == "terminate":
        store.terminate()
        time.sleep(chance.uniform(0, 3))
        store.start()
    elif kind == "stop":
        store.process.send_signal(signal.SIGSTOP)
        time.sleep(chance.uniform(1, 8))
        store.process.send_signal(signal.SIGCONT)
    else:
        gateway = chance.choice(cluster.gateways)
        gateway.kill()
        time.sleep(chance.uniform(0, 2))
        gateway.start()


if __name__ == "__main__":
    main()
