"""MQTT clients of other people, all alike: `publish` and `subscribe` as context."""

import asyncio
import contextlib
import json
import os
import queue
import ssl
import struct
import subprocess
import threading

import paho.mqtt.client as paho
from aioquic.asyncio import connect as quic_connect
from aioquic.quic.configuration import QuicConfiguration

from broker import PATIENCE, ROOT

NODE = {"NODE_PATH": str(ROOT / "tests/.cache/node/node_modules")}
CLIENTS = str(ROOT / "tests/e2e/clients")

KINDS = [
    "mosquitto",
    "mosquitto-v5",
    "mosquitto-tls",
    "paho-311",
    "paho-5",
    "paho-5-tls",
    "paho-5-ws",
    "mqttjs",
    "mqttjs-v5",
    "mqttjs-tls",
    "mqttjs-ws",
    "mqttjs-wss",
    "quic",
]


def publish(kind, broker, topic, payload, qos):
    """Publishes and returns when the broker has acknowledged (QoS 0: when it was sent)."""
    if kind.startswith("mosquitto"):
        command = ["mosquitto_pub", *_mosquitto(kind, broker), "-t", topic, "-m", payload, "-q", str(qos)]
        subprocess.run(command, check=True, timeout=PATIENCE)
    elif kind.startswith("paho"):
        client = paho_client(kind, broker)
        done = client.publish(topic, payload, qos)
        done.wait_for_publish(PATIENCE)
        assert done.is_published()
        client.disconnect()
        client.loop_stop()
    elif kind.startswith("mqttjs"):
        _node(kind, broker, "pub", topic, payload, str(qos)).check_returncode()
    else:
        asyncio.run(_quic_publish(broker, topic, payload, qos))


@contextlib.contextmanager
def subscribe(kind, broker, topic_filter):
    """Subscribes at QoS 2; inside, `receive()` returns the next (topic, payload)."""
    if kind.startswith("mosquitto"):
        yield from _mosquitto_subscribe(kind, broker, topic_filter)
    elif kind.startswith("paho"):
        yield from _paho_subscribe(kind, broker, topic_filter)
    elif kind.startswith("mqttjs"):
        yield from _node_subscribe(kind, broker, topic_filter)
    else:
        yield from _quic_subscribe(broker, topic_filter)


def _mosquitto(kind, broker):
    version = ["-V", "5" if kind.endswith("v5") else "311"]
    if kind.endswith("tls"):
        return ["-h", "localhost", "-p", str(broker.port("mqtts")), "--cafile", broker.ca, *version]
    return ["-h", "localhost", "-p", str(broker.port("mqtt")), *version]


def _lines(process, wanted):
    """Reads lines of a process up to one that contains `wanted`."""
    for line in process.stdout:
        if wanted in line:
            return line.rstrip("\n")
    raise AssertionError(f"the client ended without {wanted!r}: {process.wait()}")


@contextlib.contextmanager
def _process(command, **more):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    # A client that gets nothing ends here, and the reader sees it.
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def _mosquitto_subscribe(kind, broker, topic_filter):
    command = ["stdbuf", "-oL", "mosquitto_sub", *_mosquitto(kind, broker), "-d", "-q", "2", "-t", topic_filter]
    with _process([*command, "-F", "got|%t|%p"]) as process:
        _lines(process, "Subscribed")

        def receive():
            _, topic, payload = _lines(process, "got|").split("|", 2)
            return topic, payload

        yield receive


def paho_client(kind, broker, **options):
    """A connected paho client with its loop running."""
    version = paho.MQTTv5 if "-5" in kind else paho.MQTTv311
    transport = "websockets" if kind.endswith("ws") else "tcp"
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=version, transport=transport, **options)
    port = broker.port("ws" if transport == "websockets" else "mqtt")
    if kind.endswith("tls"):
        client.tls_set(broker.ca)
        port = broker.port("mqtts")
    connected = threading.Event()
    client.on_connect = lambda *arguments: connected.set()
    client.connect(broker.host, port)
    client.loop_start()
    assert connected.wait(PATIENCE), f"{kind} doesn't connect"
    return client


def _paho_subscribe(kind, broker, topic_filter):
    client = paho_client(kind, broker)
    messages, ready = queue.Queue(), threading.Event()
    client.on_message = lambda _client, _data, message: messages.put((message.topic, message.payload.decode()))
    client.on_subscribe = lambda *_: ready.set()
    client.subscribe(topic_filter, 2)
    assert ready.wait(PATIENCE)
    try:
        yield lambda: messages.get(timeout=PATIENCE)
    finally:
        client.disconnect()
        client.loop_stop()


def _node_url(kind, broker):
    scheme, port = {"tls": ("mqtts", "mqtts"), "ws": ("ws", "ws"), "wss": ("wss", "wss")}.get(
        kind.rsplit("-", 1)[-1], ("mqtt", "mqtt")
    )
    path = "/mqtt" if scheme.startswith("ws") else ""
    return f"{scheme}://localhost:{broker.port(port)}{path}"


