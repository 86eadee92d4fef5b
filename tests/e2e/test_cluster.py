"""The roles apart: gateways over log stores and metadata that they share."""

import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

import kafka_clients
import mqtt_clients
from broker import BINARY, PATIENCE
from cluster import Cluster, Gateway, LogStore, interflow, until
from test_meta_tls import make_ca, make_certificate
from test_standalone import any_ports


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as running:
        yield running


def knows(gateway, topic):
    """Waits until a topic that was created elsewhere shows at this gateway."""
    admin = AdminClient({"bootstrap.servers": gateway.bootstrap})
    until(lambda: topic in admin.list_topics(timeout=PATIENCE).topics, f"{topic} does not show")


def create(cluster, topic, partitions):
    kafka_clients.create_topic(cluster.gateways[0], topic, partitions)
    for gateway in cluster.gateways:
        knows(gateway, topic)


def sequencers(gateway, topic):
    """The nodes that give out offsets, by partition."""
    lines = interflow("log", "describe", topic, *gateway.admin).stdout.splitlines()
    return [int(line.split("sequencer ")[1].split(",")[0]) for line in lines if "sequencer " in line]


def produce_everywhere(gateway, topic, partitions, value):
    """A record for each partition, acknowledged."""
    producer = confluent_kafka.Producer({"bootstrap.servers": gateway.bootstrap, "enable.idempotence": True})
    errors = []
    for partition in range(partitions):
        producer.produce(
            topic, value, "key", partition=partition, on_delivery=lambda error, _: errors.append(error)
        )
    assert producer.flush(PATIENCE) == 0
    assert errors == [None] * partitions


@pytest.mark.parametrize("kind", ["kcat", "confluent", "kafka-python"])
def test_kafka_records_go_through_any_gateway(cluster, unique, kind):
    topic = unique("orders")
    create(cluster, topic, 4)
    one, other = cluster.gateways
    kafka_clients.produce(kind, one, topic, "key", "first")
    kafka_clients.produce(kind, other, topic, "key", "second")
    for gateway in [one, other]:
        assert kafka_clients.consume(kind, gateway, topic, "key", 2) == ["first", "second"]


def test_logs_are_spread_over_log_stores_and_described(cluster, unique):
    topic = unique("spread")
    create(cluster, topic, 16)
    produce_everywhere(cluster.gateways[0], topic, 16, "v")
    assert set(sequencers(cluster.gateways[1], topic)) == {1, 2}
    described = interflow("log", "describe", f"{topic}:3", *cluster.gateways[1].admin).stdout
    assert "offsets 0 to 1" in described and "REPLICAS" in described, described
    shown = interflow("log", "describe", f"{topic}:3", "--json", *cluster.gateways[1].admin).stdout
    [report] = json.loads(shown)
    lags = report["segments"][-1]["lags"]
    assert [lag["node"] for lag in lags] == report["segments"][-1]["replicas"], shown
    assert all(lag["is_in_sync"] and lag["records"] <= 1 for lag in lags), shown


def test_logs_are_described_a_page_at_a_time(cluster, unique):
    topic = unique("pages")
    create(cluster, topic, 16)
    gateway = cluster.gateways[1]

    def page(query):
        url = f"http://127.0.0.1:{gateway.port('admin')}/v1/topics/{topic}/logs{query}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return [report["partition"] for report in json.load(answer)]

    assert page("") == list(range(16))
    assert page("?limit=5") == list(range(5))
    assert page("?limit=5&after=4") == list(range(5, 10))
    assert page("?after=12") == [13, 14, 15]
    assert page("?after=15") == []
    for limit in ["0", "1001", "many"]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            page(f"?limit={limit}")
        assert refused.value.code == 400
    assert interflow("log", "describe", f"{topic}:0", *gateway.admin).stdout.startswith(f"{topic}:0 ")
    assert interflow("log", "describe", f"{topic}:16", *gateway.admin).stdout == ""
    assert len(json.loads(interflow("log", "describe", topic, "--json", *gateway.admin).stdout)) == 16


@pytest.mark.parametrize("kind", ["paho-5", "mosquitto"])
def test_mqtt_messages_go_through_any_gateway(cluster, unique, kind):
    topic = f"{unique('sensors')}/temp"
    one, other = cluster.gateways
    with mqtt_clients.subscribe(kind, other, topic.split("/")[0] + "/#") as receive:
        mqtt_clients.publish(kind, one, topic, "21", 1)
        assert receive() == (topic, "21")
    assert kafka_clients.consume("kcat", other, "mqtt", topic) == ["21"]


