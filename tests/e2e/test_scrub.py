"""Bits that flip on a log store's disk: `interflow log scrub` finds them, and they are repaired from the others."""

import pathlib
import urllib.error
import urllib.request

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from broker import PATIENCE
from cluster import Cluster, interflow, until
from history import read_all

PARTITIONS, RECORDS = 4, 800
# Extents that are full are not read at the start, so that it is the scrub that finds what is in them.
SETTINGS = {
    "INTERFLOW_STORAGE__DEFAULT_REPLICATION_FACTOR": "3",
    "INTERFLOW_STORAGE__EXTENT_BYTES": str(1 << 20),
    "INTERFLOW_STORAGE__RETENTION_INTERVAL_S": "1",
    "INTERFLOW_STORAGE__SCRUB_BYTES_PER_SECOND": "0",
}


@pytest.fixture(scope="module")
def cluster():
    with Cluster(stores=3, gateways=1, settings=SETTINGS) as running:
        yield running


def value(partition, number):
    """A record that is like no other, and lies in the journal as it is."""
    return f"record {number} of {partition} ".ljust(2_000, "x")


def write(gateway, topic):
    """Records in every partition, in many closed segments; the last ones are in the open segment."""
    admin = AdminClient({"bootstrap.servers": gateway.bootstrap})
    config = {"segment.bytes": str(256 << 10)}
    (created,) = admin.create_topics([NewTopic(topic, PARTITIONS, 3, config=config)]).values()
    created.result(PATIENCE)
    # Small batches, so that one damaged entry isn't the whole segment.
    producer = confluent_kafka.Producer({
        "bootstrap.servers": gateway.bootstrap, "acks": "all", "enable.idempotence": True, "batch.size": 16_000,
    })  # fmt: skip
    errors = []
    for number in range(RECORDS):
        for partition in range(PARTITIONS):
            producer.produce(
                topic, value(partition, number), partition=partition, on_delivery=lambda error, _: errors.append(error)
            )
    assert producer.flush(PATIENCE) == 0
    assert errors == [None] * (RECORDS * PARTITIONS)


def places(store, text):
    """Where the store's journal has `text`: files, and offsets in them."""
    found = []
    for file in sorted(pathlib.Path(store.data_dir, "journal").iterdir()):
        try:
            content, at = file.read_bytes(), -1
        except FileNotFoundError:  # It was rewritten, into another one.
            continue
        while (at := content.find(text.encode(), at + 1)) >= 0:
            found.append((file, at))
    return found


def flip(store, topic_values):
    """Flips a bit in the middle of each of these values on the disk of a store that is stopped."""
    for text in topic_values:
        found = places(store, text)
        assert found, f"node {store.node_id} has no {text[:30]}"
        for file, at in found:
            with open(file, "r+b") as opened:
                opened.seek(at + len(text) // 2)
                (byte,) = opened.read(1)
                opened.seek(at + len(text) // 2)
                opened.write(bytes([byte ^ 16]))
        assert places(store, text) == []


def middle_of_first(cluster, partition):
    """An offset in the middle of a partition's first closed segment, once that is on all three nodes."""

    def closed():
        # EPOCH BASE END BYTES REPLICAS …
        rows = [line.split() for line in cluster.describe(partition) if line.split()[0].isdigit()]
        return [row for row in rows if row[2].isdigit()]

    # One that was opened before all three knew of one another is on two at first.
    until(lambda: set(closed()[0][4].split(",")) == {"1", "2", "3"}, "a segment stays on two nodes")
    assert len(closed()) > 2
    return (int(closed()[0][1]) + int(closed()[0][2])) // 2


def count(store, name):
    """A metric of the log store."""
    url = f"http://127.0.0.1:{store.port('admin')}/metrics"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith((f"interflow_log_{name} ", f"interflow_log_{name}_total "))]
    return float(line.split()[-1])


def scrub(store):
    """Has a store look for damage, and waits until it has."""
    before = count(store, "scrubs")
    assert "are being looked at" in interflow("log", "scrub", *store.admin).stdout
    until(lambda: count(store, "scrubs") > before, "the scrub does not come to its end")


def is_repaired(store, texts):
    return all(places(store, text) for text in texts)


def test_damage_is_found_and_repaired(cluster, unique):
    (gateway,), topic = cluster.gateways, unique("scrubbed")
    write(gateway, topic)
    records = read_all(gateway.bootstrap, topic, PARTITIONS)
    assert all(len(records[partition]) == RECORDS for partition in range(PARTITIONS))
    # In the first closed segment of each partition; this node is the first replica of some of them alone.
    middles = [middle_of_first(cluster, f"{topic}:{partition}") for partition in range(PARTITIONS)]
    damaged = [records[partition][offset] for partition, offset in enumerate(middles)]
    victim, *others = cluster.stores

    assert victim.terminate()[0] == 0
    flip(victim, damaged)
    victim.start()
    assert (count(victim, "damaged_segments"), count(victim, "repaired_segments")) == (0, 0)
    scrub(victim)
    assert count(victim, "scrubbed_bytes") > PARTITIONS * (256 << 10)
    assert count(victim, "damaged_segments") >= PARTITIONS
    until(lambda: count(victim, "repaired_segments") == PARTITIONS, "not all that is damaged is repaired")
    until(lambda: is_repaired(victim, damaged), "what is counted as repaired is not on the disk")

    # There is nothing left to be found.
    found = count(victim, "damaged_segments")
    scrub(victim)
    assert (count(victim, "damaged_segments"), count(victim, "repaired_segments")) == (found, PARTITIONS)

    # What was repaired is as good as what it was made from: it is all that there is now.
    for store in others:
        assert store.terminate()[0] == 0
        flip(store, damaged)
        store.start()
    assert read_all(gateway.bootstrap, topic, PARTITIONS) == records
    for store in others:
        scrub(store)
        until(lambda: count(store, "repaired_segments") == PARTITIONS, "not all that is damaged is repaired")
        until(lambda: is_repaired(store, damaged), "what is counted as repaired is not on the disk")
    assert read_all(gateway.bootstrap, topic, PARTITIONS) == records


def ask(role, method, path="/v1/scrub"):
    url = f"http://127.0.0.1:{role.port('admin')}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_scrubs_are_asked_for_at_log_stores(cluster):
    (gateway,), store = cluster.gateways, cluster.stores[0]
    before = count(store, "scrubs")
    assert ask(store, "POST") == (200, b"true")
    until(lambda: count(store, "scrubs") > before, "the scrub does not come to its end")
    before = count(store, "scrubs")
    for method, path, status in [
        ("GET", "/v1/scrub", 405),
        ("DELETE", "/v1/scrub", 405),
        ("POST", "/v1/scrub/1", 404),
        ("POST", "/v1/scrubs", 404),
    ]:
        assert ask(store, method, path)[0] == status, (method, path)
    assert count(store, "scrubs") == before
    # A gateway has nothing that could be damaged, and says who has.
    assert ask(gateway, "POST")[0] == 404
    refused = interflow("log", "scrub", *gateway.admin, check=False)
    assert refused.returncode != 0 and "at a log store" in refused.stderr, refused
    assert "panicked" not in refused.stderr
    assert store.alive() and gateway.alive()
