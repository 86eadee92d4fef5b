"""`kill -9` in the middle of load, again and again: what was acknowledged is there, in order, once.

Rounds end after a number of acknowledgements, never after a time.
"""

import contextlib
import os
import queue
import random
import threading
import time

import confluent_kafka
import paho.mqtt.client as paho

import kafka_clients
from broker import PATIENCE, Broker

ROUNDS = int(os.environ.get("INTERFLOW_TEST_CRASHES", "50"))
PARTITIONS = 4
TOPIC = "crash"
MQTT_TOPICS = [f"crash/{n}" for n in range(4)]


class Load:
    """Producers that go on over every restart, and what was acknowledged to them."""

    def __init__(self):
        self.stop = threading.Event()
        self.acknowledged = threading.Condition()
        self.count = 0
        self.failure = None
        self.threads = []

    def run(self, target, *arguments):
        def guarded():
            try:
                target(*arguments)
            except BaseException as error:
                self.fail(error)

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        self.threads.append(thread)

    def fail(self, error):
        with self.acknowledged:
            self.failure = self.failure or error
            self.acknowledged.notify_all()

    def acked(self):
        with self.acknowledged:
            self.count += 1
            self.acknowledged.notify_all()

    def wait_for(self, more):
        with self.acknowledged:
            target = self.count + more
            assert self.acknowledged.wait_for(lambda: self.count >= target or self.failure, PATIENCE), "load stands still"
            if self.failure:
                raise self.failure

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if self.failure:
            raise self.failure


def produce(load, broker, sent, acked):
    """An idempotent producer: numbers 0, 1, 2 … to each partition."""
    config = {
        "enable.idempotence": True,
        "linger.ms": 1,
        "batch.num.messages": 50,
        "queue.buffering.max.messages": 400,
        "reconnect.backoff.ms": 10,
        "reconnect.backoff.max.ms": 50,
        "retry.backoff.ms": 10,
        "retry.backoff.max.ms": 50,
        "message.timeout.ms": 300_000,
    }
    producer = confluent_kafka.Producer(kafka_clients.librdkafka("confluent", broker, **config))

    def delivered(error, message):
        if error is not None:
            load.fail(AssertionError(f"not delivered: {error}"))
            return
        acked[message.partition()].append(int(message.value()))
        load.acked()

    while not load.stop.is_set() and not load.failure:
        for partition in range(PARTITIONS):
            while True:
                try:
                    producer.produce(TOPIC, str(sent[partition]), partition=partition, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.05)
            sent[partition] += 1
        producer.poll(0)
    assert producer.flush(PATIENCE) == 0


def publish(load, broker, index, sent, acked):
    """A QoS 1 publisher with 20 messages in flight; paho sends what wasn't acknowledged again."""
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, client_id=f"crash-{index}", clean_session=False, reconnect_on_failure=True
    )
    client.reconnect_delay_set(1, 1)
    client.max_inflight_messages_set(20)
    numbers, done = {}, queue.Queue()
    # The callback holds locks of paho's: it only hands over.
    client.on_publish = lambda _client, _data, packet_id, _reason, _props: done.put(packet_id)

    def take(**how):
        acked[index].append(numbers.pop(done.get(**how)))
        load.acked()

    client.connect("localhost", broker.port("mqtt"))
    client.loop_start()
    while not load.stop.is_set() and not load.failure:
        while len(numbers) < 20:
            numbers[client.publish(MQTT_TOPICS[index], str(sent[index]), 1).mid] = sent[index]
            sent[index] += 1
        with contextlib.suppress(queue.Empty):
            take(timeout=1)
    while numbers:
        take(timeout=PATIENCE)
    client.disconnect()
    client.loop_stop()


def read_all(broker, topic):
    """All records of a topic: partition → [(key, value)]."""
    consumer = confluent_kafka.Consumer(kafka_clients.librdkafka("confluent", broker, **{"group.id": "reader"}))
    partitions = consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions
    records, ends = {}, {}
    for partition in partitions:
        place = confluent_kafka.TopicPartition(topic, partition, 0)
        ends[partition] = consumer.get_watermark_offsets(place, timeout=PATIENCE)[1]
        records[partition] = []
    consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p, end in ends.items() if end > 0])
    at, deadline = dict.fromkeys(partitions, 0), time.monotonic() + PATIENCE
    while any(at[p] < ends[p] for p in partitions):
        assert time.monotonic() < deadline, (at, ends)
        for message in consumer.consume(10_000, 1):
            assert message.error() is None, message.error()
            at[message.partition()] = message.offset() + 1
            records[message.partition()].append((message.key(), int(message.value())))
    consumer.close()
    return records


def test_kill_9_in_the_middle_of_load():
    rng = random.Random(1)
    produced = {p: 0 for p in range(PARTITIONS)}
    produced_acks = {p: [] for p in range(PARTITIONS)}
    published = [0] * len(MQTT_TOPICS)
    published_acks = [[] for _ in MQTT_TOPICS]
    with Broker() as broker:
        kafka_clients.create_topic(broker, TOPIC, PARTITIONS)
        load = Load()
        load.run(produce, load, broker, produced, produced_acks)
        for index in range(len(MQTT_TOPICS)):
            load.run(publish, load, broker, index, published, published_acks)
        for _ in range(ROUNDS):
            load.wait_for(rng.randrange(50, 1500))
            broker.kill()
            broker.start()
        load.wait_for(100)
        load.finish()

        records = read_all(broker, TOPIC)
        for partition in range(PARTITIONS):
            values = [value for _, value in records[partition]]
            # Complete, in order, each once: what was sent is exactly what is there.
            assert values == list(range(produced[partition])), f"partition {partition}"
            assert set(produced_acks[partition]) <= set(values)

        by_topic = {topic: [] for topic in MQTT_TOPICS}
        for partition in read_all(broker, "mqtt").values():
            for key, value in partition:
                by_topic[key.decode()].append(value)
        for index, topic in enumerate(MQTT_TOPICS):
            values = by_topic[topic]
            assert set(published_acks[index]) <= set(values), f"{topic}: acknowledged and lost"
            # At least once: repeats may come, but a message is first seen in its order.
            first_seen = list(dict.fromkeys(values))
            assert first_seen == sorted(first_seen), f"{topic}: order"