def test_clients_go_on_when_their_gateway_is_killed(cluster, unique):
    topic = unique("going-on")
    create(cluster, topic, 4)
    one, other = cluster.gateways
    both = f"{one.bootstrap},{other.bootstrap}"
    producer = confluent_kafka.Producer({"bootstrap.servers": both, "enable.idempotence": True})
    acknowledged, errors = [], []

    def delivered(error, message):
        (acknowledged if error is None else errors).append(error or message.value().decode())

    def produce(numbers):
        for number in numbers:
            producer.produce(topic, str(number), "key", on_delivery=delivered)
        assert producer.flush(PATIENCE) == 0

    mqtt_topic = f"{topic}/temp"
    with mqtt_clients.subscribe("paho-5", other, mqtt_topic) as receive:
        produce(range(50))
        lost = threading.Event()
        client = mqtt_clients.paho_client("paho-5", one)
        client.on_disconnect = lambda *_: lost.set()
        one.kill()
        try:
            assert lost.wait(PATIENCE)
            client.loop_stop()
            produce(range(50, 100))
            mqtt_clients.publish("paho-5", other, mqtt_topic, "still", 1)
            assert receive() == (mqtt_topic, "still")
            dead = one.node
            until(lambda: not other.nodes()[dead]["is_live"], "the dead gateway is not missed")
        finally:
            one.start()
    assert errors == [] and len(acknowledged) == 100
    got = kafka_clients.consume("confluent", one, topic, "key", 100)
    assert sorted(map(int, got)) == list(range(100))
    # A number of its own was given to the new process: the dead one's lease had its time.
    assert one.node != dead
    until(lambda: one.node in other.nodes(), "the new process is not seen")


def test_a_log_store_stops_and_comes_back_with_its_logs(cluster, unique):
    topic = unique("coming-back")
    create(cluster, topic, 8)
    one, other = cluster.gateways
    produce_everywhere(one, topic, 8, "before")
    assert set(sequencers(one, topic)) == {1, 2}
    store = cluster.stores[0]
    mqtt_topic = f"{topic}/temp"
    with mqtt_clients.subscribe("paho-5", other, f"{topic}/#") as receive:
        code, _ = store.terminate()
        try:
            assert code == 0, store.log()
            until(lambda: not one.nodes()[1]["is_live"], "the log store that stopped is not missed")
            described = interflow("log", "describe", topic, *one.admin).stdout
            assert "by the metadata alone" in described and "unknown" in described, described
            # A producer waits as long as its log store is away.
            blocked = threading.Thread(target=produce_everywhere, args=[other, topic, 8, "meanwhile"])
            blocked.start()
        finally:
            store.start()
        blocked.join(PATIENCE)
        assert not blocked.is_alive()
        # Every shard of the MQTT topic is followed again.
        for number in range(16):
            mqtt_clients.publish("paho-5", one, f"{mqtt_topic}/{number}", str(number), 1)
        assert sorted(int(receive()[1]) for _ in range(16)) == list(range(16))
    produce_everywhere(one, topic, 8, "after")
    got = kafka_clients.consume("confluent", other, topic, "key", 24)
    assert sorted(got) == ["after"] * 8 + ["before"] * 8 + ["meanwhile"] * 8
    nodes = until(lambda: one.nodes() if one.nodes()[1]["is_live"] else None, "it is not seen again")
    assert nodes[1]["incarnation"] > 1


def test_a_drained_log_store_gets_no_new_logs(cluster, unique):
    one, other = cluster.gateways
    assert "takes no new segments" in interflow("node", "drain", "2", *one.admin).stdout
    for gateway in [one, other]:
        until(lambda: gateway.nodes()[2]["state"] == "read-only", "the drain does not show")
    topic = unique("drained")
    create(cluster, topic, 8)
    assert set(sequencers(one, topic)) == {1}
    produce_everywhere(other, topic, 8, "v")
    listed = interflow("node", "list", *cluster.stores[0].admin).stdout
    rows = {line.split()[0]: line for line in listed.splitlines()[1:]}
    assert "logstore  read-only" in rows["2"] and "rack-2" in rows["2"], listed
    assert "gateway" in rows[str(one.node)] and f"kafka://localhost:{one.port('kafka')}" in rows[str(one.node)]
    interflow("node", "drain", "2", "--undo", *one.admin)
    until(lambda: other.nodes()[2]["state"] == "read-write", "the drain is not undone")


def test_a_node_that_lives_is_not_removed(cluster):
    one = cluster.gateways[0]
    refused = interflow("node", "remove", "1", *one.admin, check=False)
    assert refused.returncode != 0 and "node 1 lives" in refused.stderr, refused
    refused = interflow("node", "remove", "77", *one.admin, check=False)
    assert "there is no node 77" in refused.stderr, refused


