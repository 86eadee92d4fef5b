"""MQTT to Kafka and back with clients that others wrote, each kind both ways."""

import queue
import threading

import pytest

import kafka_clients
import mqtt_clients


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("kind", mqtt_clients.KINDS)
def test_mqtt_to_mqtt_and_kafka(broker, unique, kind, qos):
    topic = f"{unique('sensors')}/temp ä"
    with mqtt_clients.subscribe(kind, broker, topic.split("/")[0] + "/#") as receive:
        mqtt_clients.publish(kind, broker, topic, f"{qos} größer", qos)
        assert receive() == (topic, f"{qos} größer")
    assert kafka_clients.consume("confluent", broker, "mqtt", topic) == [f"{qos} größer"]


@pytest.mark.parametrize("kind", mqtt_clients.KINDS)
def test_kafka_to_mqtt(broker, unique, kind):
    topic = f"{unique('sensors')}/temp"
    with mqtt_clients.subscribe(kind, broker, topic) as receive:
        kafka_clients.produce("confluent", broker, "mqtt", topic, "from Kafka")
        assert receive() == (topic, "from Kafka")


@pytest.mark.parametrize("kind", kafka_clients.KINDS)
def test_kafka_produces_for_mqtt_and_consumes_its_messages(broker, unique, kind):
    topic = f"{unique('sensors')}/temp"
    with mqtt_clients.subscribe("paho-5", broker, topic) as receive:
        kafka_clients.produce(kind, broker, "mqtt", topic, "from Kafka")
        assert receive() == (topic, "from Kafka")
    mqtt_clients.publish("paho-5", broker, topic, "from MQTT", 1)
    # Clients choose partitions each by its own hash: across partitions there is no order.
    got = kafka_clients.consume(kind, broker, "mqtt", topic, count=2)
    assert sorted(got) == ["from Kafka", "from MQTT"]


def test_persistent_session_over_two_transports(broker, unique):
    """A session that began on TCP goes on over WebSocket: offline messages come from the log."""
    name, topic = unique("session"), unique("sensors")
    options = {"client_id": name, "clean_session": False}
    first = mqtt_clients.paho_client("paho-311", broker, **options)
    ready = threading.Event()
    first.on_subscribe = lambda *_: ready.set()
    first.subscribe(topic, 1)
    assert ready.wait(30)
    first.disconnect()
    first.loop_stop()
    for n in range(10):
        mqtt_clients.publish("paho-5", broker, topic, str(n), 1)
    kafka_clients.produce("confluent", broker, "mqtt", topic, "from Kafka")
    got = queue.Queue()
    second = mqtt_clients.paho.Client(
        mqtt_clients.paho.CallbackAPIVersion.VERSION2, transport="websockets", **options
    )
    second.on_message = lambda _client, _data, message: got.put(message.payload.decode())
    second.connect("localhost", broker.port("ws"))
    second.loop_start()
    values = [got.get(timeout=30) for _ in range(11)]
    values.remove("from Kafka")
    assert values == [str(n) for n in range(10)]
    second.disconnect()
    second.loop_stop()
