"""Kafka's own clients and tools on ordinary topics."""

import concurrent.futures
import subprocess
import time

import confluent_kafka
import pytest

import kafka_clients
import mqtt_clients
from broker import PATIENCE, interflow
from kafka_clients import create_topic, java, librdkafka


@pytest.mark.parametrize("kind", kafka_clients.KINDS)
def test_order_on_a_topic(broker, unique, kind):
    topic = unique("orders")
    create_topic(broker, topic, 3)
    values = [f"value {n}" for n in range(3)]
    for value in values:
        kafka_clients.produce(kind, broker, topic, "key", value)
    assert kafka_clients.consume(kind, broker, topic, "key", 3) == values


def test_clients_read_each_others_records(broker, unique):
    topic = unique("mixed")
    create_topic(broker, topic)
    kinds = [kind for kind in kafka_clients.KINDS if not kind.endswith("tls")]
    for kind in kinds:
        kafka_clients.produce(kind, broker, topic, "key", kind)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        reads = [pool.submit(kafka_clients.consume, kind, broker, topic, "key", len(kinds)) for kind in kinds]
    assert [read.result() for read in reads] == [kinds] * len(kinds)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_come_back(broker, unique, codec):
    topic = unique("compressed")
    create_topic(broker, topic)
    config = {"compression.type": codec, "linger.ms": 50, "enable.idempotence": True}
    producer = confluent_kafka.Producer(librdkafka("confluent", broker, **config))
    for n in range(500):
        producer.produce(topic, f"value {n}" * 20, "key", headers=[("a", b"\0\xff"), ("a", b""), ("b", None)])
    assert producer.flush(PATIENCE) == 0
    config = {"group.id": unique("group"), "auto.offset.reset": "earliest"}
    consumer = confluent_kafka.Consumer(librdkafka("confluent", broker, **config))
    consumer.subscribe([topic])
    got = consume(consumer, 500)
    assert [message.value().decode() for message in got] == [f"value {n}" * 20 for n in range(500)]
    assert [message.offset() for message in got] == list(range(500))
    assert all(message.headers() == [("a", b"\0\xff"), ("a", b""), ("b", None)] for message in got)
    consumer.close()


def test_compressed_records_reach_mqtt(broker, unique):
    topic = unique("sensors")
    for codec in ["gzip", "snappy", "lz4", "zstd"]:
        with mqtt_clients.subscribe("paho-5", broker, topic) as receive:
            producer = confluent_kafka.Producer(librdkafka("confluent", broker, **{"compression.type": codec}))
            producer.produce("mqtt", codec * 100, topic)
            assert producer.flush(PATIENCE) == 0
            assert receive() == (topic, codec * 100)


def consume(consumer, count):
    messages, deadline = [], time.monotonic() + PATIENCE
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count}"
        for message in consumer.consume(count - len(messages), 1):
            assert message.error() is None, message.error()
            messages.append(message)
    return messages


class Member:
    """A consumer of a group, polled by the test."""

    def __init__(self, broker, group, topic, **more):
        self.assigned, self.values = set(), []
        config = {
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 200,
            **more,
        }
        self.consumer = confluent_kafka.Consumer(librdkafka("confluent", broker, **config))
        cooperative = "cooperative" in more.get("partition.assignment.strategy", "")

        def on_assign(_, partitions):
            new = {p.partition for p in partitions}
            self.assigned = self.assigned | new if cooperative else new

        def on_revoke(_, partitions):
            self.assigned -= {p.partition for p in partitions}

        self.consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke)

    def poll(self):
        message = self.consumer.poll(0.05)
        if message is not None:
            assert message.error() is None, message.error()
            self.values.append(message.value().decode())
            self.consumer.commit(message, asynchronous=False)