def test_a_second_process_under_the_same_id_ends_the_first(cluster):
    first = Gateway(cluster.meta, "--node-id", "50")
    second = None
    try:
        second = Gateway(cluster.meta, "--node-id", "50")
        assert first.process.wait(PATIENCE) != 0
        assert "another process has registered as node 50" in first.log()
        assert second.alive()
        until(lambda: second.nodes()[50]["is_live"], "the second one does not live")
    finally:
        for gateway in filter(None, [second, first]):
            gateway.close()


def started(command, *arguments, env=None):
    return subprocess.run(
        [BINARY, command, *arguments],
        capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **(env or {})},
    )  # fmt: skip


def test_what_a_role_needs_is_said(cluster, tmp_path):
    meta = cluster.meta.flags
    nowhere = ["--meta", "remote:127.0.0.1:1"]
    store = ["--data-dir", str(tmp_path / "data"), "--admin-port", "0", "--logstore-listen", "127.0.0.1:0"]
    open_store = [*store[:-1], "0.0.0.0:0"]
    for told, command, arguments in [
        ("127.0.0.1:1", "gateway", [*nowhere, *any_ports()]),
        ("127.0.0.1:1", "logstore", [*nowhere, *store, "--node-id", "9"]),
        ("--meta remote:HOST:PORT", "gateway", any_ports()),
        ("--meta remote:HOST:PORT", "logstore", [*store, "--node-id", "9"]),
        ("--node-id", "logstore", [*meta, *store]),
        ("node 1 of this cluster is a log store", "gateway", [*meta, *any_ports(), "--node-id", "1"]),
        ("--logstore-token-file", "logstore", [*meta, *open_store, "--node-id", "9"]),
        ("unexpected argument '--data-dir'", "gateway", [*meta, "--data-dir", str(tmp_path)]),
    ]:
        done = started(command, *arguments)
        assert done.returncode != 0 and told in done.stderr, (told, done)
        assert "panicked" not in done.stderr, done


def test_a_lost_disk_is_told_and_a_removed_node_begins_anew(cluster):
    watcher = cluster.stores[0]
    store = LogStore(cluster.meta, 3)
    try:
        interflow("node", "drain", "3", *watcher.admin)
        store.terminate()
        shutil.rmtree(store.data_dir)
        done = started(*store.command()[1:], env=store.settings)
        assert done.returncode != 0 and "the disk of node 3 is lost" in done.stderr, done
        until(lambda: watcher.nodes()[3]["state"] == "data-loss", "the loss does not show")
        # Its logs were of no topic, or are gone by force.
        interflow("node", "remove", "3", "--force", *watcher.admin)
        store.start()
        until(lambda: watcher.nodes()[3]["state"] == "read-write", "it does not begin anew")
        store.kill()
        until(lambda: not watcher.nodes()[3]["is_live"], "the dead log store is not missed")
        interflow("node", "remove", "3", *watcher.admin)
        until(lambda: watcher.nodes()[3]["state"] == "gone", "it is not removed")
    finally:
        store.close()


def test_log_stores_want_their_token(unique):
    token = {"INTERFLOW_LOGSTORE_TOKEN": "a-token-of-the-test"}
    with Cluster(stores=1, gateways=1, settings=token) as secured:
        topic = unique("secured")
        gateway = secured.gateways[0]
        kafka_clients.create_topic(gateway, topic)
        kafka_clients.produce("confluent", gateway, topic, "key", "v")
        assert kafka_clients.consume("confluent", gateway, topic, "key") == ["v"]
        # It stops waiting at the first signal.
        with mqtt_clients._process([BINARY, "gateway", *secured.meta.flags, *any_ports()]) as without:
            line = next(line for line in without.stdout if "can't be reached" in line)
            assert "token" in line, line
            without.terminate()
            assert without.wait(PATIENCE) == 0


def test_log_stores_and_gateways_know_one_another_by_certificates(tmp_path, unique):
    make_ca(tmp_path, "ca")
    make_certificate(tmp_path, "ca", "node", "subjectAltName=IP:127.0.0.1")
    files = {"ca": "ca.pem", "client_ca": "ca.pem", "cert": "node.pem", "key": "node.key"}
    settings = {f"INTERFLOW_LOGSTORE__TLS_{name.upper()}": str(tmp_path / file) for name, file in files.items()}
    with Cluster(stores=1, gateways=1, settings=settings) as secured:
        topic = unique("secured")
        gateway = secured.gateways[0]
        kafka_clients.create_topic(gateway, topic)
        kafka_clients.produce("confluent", gateway, topic, "key", "v")
        assert kafka_clients.consume("confluent", gateway, topic, "key") == ["v"]
        # One that trusts them and shows no certificate.
        ca = ["--logstore-tls-ca", str(tmp_path / "ca.pem")]
        command = [BINARY, "gateway", *secured.meta.flags, *ca, *any_ports()]
        with mqtt_clients._process(command) as without:
            assert next(line for line in without.stdout if "can't be reached" in line)
