"""Links between log stores, and between gateways and log stores, that are cut or lose packets in one direction or both.

Each process is in a network namespace of its own. Under load as in `test_replication`, and checked as there.
"""

import contextlib
import time

import pytest

import networks
from broker import MetaServer
from cluster import Cluster, Gateway, LogStore, until
from test_replication import Load

TOKEN = "what-all-nodes-know"
TOKENS = {"INTERFLOW_META_TOKEN": TOKEN, "INTERFLOW_LOGSTORE_TOKEN": TOKEN}


class Apart:
    """A role in a namespace of its own."""

    def __init__(self, network, *arguments, **more):
        self.namespace = network.join()
        self.host = self.listen_host = self.namespace.address
        super().__init__(*arguments, **more)

    def start(self):
        with self.namespace.inside():
            super().start()

    def nodes(self):
        with self.namespace.inside():
            return super().nodes()


class LogStoreApart(Apart, LogStore):
    pass


class GatewayApart(Apart, Gateway):
    def command(self):
        return [*super().command(), "--listen", self.host, "--advertise", self.host, "--allow-anonymous"]


class ClusterApart(Cluster):
    """Each log store and gateway in a namespace; the metadata server is where the clients are."""

    def __init__(self, network, **more):
        self.network = network
        super().__init__(**more)

    def new_meta(self):
        return MetaServer(f"{self.folder}/meta", env=TOKENS, host=self.network.clients.address)

    def new_store(self, node, *arguments, **more):
        return LogStoreApart(self.network, self.meta, node, *arguments, **more)

    def new_gateway(self, **more):
        return GatewayApart(self.network, self.meta, **more)

    def describe(self, topic):
        with self.gateways[0].namespace.inside():
            return super().describe(topic)


@pytest.fixture(scope="module")
def cluster():
    settings = {"INTERFLOW_STORAGE__DEFAULT_REPLICATION_FACTOR": "3", **TOKENS}
    with contextlib.closing(networks.Network()) as network, network.clients.inside():
        with ClusterApart(network, stores=3, gateways=2, settings=settings) as running:
            yield running


def sequencers(cluster, topic):
    """The nodes that give out offsets, by partition."""
    lines = cluster.describe(topic)
    return [int(line.split("sequencer ")[1].split(",")[0]) for line in lines if "sequencer " in line]


@contextlib.contextmanager
def faulty(cluster, *links, fault=networks.Network.cut):
    """These links are bad inside of the block, and have been used when it ends."""
    for sender, receiver in links:
        fault(cluster.network, sender.namespace, receiver.namespace)
    try:
        yield
        until(lambda: cluster.network.dropped() > 0, "nothing was sent there")
    finally:
        cluster.network.heal()


def parts(cluster, topic):
    """The node that gives out the offsets of the first partition, and the two others."""
    first = sequencers(cluster, topic)[0]
    return sorted(cluster.stores, key=lambda store: store.node_id != first)


@pytest.mark.parametrize("is_heard", [True, False], ids=["its peer is not heard", "its peer does not hear"])
def test_a_sequencer_and_a_replica_one_way(cluster, unique, is_heard):
    with Load(cluster, unique("one-way")) as load:
        one, other, _ = parts(cluster, load.topic)
        with faulty(cluster, (other, one) if is_heard else (one, other)):
            load.goes_on()
        load.goes_on()


def test_a_sequencer_that_hears_nobody(cluster, unique):
    with Load(cluster, unique("deaf")) as load:
        one, *others = parts(cluster, load.topic)
        with faulty(cluster, *((other, one) for other in [*others, *cluster.gateways])):
            load.goes_on()
        load.goes_on()


def test_a_sequencer_that_nobody_hears(cluster, unique):
    with Load(cluster, unique("mute")) as load:
        one, *others = parts(cluster, load.topic)
        with faulty(cluster, *((one, other) for other in [*others, *cluster.gateways])):
            load.goes_on()
        load.goes_on()


def test_a_sequencer_whose_answers_do_not_get_to_gateways(cluster, unique):
    # It keeps what they send, and they send it again to the next one.
    with Load(cluster, unique("unanswered")) as load:
        one, *_ = parts(cluster, load.topic)
        with faulty(cluster, *((one, gateway) for gateway in cluster.gateways)):
            load.goes_on()
        load.goes_on()


def test_a_gateway_that_does_not_reach_a_log_store(cluster, unique):
    # The other one does: both are right about who gives out the offsets, one after the other.
    with Load(cluster, unique("half")) as load:
        one, *_ = parts(cluster, load.topic)
        with faulty(cluster, (cluster.gateways[0], one)):
            load.goes_on()
        load.goes_on()


def stands_still(load):
    """Nothing is acknowledged for a while, of any partition."""
    before = [len(producer.acked) for producer in load.producers]
    time.sleep(1)
    return before == [len(producer.acked) for producer in load.producers]


def test_a_ring_of_one_way_links(cluster, unique):
    # No two log stores hear each other: nothing can be acknowledged, and what was is there afterwards.
    with Load(cluster, unique("ring")) as load:
        one, two, three = cluster.stores
        with faulty(cluster, (one, two), (two, three), (three, one)):
            until(lambda: stands_still(load), "something is acknowledged without a quorum")
        load.goes_on()


def test_packets_are_lost_everywhere(cluster, unique):
    def lose(network, sender, receiver):
        network.lose(sender, receiver, 5)

    everywhere = [*cluster.stores, *cluster.gateways]
    pairs = [(one, other) for one in everywhere for other in everywhere if one is not other]
    with Load(cluster, unique("lossy")) as load:
        with faulty(cluster, *pairs, fault=lose):
            load.goes_on()
        load.goes_on()
