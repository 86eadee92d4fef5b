"""Metadata that stands still, or is gone and comes back, under load: appends and reads go on meanwhile."""

import concurrent.futures
import signal
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from broker import PATIENCE
from cluster import LEASE_MS, Cluster, until
from test_replication import PARTITIONS, Load

# All leases end meanwhile.
AWAY_S = 2.5 * int(LEASE_MS) / 1000


@pytest.fixture(scope="module")
def cluster():
    settings = {"INTERFLOW_STORAGE__DEFAULT_REPLICATION_FACTOR": "3"}
    with Cluster(stores=3, gateways=2, settings=settings) as running:
        yield running


def goes_on_without(load):
    """Each partition takes records again and again, and they are read, for as long as the metadata is away."""
    ends = time.monotonic() + AWAY_S
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": load.cluster.gateways[0].bootstrap, "group.id": "none", "enable.auto.commit": False,
    })  # fmt: skip
    offsets = [confluent_kafka.TopicPartition(load.topic, n, confluent_kafka.OFFSET_END) for n in range(PARTITIONS)]
    consumer.assign(offsets)
    while time.monotonic() < ends:
        load.goes_on()
        message = until(lambda: consumer.poll(1), "nothing is read")
        assert message.error() is None, message.error()
    consumer.close()


def test_appends_and_reads_go_on_while_metadata_stands_still(cluster, unique):
    with Load(cluster, unique("still")) as load:
        cluster.meta.process.send_signal(signal.SIGSTOP)
        try:
            goes_on_without(load)
        finally:
            cluster.meta.process.send_signal(signal.SIGCONT)
        load.goes_on()
        assert load.publisher.failures == 0


def test_appends_and_reads_go_on_until_killed_metadata_is_back(cluster, unique):
    with Load(cluster, unique("gone")) as load:
        cluster.meta.close()
        try:
            goes_on_without(load)
        finally:
            cluster.meta.start()
        load.goes_on()
        assert load.publisher.failures == 0
    # All that needs metadata is done again: nodes live, and there is a new topic, whose sequencer then dies.
    until(lambda: all(node["is_live"] for node in cluster.gateways[0].nodes().values()), "a node keeps away")
    with Load(cluster, unique("back")) as load:
        cluster.stores[0].kill()
        try:
            load.goes_on()
        finally:
            cluster.stores[0].start()


def test_a_topic_that_waits_for_metadata_is_there_when_it_is_back(cluster, unique):
    topic = unique("waited")
    cluster.meta.process.send_signal(signal.SIGSTOP)
    try:
        admin = AdminClient({"bootstrap.servers": cluster.gateways[0].bootstrap})
        new = NewTopic(topic, 1, 3)
        (created,) = admin.create_topics([new], request_timeout=PATIENCE, operation_timeout=PATIENCE).values()
        # It isn't said to be there before it is.
        with pytest.raises(concurrent.futures.TimeoutError):
            created.result(1)
    finally:
        cluster.meta.process.send_signal(signal.SIGCONT)
    until(lambda: topic in admin.list_topics(timeout=PATIENCE).topics, "the topic does not come")
