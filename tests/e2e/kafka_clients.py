"""Kafka clients of other people, all alike: `produce` one record, `consume` a key's values."""

import os
import subprocess
import time
import uuid

import confluent_kafka
import kafka
from confluent_kafka.admin import AdminClient, NewTopic

from broker import PATIENCE, ROOT
from mqtt_clients import CLIENTS, NODE, _process

KINDS = ["kcat", "kcat-tls", "confluent", "confluent-tls", "kafka-python", "kafkajs", "java"]
JARS = str(ROOT / "tests/.cache/java/lib/*")
TOOLS = "org.apache.kafka.tools."


def librdkafka(kind, broker, **more):
    config = {"bootstrap.servers": broker.bootstrap, "broker.address.family": "any"}
    if kind.endswith("tls"):
        config |= {
            "bootstrap.servers": f"localhost:{broker.port('kafkas')}",
            "security.protocol": "ssl",
            "ssl.ca.location": broker.ca,
        }
    return config | more


def kcat(kind, broker, *arguments):
    options = []
    for name, value in librdkafka(kind, broker).items():
        options += ["-X", f"{name}={value}"]
    return ["kcat", *options, *arguments]


def java(tool, *arguments):
    return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", JARS, TOOLS + tool, *arguments]


def create_topic(broker, name, partitions=1, **config):
    admin = AdminClient(librdkafka("confluent", broker))
    topic = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
    admin.create_topics([topic])[name].result(PATIENCE)


def produce(kind, broker, topic, key, value):
    """Produces one record and returns when it was acknowledged."""
    if kind.startswith("kcat"):
        command = kcat(kind, broker, "-P", "-t", topic, "-K", "|", "-c", "1")
        subprocess.run(command, input=f"{key}|{value}\n", text=True, check=True, timeout=PATIENCE)
    elif kind.startswith("confluent"):
        producer = confluent_kafka.Producer(librdkafka(kind, broker, **{"enable.idempotence": True}))
        errors = []
        producer.produce(topic, value, key, on_delivery=lambda error, _: errors.append(error))
        producer.flush(PATIENCE)
        assert errors == [None]
    elif kind == "kafka-python":
        producer = kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
        producer.send(topic, value.encode(), key.encode()).get(PATIENCE)
        producer.close()
    elif kind == "kafkajs":
        command = ["node", f"{CLIENTS}/kafka.cjs", "produce", broker.bootstrap, topic, key, value]
        subprocess.run(command, env={**os.environ, **NODE}, check=True, timeout=PATIENCE)
    else:
        properties = ["--reader-property", "parse.key=true", "--reader-property", "key.separator=|"]
        command = java("ConsoleProducer", "--bootstrap-server", broker.bootstrap, "--topic", topic, *properties)
        done = subprocess.run(command, input=f"{key}|{value}\n", text=True, capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0 and "ERROR" not in done.stdout + done.stderr, done


def consume(kind, broker, topic, key, count=1):
    """The first `count` values of `key`, from the start of the topic, in order."""
    if kind.startswith("kcat"):
        return _consume_lines(kcat(kind, broker, "-C", "-t", topic, "-o", "beginning", "-u", "-q", "-f", "%k|%s\n"), key, count)
    if kind == "java":
        command = java(
            "consumer.ConsoleConsumer", "--bootstrap-server", broker.bootstrap, "--topic", topic, "--from-beginning",
            "--formatter-property", "print.key=true", "--formatter-property", "key.separator=|",
        )  # fmt: skip
        return _consume_lines(command, key, count)
    if kind == "kafkajs":
        command = ["node", f"{CLIENTS}/kafka.cjs", "consume", broker.bootstrap, topic, key]
        with _process(command, env={**os.environ, **NODE}) as process:
            return [next(process.stdout).rstrip("\n") for _ in range(count)]
    if kind == "kafka-python":
        return _consume_python(broker, topic, key, count)
    group = f"confluent-{uuid.uuid4()}"
    config = librdkafka(kind, broker, **{"group.id": group, "auto.offset.reset": "earliest"})
    consumer = confluent_kafka.Consumer(config)
    consumer.subscribe([topic])
    values, deadline = [], time.monotonic() + PATIENCE
    while len(values) < count:
        assert time.monotonic() < deadline, f"{values} of {count}"
        message = consumer.poll(1)
        if message is not None and not message.error() and message.key() == key.encode():
            values.append(message.value().decode())
    consumer.close()
    return values


def _consume_lines(command, key, count):
    values = []
    with _process(command) as process:
        for line in process.stdout:
            got, _, value = line.rstrip("\n").partition("|")
            if got == key:
                values.append(value)
                if len(values) == count:
                    return values
    raise AssertionError(f"{command[0]} ended with {values}")


def _consume_python(broker, topic, key, count):
    consumer = kafka.KafkaConsumer(
        topic,
        bootstrap_servers=broker.bootstrap,
        group_id=f"kafka-python-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        consumer_timeout_ms=PATIENCE * 1000,
    )
    values = []
    for message in consumer:
        if message.key == key.encode():
            values.append(message.value.decode())
            if len(values) == count:
                break
    consumer.close()
    assert len(values) == count
    return values
