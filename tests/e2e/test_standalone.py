"""Start, stop, refusals at the start, users, the admin port."""

import hashlib
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request

import confluent_kafka
import paho.mqtt.client as paho
import pytest
from confluent_kafka.admin import AdminClient

import kafka_clients
import mqtt_clients
from broker import BINARY, PATIENCE, Broker, interflow


def http(broker, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.port('admin')}{path}", timeout=PATIENCE) as answer:
        return answer.status, answer.read().decode()


def test_admin_port(broker):
    assert http(broker, "/healthz")[0] == 200
    assert http(broker, "/readyz")[0] == 200
    status, metrics = http(broker, "/metrics")
    assert status == 200 and "# TYPE" in metrics
    with pytest.raises(urllib.error.HTTPError, match="404"):
        http(broker, "/nothing")


def test_terminates_in_time_and_keeps_all():
    with Broker() as broker:
        mqtt_clients.publish("paho-5", broker, "kept/retained", "before", 1)
        retained = mqtt_clients.paho_client("paho-5", broker)
        retained.publish("kept/retained", "retained", 1, retain=True).wait_for_publish(PATIENCE)
        goodbye = []
        retained.on_disconnect = lambda _c, _d, _flags, reason, _props: goodbye.append(reason.value)
        kafka_clients.create_topic(broker, "kept", 2)
        kafka_clients.produce("confluent", broker, "kept", "key", "value")
        code, seconds = broker.terminate()
        assert code == 0, broker.log()
        assert seconds < 10
        retained.loop_stop()
        assert goodbye and goodbye[0] == 0x8B
        broker.start()
        assert kafka_clients.consume("confluent", broker, "kept", "key") == ["value"]
        assert kafka_clients.consume("confluent", broker, "mqtt", "kept/retained", 2) == ["before", "retained"]
        with mqtt_clients.subscribe("paho-5", broker, "kept/#") as receive:
            assert receive() == ("kept/retained", "retained")


@pytest.mark.parametrize("ends", ["terminate", "kill"])
def test_metadata_outlives_the_process(ends):
    """Topics, offsets of groups, and retained messages."""
    with Broker() as broker:
        kafka = ["--bootstrap", broker.bootstrap]
        kafka_clients.create_topic(broker, "work", 3, retention_ms=1234567)
        interflow("topic", "create", "gone", *kafka)
        interflow("topic", "delete", "gone", *kafka)
        for n in range(4):
            kafka_clients.produce("confluent", broker, "work", "key", str(n))
        config = {"group.id": "group", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        reader = confluent_kafka.Consumer(kafka_clients.librdkafka("confluent", broker, **config))
        reader.subscribe(["work"])
        first = read(reader, 3)
        reader.commit(first[-1], asynchronous=False)
        reader.close()
        client = mqtt_clients.paho_client("paho-5", broker)
        for payload in ["old", "retained"]:
            client.publish("kept/t", payload, 1, retain=True).wait_for_publish(PATIENCE)
        for payload in ["old", ""]:
            client.publish("kept/cleared", payload, 1, retain=True).wait_for_publish(PATIENCE)
        client.disconnect()
        client.loop_stop()
        for _ in range(2):
            getattr(broker, ends)()
            broker.start()
        topics = interflow("topic", "list", *kafka).stdout.split()
        assert "work" in topics and "gone" not in topics
        described = interflow("topic", "describe", "work", *kafka).stdout
        assert "1234567" in described, described
        reader = confluent_kafka.Consumer(kafka_clients.librdkafka("confluent", broker, **config))
        reader.subscribe(["work"])
        assert [message.value() for message in first + read(reader, 1)] == [b"0", b"1", b"2", b"3"]
        reader.close()
        with mqtt_clients.subscribe("paho-5", broker, "kept/#") as receive:
            assert receive() == ("kept/t", "retained")
            mqtt_clients.publish("paho-5", broker, "kept/end", "end", 1)
            assert receive() == ("kept/end", "end")


def read(reader, count):
    messages, deadline = [], time.monotonic() + PATIENCE
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count}"
        for message in reader.consume(count - len(messages), 1):
            assert message.error() is None, message.error()
            messages.append(message)
    return messages