def _node_command(kind, broker, action, *arguments):
    version = "5" if kind.endswith("v5") or kind.endswith("ws") else "4"
    return ["node", f"{CLIENTS}/mqtt.cjs", action, _node_url(kind, broker), version, *arguments]


def _node_env(kind, broker):
    secure = {"CA": broker.ca} if kind.endswith(("tls", "wss")) else {}
    return {**os.environ, **NODE, **secure}


def _node(kind, broker, *arguments):
    command = _node_command(kind, broker, *arguments)
    return subprocess.run(command, env=_node_env(kind, broker), timeout=PATIENCE)


def _node_subscribe(kind, broker, topic_filter):
    command = _node_command(kind, broker, "sub", topic_filter, "1000")
    with _process(command, env=_node_env(kind, broker)) as process:
        _lines(process, "subscribed")
        yield lambda: tuple(json.loads(_lines(process, "[")))


# MQTT over QUIC: the packets of TCP on the first bidirectional stream.


def _field(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">H", len(data)) + data


def _packet(first, body):
    assert len(body) < 128
    return bytes([first, len(body)]) + body


class QuicMqtt:
    """MQTT 5 on one stream."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def packet(self):
        first = (await self.reader.readexactly(1))[0]
        length = shift = 0
        while True:
            byte = (await self.reader.readexactly(1))[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 128:
                break
        return first, await self.reader.readexactly(length)

    async def expect(self, kind):
        first, body = await asyncio.wait_for(self.packet(), PATIENCE)
        assert first & 0xF0 == kind, f"{first:#x} {body!r}"
        return first, body

    async def connect(self, client_id):
        body = _field("MQTT") + bytes([5, 2]) + struct.pack(">H", 60) + b"\0" + _field(client_id)
        self.writer.write(_packet(0x10, body))
        _, answer = await self.expect(0x20)
        assert answer[1] == 0, answer

    async def publish(self, topic, payload, qos):
        packet_id = struct.pack(">H", 1) if qos else b""
        self.writer.write(_packet(0x30 | qos << 1, _field(topic) + packet_id + b"\0" + payload.encode()))
        if qos == 1:
            await self.expect(0x40)
        elif qos == 2:
            await self.expect(0x50)
            self.writer.write(_packet(0x62, struct.pack(">H", 1)))
            await self.expect(0x70)
        else:
            self.writer.write(_packet(0xC0, b""))
            await self.expect(0xD0)

    async def subscribe(self, topic_filter):
        self.writer.write(_packet(0x82, struct.pack(">H", 2) + b"\0" + _field(topic_filter) + bytes([2])))
        _, answer = await self.expect(0x90)
        assert answer[-1] == 2, answer

    async def receive(self):
        first, body = await self.expect(0x30)
        size = struct.unpack(">H", body[:2])[0]
        topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
        if first & 0x06:
            packet_id, rest = rest[:2], rest[2:]
            if first & 0x02:
                self.writer.write(_packet(0x40, packet_id))
            else:
                self.writer.write(_packet(0x50, packet_id))
                await self.expect(0x60)
                self.writer.write(_packet(0x70, packet_id))
        assert rest[0] == 0, "no properties were sent"
        return topic, rest[1:].decode()


@contextlib.asynccontextmanager
async def quic_client(broker, client_id=""):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["mqtt"])
    configuration.load_verify_locations(broker.ca)
    configuration.verify_mode = ssl.CERT_REQUIRED
    configuration.server_name = "localhost"
    async with quic_connect("127.0.0.1", broker.port("quic"), configuration=configuration) as connection:
        client = QuicMqtt(*await connection.create_stream())
        await client.connect(client_id)
        yield client
        client.writer.write(_packet(0xE0, b""))


async def _quic_publish(broker, topic, payload, qos):
    async with quic_client(broker) as client:
        await client.publish(topic, payload, qos)


def _quic_subscribe(broker, topic_filter):
    """The client lives on a thread with its own loop; messages come through a queue."""
    messages = queue.Queue()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run():
        try:
            async with quic_client(broker) as client:
                await client.subscribe(topic_filter)
                messages.put("subscribed")

                async def pump():
                    while True:
                        messages.put(await client.receive())

                pumping = asyncio.ensure_future(pump())
                await stop.wait()
                pumping.cancel()
        except BaseException as error:
            messages.put(error)
            raise

    def receive():
        got = messages.get(timeout=PATIENCE)
        if isinstance(got, BaseException):
            raise got
        return got

    thread = threading.Thread(target=loop.run_until_complete, args=[run()], daemon=True)
    thread.start()
    try:
        assert receive() == "subscribed"
        yield receive
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
