"""Three log stores, two gateways, three replicas: whatever happens to a process, what was acknowledged stays.

The load runs through each test; what the clients were told is held against what is read at the end.
"""

import signal
import subprocess

import confluent_kafka
import kafka
import pytest
from confluent_kafka.admin import AdminClient

import kafka_clients
import mqtt_clients
from broker import PATIENCE
from cluster import Cluster, interflow, until
from history import Producing, Publishing, check, create, read_all

PARTITIONS = 8
# A topic of many.
IDLE = 120


@pytest.fixture(scope="module")
def cluster():
    settings = {"INTERFLOW_STORAGE__DEFAULT_REPLICATION_FACTOR": "3"}
    with Cluster(stores=3, gateways=2, settings=settings) as running:
        yield running


class Load:
    """Producers on a new topic, from both gateways, until the block ends; then the check."""

    def __init__(self, cluster, topic):
        self.cluster, self.topic = cluster, topic
        create(cluster.gateways[0], topic, PARTITIONS)

    def __enter__(self):
        bootstraps = [gateway.bootstrap for gateway in self.cluster.gateways]
        both = ",".join(bootstraps)
        self.producers = [Producing(both, self.topic, PARTITIONS, f"p{n}") for n in range(2)]
        self.publisher = Publishing(self.cluster.gateways, f"{self.topic}/m")
        for client in [*self.producers, self.publisher]:
            client.start()
        self.goes_on()
        return self

    def __exit__(self, kind, *_):
        for client in [*self.producers, self.publisher]:
            client.stop()
        if kind is None:
            self.check()

    def goes_on(self):
        """Each partition and the MQTT client get new acknowledgements."""
        before = [[len(producer.times[n]) for n in range(PARTITIONS)] for producer in self.producers]
        published = len(self.publisher.acked)

        def has_gone_on():
            kafka = all(
                len(producer.times[n]) > count + 3
                for producer, counts in zip(self.producers, before)
                for n, count in enumerate(counts)
            )
            return kafka and len(self.publisher.acked) > published + 3

        until(has_gone_on, "no acknowledgements come any more")

    def check(self):
        bootstraps = [gateway.bootstrap for gateway in self.cluster.gateways]
        assert check(self.producers, bootstraps, self.topic, PARTITIONS) > 100
        # What was acknowledged to the MQTT client is in the log, in its order.
        records = read_all(bootstraps[0], "mqtt", 8)
        values = [value for part in records.values() for _, value in sorted(part.items())]
        found = [value for value in values if value in set(self.publisher.acked)]
        firsts = list(dict.fromkeys(found))
        assert set(self.publisher.acked) <= set(firsts)


def sequencers(cluster, topic):
    """The nodes that give out offsets, by partition."""
    lines = interflow("log", "describe", topic, *cluster.gateways[0].admin).stdout.splitlines()
    return [int(line.split("sequencer ")[1].split(",")[0]) for line in lines if "sequencer " in line]


def store_of(cluster, node):
    return next(store for store in cluster.stores if store.node_id == node)


def test_a_killed_sequencer_is_replaced(cluster, unique):
    with Load(cluster, unique("killed")) as load:
        store = store_of(cluster, sequencers(cluster, load.topic)[0])
        store.kill()
        try:
            load.goes_on()
            assert store.node_id not in sequencers(cluster, load.topic)
        finally:
            store.start()
        load.goes_on()


def test_a_stopped_process_that_goes_on_later_does_no_harm(cluster, unique):
    with Load(cluster, unique("stopped")) as load:
        store = store_of(cluster, sequencers(cluster, load.topic)[0])
        store.process.send_signal(signal.SIGSTOP)
        try:
            load.goes_on()
            # For longer than its lease.
            until(lambda: not cluster.gateways[0].nodes()[store.node_id]["is_live"], "it is not missed")
            load.goes_on()
        finally:
            store.process.send_signal(signal.SIGCONT)
        load.goes_on()
    # It lost its place as another life would have taken it, or goes on as a replica.
    if not store.alive():
        store.start()
    until(lambda: cluster.gateways[0].nodes()[store.node_id]["is_live"], "it does not come back")


def test_each_node_in_turn_is_stopped_and_started(cluster, unique):
    with Load(cluster, unique("rolling")) as load:
        for store in cluster.stores:
            code, _ = store.terminate()
            assert code == 0, store.log()
            load.goes_on()
            store.start()
            load.goes_on()
        # A message that is waiting for nothing is not lost, either.
        assert load.publisher.failures == 0


def test_a_killed_gateway_takes_nothing_along(cluster, unique):
    topic = unique("gateway")
    group = unique("group")
    with Load(cluster, topic) as load:
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": ",".join(gateway.bootstrap for gateway in cluster.gateways),
            "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
        })  # fmt: skip
        consumer.subscribe([topic])
        first = until(lambda: consumer.poll(1), "nothing is consumed")
        assert first.error() is None
        committed = consumer.commit(first, asynchronous=False)
        victim = cluster.gateways[1]
        victim.kill()
        try:
            load.goes_on()
            until(lambda: consumer.poll(1), "nothing is consumed any more")
            place = confluent_kafka.TopicPartition(topic, first.partition())
            (kept,) = consumer.committed([place], timeout=60)
            assert kept.offset == committed[0].offset
        finally:
            victim.start()
        consumer.close()
        load.goes_on()