def poll_until(members, reached):
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, [(m.assigned, len(m.values)) for m in members]
        for member in members:
            member.poll()


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_group_rebalances(broker, unique, strategy):
    topic, group = unique("work"), unique("group")
    create_topic(broker, topic, 4)
    producer = confluent_kafka.Producer(librdkafka("confluent", broker))

    def add(numbers):
        for n in numbers:
            producer.produce(topic, str(n), str(n), partition=n % 4)
        assert producer.flush(PATIENCE) == 0

    more = {"partition.assignment.strategy": strategy}
    add(range(40))
    first = Member(broker, group, topic, **more)
    poll_until([first], lambda: first.assigned == {0, 1, 2, 3} and len(first.values) == 40)
    second = Member(broker, group, topic, **more)
    both = [first, second]
    poll_until(both, lambda: len(first.assigned) == 2 and first.assigned | second.assigned == {0, 1, 2, 3})
    add(range(40, 80))
    poll_until(both, lambda: len(first.values) + len(second.values) >= 80)
    second.consumer.close()
    poll_until([first], lambda: first.assigned == {0, 1, 2, 3})
    add(range(80, 100))
    poll_until([first], lambda: len(first.values) + len(second.values) >= 100)
    first.consumer.close()
    # What was committed isn't read again: each once.
    assert sorted(map(int, first.values + second.values)) == list(range(100))


def test_group_goes_on_where_it_committed(broker, unique):
    topic, group = unique("work"), unique("group")
    create_topic(broker, topic)
    for n in range(6):
        kafka_clients.produce("confluent", broker, topic, "key", str(n))
    first = Member(broker, group, topic)
    poll_until([first], lambda: len(first.values) == 3)
    first.consumer.close()
    second = Member(broker, group, topic)
    poll_until([second], lambda: len(second.values) == 3)
    second.consumer.close()
    assert first.values + second.values == [str(n) for n in range(6)]


def test_java_tools(broker, unique):
    topic, group = unique("java"), unique("group")

    def tool(name, *arguments):
        done = subprocess.run(
            java(name, "--bootstrap-server", broker.bootstrap, *arguments),
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tool("TopicCommand", "--create", "--topic", topic, "--partitions", "2", "--replication-factor", "1")
    assert topic in tool("TopicCommand", "--list").split()
    described = tool("TopicCommand", "--describe", "--topic", topic)
    assert "PartitionCount: 2" in described and "ReplicationFactor: 1" in described
    for n in range(5):
        kafka_clients.produce("kcat", broker, topic, str(n), str(n))
    member = Member(broker, group, topic)
    poll_until([member], lambda: len(member.values) == 3)
    described = tool("consumer.group.ConsumerGroupCommand", "--describe", "--group", group)
    rows = [line.split() for line in described.splitlines() if line.startswith(group)]
    # GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …
    assert sum(int(row[3]) for row in rows if row[3] != "-") == 3
    assert sum(int(row[4]) for row in rows) == 5
    member.consumer.close()
    assert group in tool("consumer.group.ConsumerGroupCommand", "--list").split()
    tool("consumer.group.ConsumerGroupCommand", "--delete", "--group", group)
    assert group not in tool("consumer.group.ConsumerGroupCommand", "--list").split()
    tool("TopicCommand", "--delete", "--topic", topic)
    assert topic not in tool("TopicCommand", "--list").split()


def test_own_tools(broker, unique):
    topic, group = unique("own"), unique("group")
    kafka, admin = ["--bootstrap", broker.bootstrap], ["--bootstrap", broker.bootstrap]
    interflow("topic", "create", topic, "--partitions", "3", *kafka)
    assert topic in interflow("topic", "list", *kafka).stdout
    described = interflow("topic", "describe", topic, *kafka).stdout
    assert [line.split() for line in described.splitlines()][2:5] == [
        [str(partition), "0", "0", "0"] for partition in range(3)
    ]
    assert "retention.ms" in described
    kafka_clients.produce("confluent", broker, topic, "key", "value")
    member = Member(broker, group, topic)
    poll_until([member], lambda: member.values == ["value"])
    kafka_clients.produce("confluent", broker, topic, "key", "lag")
    assert group in interflow("group", "list", *kafka).stdout
    assert topic in interflow("group", "describe", group, *admin).stdout
    member.consumer.close()
    interflow("topic", "delete", topic, *kafka)
    assert topic not in interflow("topic", "list", *kafka).stdout.split()