def refused(*arguments, env=None):
    done = subprocess.run(
        [BINARY, "standalone", *arguments],
        capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode != 0, done.stdout
    return done.stderr


def any_ports():
    names = ["mqtt", "mqtts", "ws", "wss", "quic", "kafka", "kafkas", "admin"]
    return [part for name in names for part in (f"--{name}-port", "0")]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def write_newer_meta(folder):
    """Raises the format in both superblocks: magic, format, its inverse."""
    path = folder / "meta.redb"
    bytes_ = bytearray(path.read_bytes())
    for place in (0, 4096):
        assert bytes_[place : place + 12] == b"InterflowMta"
        (found,) = struct.unpack_from("<I", bytes_, place + 12)
        struct.pack_into("<II", bytes_, place + 12, found + 1, ~(found + 1) & 0xFFFFFFFF)
    path.write_bytes(bytes_)
    return found + 1, found


def write_newer_journal(folder):
    """Raises the version in an extent's header: magic, version, 2 bytes, id, salt, CRC-32C."""
    path = next(path for path in sorted((folder / "journal").iterdir()) if path.read_bytes()[:4] == b"IFX1")
    bytes_ = bytearray(path.read_bytes())
    (found,) = struct.unpack_from("<H", bytes_, 4)
    struct.pack_into("<H", bytes_, 4, found + 1)
    struct.pack_into("<I", bytes_, 16, crc32c(bytes_[:16]))
    path.write_bytes(bytes_)
    return found + 1, found


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("write_newer", [write_newer_meta, write_newer_journal])
@pytest.mark.parametrize("ends", ["terminate", "kill"])
def test_a_folder_of_a_newer_format_is_refused_and_left_alone(embedded, write_newer, ends):
    with Broker(settings={"INTERFLOW_STORAGE__EXTENT_BYTES": "1048576"}) as broker:
        mqtt_clients.publish("paho-5", broker, "kept", "message", 1)
        getattr(broker, ends)()
        folder = pathlib.Path(broker.data_dir)
        newer, known = write_newer(folder)
        before = hashes(folder)
        message = refused("--data-dir", broker.data_dir, *any_ports())
        assert f"format {newer}" in message and f"up to {known}" in message, message
        assert broker.data_dir in message and "version of interflow" in message, message
        assert hashes(folder) == before


def test_messages_are_kept_from_metadata_that_does_not_know_them(embedded):
    with Broker() as broker, Broker() as other:
        mqtt_clients.publish("paho-5", broker, "kept", "message", 1)
        for each in (broker, other):
            each.terminate()
        folder, theirs = pathlib.Path(broker.data_dir), pathlib.Path(other.data_dir)
        before = hashes(folder / "journal")

        # Lost: a new one is made, which would take all of the journal for garbage.
        (folder / "meta.redb").rename(folder / "aside")
        message = refused("--data-dir", broker.data_dir, *any_ports())
        assert broker.data_dir in message and "belong" in message, message
        # Somebody else's.
        (folder / "meta.redb").write_bytes((theirs / "meta.redb").read_bytes())
        message = refused("--data-dir", broker.data_dir, *any_ports())
        assert broker.data_dir in message and "belong" in message, message
        assert hashes(folder / "journal") == before
        # Its own, and the journal lost: to go on would be to forget what is perhaps not lost.
        (folder / "aside").rename(folder / "meta.redb")
        (folder / "journal").rename(folder / "aside")
        message = refused("--data-dir", broker.data_dir, *any_ports())
        assert broker.data_dir in message and "belong" in message, message
        shutil.rmtree(folder / "journal")

        (folder / "aside").rename(folder / "journal")
        broker.start()
        assert kafka_clients.consume("confluent", broker, "mqtt", "kept") == ["message"]


def test_second_start_on_the_same_folder(broker):
    message = refused("--data-dir", broker.data_dir, *any_ports())
    assert broker.data_dir in message and "--data-dir" in message, message


def test_port_in_use(broker, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = any_ports()
        ports[ports.index("--kafka-port") + 1] = port
        message = refused("--data-dir", str(tmp_path / "data"), *ports)
        assert port in message and "--kafka-port" in message, message


def test_open_listeners_need_users_or_consent(tmp_path):
    message = refused("--data-dir", str(tmp_path / "data"), "--listen", "0.0.0.0", *any_ports())
    assert "interflow user add" in message and "--allow-anonymous" in message, message


def test_unknown_setting_is_named(tmp_path):
    folder = ["--data-dir", str(tmp_path / "data")]
    message = refused(*folder, *any_ports(), env={"INTERFLOW_MQTT__NO_SUCH_SETTING": "1"})
    assert "no_such_setting" in message.lower(), message


def test_config_shows_values_and_sources():
    shown = interflow("config", env={"INTERFLOW_STORAGE__MQTT_PARTITIONS": "3"}).stdout
    line = next(line for line in shown.splitlines() if "mqtt_partitions" in line)
    assert "3" in line and "INTERFLOW_" in line, line


def test_a_reader_that_went_away_is_no_error():
    tool = subprocess.Popen([BINARY, "config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    tool.stdout.close()
    assert tool.wait(PATIENCE) == 0
    assert tool.stderr.read() == b""


def test_version_names_the_commit():
    assert interflow("--version").stdout.startswith("interflow ")


def test_pub_and_sub(broker, unique):
    topic = unique("tools")
    address = ["-b", f"localhost:{broker.port('mqtt')}"]
    with mqtt_clients.subscribe("paho-5", broker, topic) as receive:
        interflow("pub", "-t", topic, "-m", "hello", *address)
        assert receive() == (topic, "hello")


def mqtt_login(broker, version, user=None, password=None):
    """Connects and returns the code of the CONNACK."""
    protocol = paho.MQTTv5 if version == 5 else paho.MQTTv311
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=protocol)
    codes = []

    def on_connect(_client, _data, _flags, reason, _props):
        codes.append(reason.value)
        client.disconnect()

    client.on_connect = on_connect
    if user is not None:
        client.username_pw_set(user, password)
    client.connect("localhost", broker.port("mqtt"))
    while not codes:
        assert client.loop(1) in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_CONN_REFUSED, paho.MQTT_ERR_CONN_LOST)
    return codes[0]


def kafka_login(broker, user=None, password=None):
    """True when the cluster can be asked for its topics."""
    config = kafka_clients.librdkafka("confluent", broker)
    if user is not None:
        config |= {
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "PLAIN",
            "sasl.username": user,
            "sasl.password": password,
        }
    errors = []
    config["error_cb"] = lambda error: errors.append(error.code())
    client = AdminClient(config)
    for _ in range(PATIENCE):
        try:
            client.list_topics(timeout=1)
            return True
        except confluent_kafka.KafkaException:
            client.poll(0)
            if confluent_kafka.KafkaError._AUTHENTICATION in errors:
                return False
    return False


def test_users_of_both_protocols():
    with Broker() as broker:
        admin = ["--admin", f"localhost:{broker.port('admin')}"]
        assert mqtt_login(broker, 5, "anybody", "anything") == 0, "without users credentials are ignored"
        interflow("user", "add", "ann", *admin, stdin="secret\n")
        assert interflow("user", "list", *admin).stdout.split() == ["ann"]
        assert mqtt_login(broker, 5, "ann", "secret") == 0
        assert mqtt_login(broker, 4, "ann", "secret") == 0
        for user, password in [("ann", "wrong"), ("bob", "secret"), ("ann", ""), (None, None)]:
            # paho maps 3.1.1's code 4 to 5.0's 0x86.
            assert mqtt_login(broker, 5, user, password) in (0x86, 0x87)
            assert mqtt_login(broker, 4, user, password) in (0x86, 0x87)
        assert mqtt_login(broker, 5, "ann", "wrong") == 0x86
        assert mqtt_login(broker, 4, "ann", "wrong") == 0x86
        assert kafka_login(broker, "ann", "secret")
        assert not kafka_login(broker, "ann", "wrong")
        # Users outlive the process; a removed one may not come in any more.
        assert broker.terminate()[0] == 0
        broker.start()
        assert mqtt_login(broker, 5, "ann", "secret") == 0
        interflow("user", "add", "bob", *admin, stdin="other\n")
        interflow("user", "remove", "ann", *admin)
        assert mqtt_login(broker, 5, "ann", "secret") == 0x86
        assert mqtt_login(broker, 5, "bob", "other") == 0


def test_log_describe(broker, unique):
    topic = unique("described")
    kafka_clients.create_topic(broker, topic)
    kafka_clients.produce("confluent", broker, topic, "key", "value")
    shown = interflow("log", "describe", topic, "--admin", f"localhost:{broker.port('admin')}").stdout
    assert topic in shown, shown


def test_metrics_count_messages(broker, unique):
    def total():
        lines = http(broker, "/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#"))

    before = total()
    mqtt_clients.publish("paho-5", broker, unique("counted"), "x", 1)
    assert total() != before
