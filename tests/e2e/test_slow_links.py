"""Log stores that are reached over slow links: each states the address of a proxy as its own.

Under load as in `test_replication`, and checked as there.
"""

import contextlib

import pytest

from cluster import Cluster, LogStore, until
from slow import SlowLink
from test_replication import Load, sequencers, store_of


class BehindLink(LogStore):
    """Others reach it by a proxy."""

    def __init__(self, *arguments, **more):
        self.link = SlowLink()
        super().__init__(*arguments, "--logstore-advertise", f"127.0.0.1:{self.link.port}", **more)

    def start(self):
        super().start()
        self.link.target = ("127.0.0.1", self.port("logstore"))

    def close(self):
        super().close()
        self.link.close()


class ClusterOverLinks(Cluster):
    def new_store(self, node, *arguments, **more):
        return BehindLink(self.meta, node, *arguments, **more)


@pytest.fixture(scope="module")
def cluster():
    settings = {"INTERFLOW_STORAGE__DEFAULT_REPLICATION_FACTOR": "3"}
    with ClusterOverLinks(stores=3, gateways=2, settings=settings) as running:
        yield running


@contextlib.contextmanager
def healed(cluster):
    try:
        yield
    finally:
        for store in cluster.stores:
            store.link.heal()


def test_links_with_delay(cluster, unique):
    with Load(cluster, unique("delay")) as load, healed(cluster):
        for number, store in enumerate(cluster.stores, 1):
            store.link.there.delay_s = store.link.back.delay_s = 0.02 * number
        load.goes_on()


def test_a_narrow_link(cluster, unique):
    with Load(cluster, unique("narrow")) as load, healed(cluster):
        store = store_of(cluster, sequencers(cluster, load.topic)[0])
        store.link.there.bytes_per_second = 20_000
        before = store.link.there.bytes
        load.goes_on()
        assert store.link.there.bytes > before
    # What it lacks is copied, and it is a replica again.
    until(lambda: is_whole(cluster, load.topic), "not all logs have three replicas again")


@pytest.mark.parametrize("way", ["there", "back"])
def test_a_link_that_stands_still(cluster, unique, way):
    with Load(cluster, unique("still")) as load, healed(cluster):
        store = store_of(cluster, sequencers(cluster, load.topic)[0])
        getattr(store.link, way).goes.clear()
        load.goes_on()
        store.link.heal()
        load.goes_on()


def is_whole(cluster, topic):
    """Each log's open segment is on three nodes."""
    lines = cluster.describe(topic)
    replicas = [line.split()[4] for line in lines if " open " in line]
    return replicas and all(len(nodes.split(",")) == 3 for nodes in replicas)
