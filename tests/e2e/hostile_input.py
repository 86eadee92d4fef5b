"""Garbage, truncated and oversized input for each listener, from a seed."""

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import time

from aioquic.asyncio import connect as quic_connect
from aioquic.quic.configuration import QuicConfiguration

import kafka_clients
import mqtt_clients
from mqtt_clients import _field

LISTENERS = ["mqtt", "mqtts", "ws", "wss", "kafka", "kafkas", "admin", "quic"]
UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)


def varint(value):
    out = b""
    while True:
        out += bytes([value & 0x7F | (0x80 if value > 0x7F else 0)])
        value >>= 7
        if value == 0:
            return out


def mqtt_packets(rng):
    """Well-formed packets to cut and to twist."""
    version = rng.choice([3, 4, 5])
    props = b"\0" if version == 5 else b""
    name = "MQIsdp" if version == 3 else "MQTT"
    client = f"hostile-{rng.randrange(1 << 30)}"
    body = _field(name) + bytes([version, 2]) + b"\0\x3c" + props + _field(client)
    yield b"\x10" + varint(len(body)) + body
    topic = _field(f"hostile/{rng.randrange(100)}")
    for first, body in [
        (0x32, topic + b"\0\x01" + props + rng.randbytes(rng.randrange(200))),
        (0x82, b"\0\x02" + props + topic + b"\x01"),
        (0x34, topic + b"\0\x03" + props + b"x"),
        (0x62, b"\0\x03"),
        (0xA2, b"\0\x04" + props + topic),
        (0xC0, b""),
        (0xE0, b""),
    ]:
        yield bytes([first]) + varint(len(body)) + body


def kafka_requests(rng):
    """Frames of served and of unknown APIs, with bodies that mostly don't hold."""
    for _ in range(3):
        api, version = rng.choice([0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 17, 18, 19, 22, 36, 999]), rng.randrange(20)
        header = struct.pack(">hhi", api, version, rng.randrange(1 << 31)) + _field("hostile")
        body = rng.choice([b"", rng.randbytes(rng.randrange(300)), b"\xff" * 64, b"\x7f\xff\xff\xff" * 16])
        yield struct.pack(">i", len(header) + len(body)) + header + body


def twisted(rng, data):
    """One of: as it is, cut, a few bytes changed, a length changed, garbage behind."""
    data = bytearray(data)
    kind = rng.randrange(5)
    if kind == 1:
        del data[rng.randrange(len(data)) :]
    elif kind == 2:
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 3 and len(data) > 4:
        data[1:5] = rng.choice([b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\x80\x80\x80\x80", b"\0\0\0\0"])
    elif kind == 4:
        data += rng.randbytes(rng.randrange(1000))
    return bytes(data)


def attack(rng, listener):
    """The bytes of one connection."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 5000))
    if kind == 1:
        # The largest sizes that can be claimed, with a little of what they promise.
        claim = {"kafka": b"\x7f\xff\xff\xff", "mqtt": b"\x30\xff\xff\xff\x7f"}
        return rng.choice(list(claim.values())) + rng.randbytes(rng.randrange(2000))
    packets = kafka_requests(rng) if listener.startswith("kafka") else mqtt_packets(rng)
    data = b"".join(twisted(rng, packet) for packet in packets)
    if listener.startswith("ws"):
        frame = bytes([rng.choice([0x82, 0x82, 0x82, 0x81, 0x02, 0xFF]), 0xFE]) + struct.pack(">H", len(data) & 0xFFFF)
        return UPGRADE + frame + b"\0\0\0\0" + data
    return data


def tls_context(broker):
    context = ssl.create_default_context(cafile=broker.ca)
    return context


async def quic_strike(broker, rng):
    """A handshake as it should be, and an attack on the stream, or on several."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["mqtt"])
    configuration.load_verify_locations(broker.ca)
    configuration.server_name = "localhost"
    with contextlib.suppress(ConnectionError, OSError):
        async with quic_connect("127.0.0.1", broker.port("quic"), configuration=configuration) as connection:
            for _ in range(rng.randrange(1, 3)):
                reader, writer = await connection.create_stream()
                writer.write(attack(rng, "quic"))
                if rng.randrange(2):
                    writer.write_eof()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1000), 0.05)


def strike(broker, listener, rng):
    """One connection: sends an attack, reads for a moment, leaves."""
    if listener == "quic" and rng.randrange(2):
        asyncio.run(quic_strike(broker, rng))
        return
    if listener == "quic":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            # Datagrams that look like Initial packets as often as not.
            head = rng.choice([b"", b"\xc3\0\0\0\x01\x08" + rng.randbytes(8), b"\xff\xff\xff\xff\xff"])
            udp.sendto((head + rng.randbytes(1300))[:1200], ("127.0.0.1", broker.port("quic")))
        return
    with contextlib.suppress(OSError, ssl.SSLError):
        with socket.create_connection(("127.0.0.1", broker.port(listener)), timeout=5) as tcp:
            secure = listener in ("mqtts", "wss", "kafkas") and rng.randrange(4) > 0
            stream = tls_context(broker).wrap_socket(tcp, server_hostname="localhost") if secure else tcp
            stream.sendall(attack(rng, listener))
            if rng.randrange(2):
                # Half of them say that nothing more comes, and see how it is answered.
                if not secure:
                    stream.shutdown(socket.SHUT_WR)
                stream.settimeout(0.05)
                while stream.recv(65536):
                    pass


def probe(client, topic):
    """Seconds of one QoS 1 publish of a client that behaves."""
    started = time.monotonic()
    client.publish(topic, "probe", 1).wait_for_publish(30)
    return time.monotonic() - started


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def still_serves(broker, topic):
    """Every listener does its work for a client that behaves."""
    for kind in ["paho-311", "paho-5-tls", "paho-5-ws", "mqttjs-wss", "quic"]:
        with mqtt_clients.subscribe(kind, broker, topic) as receive:
            mqtt_clients.publish(kind, broker, topic, kind, 1)
            assert receive() == (topic, kind)
    for kind in ["confluent", "confluent-tls"]:
        kafka_clients.produce(kind, broker, "hostile", "key", kind)
    assert kafka_clients.consume("confluent", broker, "hostile", "key", 2) == ["confluent", "confluent-tls"]


def seeded(number):
    return random.Random(number)