def test_a_node_is_drained_and_given_up(cluster, unique):
    with Load(cluster, unique("drained")) as load:
        admin = cluster.gateways[0].admin
        interflow("node", "drain", "3", *admin)
        until(lambda: 3 not in sequencers(cluster, load.topic), "node 3 keeps its logs")
        load.goes_on()
        interflow("node", "drain", "3", "--undo", *admin)


def test_a_dead_majority_is_said_and_waited_out(cluster, unique):
    topic = unique("majority")
    create(cluster.gateways[0], topic, 1)
    producing = Producing(cluster.gateways[0].bootstrap, topic, 1, "p")
    producing.start()
    until(lambda: len(producing.times[0]) > 3, "nothing is acknowledged")
    for store in cluster.stores[:2]:
        store.kill()
    for store in cluster.stores[:2]:
        store.start()
    count = len(producing.times[0])
    until(lambda: len(producing.times[0]) > count + 3, "nothing is acknowledged any more")
    producing.stop()
    check([producing], [gateway.bootstrap for gateway in cluster.gateways], topic, 1)


def kafka_topics(gateway, topic, *arguments):
    """The partitions that Kafka's tool describes."""
    command = kafka_clients.java(
        "TopicCommand", "--bootstrap-server", gateway.bootstrap, "--describe", "--topic", topic, *arguments
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done
    # Their numbers, as "Replicas: 1,2,3", by a tab each.
    lines = [line for line in done.stdout.splitlines() if "Partition: " in line]
    return [dict(word.strip().split(": ", 1) for word in line.split("\t") if ": " in word) for line in lines]


def test_clients_see_replicas_and_which_are_in_sync(cluster, unique):
    # Of so many partitions Metadata may be some seconds old, and nothing was written to them.
    one, topic, idle = cluster.gateways[0], unique("seen"), unique("idle")
    create(one, topic, 3)
    create(one, idle, IDLE)
    producer = confluent_kafka.Producer({"bootstrap.servers": one.bootstrap, "enable.idempotence": True})
    for partition in range(3):
        producer.produce(topic, "v", partition=partition)
    assert producer.flush(PATIENCE) == 0
    gateways = {gateway.node for gateway in cluster.gateways}
    stores = {store.node_id for store in cluster.stores}
    admin = AdminClient({"bootstrap.servers": one.bootstrap})

    def in_sync(topic):
        """How many log stores librdkafka sees in sync, by partition."""
        parts = admin.list_topics(topic, timeout=PATIENCE).topics[topic].partitions.values()
        if any(part.error for part in parts):
            return []
        assert all(len(part.replicas) == 3 and part.leader in gateways for part in parts), parts
        assert all(set(part.isrs) <= stores for part in parts), parts
        return [len(part.isrs) for part in parts]

    def all_have(count):
        return in_sync(topic) == [count] * 3 and in_sync(idle) == [count] * IDLE

    until(lambda: all_have(3), "librdkafka does not see all replicas in sync")
    (described,) = admin.describe_topics(confluent_kafka.TopicCollection([topic])).values()
    for part in described.result(PATIENCE).partitions:
        assert {node.id for node in part.replicas} == {node.id for node in part.isr} == stores
        assert part.leader.id in gateways
    python = kafka.KafkaAdminClient(bootstrap_servers=one.bootstrap)
    for part in python.describe_topics([topic])[0]["partitions"]:
        assert set(part["replica_nodes"]) == set(part["isr_nodes"]) == stores, part
    python.close()
    described = kafka_topics(one, topic)
    assert len(described) == 3
    for part in described:
        assert set(map(int, part["Replicas"].split(","))) == set(map(int, part["Isr"].split(","))) == stores, part
        assert int(part["Leader"]) in gateways, part
    assert kafka_topics(one, topic, "--under-replicated-partitions") == []
    assert kafka_topics(one, topic, "--unavailable-partitions") == []

    store = cluster.stores[0]
    store.kill()
    try:
        until(lambda: all_have(2), "librdkafka does not see that a replica lacks")
        # It has its place, or another that no node has yet.
        described = kafka_topics(one, topic, "--under-replicated-partitions")
        assert len(described) == 3 and all(len(part["Isr"].split(",")) == 2 for part in described), described
        # Reading and writing go on, whoever the replicas are.
        for kind in ["kafkajs", "java"]:
            kafka_clients.produce(kind, one, topic, kind, "v")
            assert kafka_clients.consume(kind, one, topic, kind) == ["v"], kind
    finally:
        store.start()
    until(lambda: all_have(3), "a replica lacks for good")


def test_mqtt_subscribers_follow_their_logs(cluster, unique):
    topic = unique("followed")
    one, other = cluster.gateways
    with mqtt_clients.subscribe("paho-5", other, f"{topic}/#") as receive:
        mqtt_clients.publish("paho-5", one, f"{topic}/a", "before", 1)
        assert receive() == (f"{topic}/a", "before")
        for store in cluster.stores:
            store.kill()
            mqtt_clients.publish("paho-5", one, f"{topic}/a", f"without {store.node_id}", 1)
            assert receive() == (f"{topic}/a", f"without {store.node_id}")
            store.start()
            until(lambda: one.nodes()[store.node_id]["is_live"], "it does not come back")
