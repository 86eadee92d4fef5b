"""Attacks on each listener, and a client that behaves meanwhile."""

import contextlib
import functools
import random
import socket
import ssl
import struct
import time
import urllib.request

from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

import hostile_input
import kafka_clients
import mqtt_clients
from hostile_input import UPGRADE, attack

LISTENERS = ["mqtt", "mqtts", "ws", "wss", "kafka", "kafkas", "admin", "quic"]
SECURE = ["mqtts", "wss", "kafkas"]


class Target:
    """Where a broker listens: what other processes need to know of it."""

    def __init__(self, broker):
        self.host, self.ports, self.ca = broker.host, dict(broker.ports), broker.ca

    def port(self, listener):
        return self.ports[listener]


@functools.cache
def context_of(ca):
    return ssl.create_default_context(cafile=ca)


def tls_context(broker):
    return context_of(broker.ca)


class QuicClient:
    """A QUIC client without a loop of its own, so that it can leave wherever it likes."""

    def __init__(self, broker):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["mqtt"], verify_mode=ssl.CERT_NONE)
        self.connection = QuicConnection(configuration=configuration)
        self.address = ("127.0.0.1", broker.port("quic"))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.connection.connect(self.address, now=time.monotonic())
        self.send()

    def send(self):
        for data, address in self.connection.datagrams_to_send(now=time.monotonic()):
            self.udp.sendto(data, address)

    def receive(self, kind, timeout):
        """Whether an event of `kind` came in time."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self.udp.settimeout(left)
            try:
                self.connection.receive_datagram(self.udp.recv(2000), self.address, now=time.monotonic())
            except TimeoutError:
                return False
            self.send()
            while event := self.connection.next_event():
                if isinstance(event, kind):
                    return True
                if isinstance(event, quic_events.ConnectionTerminated):
                    return False
        return False


def quic_strike(broker, rng):
    """A handshake as it should be, and an attack on the stream, or on several."""
    client = QuicClient(broker)
    with client.udp:
        kind = rng.randrange(8)
        if kind == 0 or not client.receive(quic_events.HandshakeCompleted, 1) or kind == 1:
            # It vanishes: before the handshake is through, or before it has said anything.
            return
        for n in range(rng.randrange(1, 4)):
            stream = rng.choice([4 * n, 4 * n, 4 * n, 4 * n + 2])
            client.connection.send_stream_data(stream, attack(rng, "quic"), end_stream=rng.randrange(2) == 0)
        client.send()
        client.receive((quic_events.StreamDataReceived, quic_events.StreamReset), 0.05)
        client.connection.close()
        client.send()


def quic_datagram(broker, rng):
    """One that looks like an Initial packet as often as not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        head = rng.choice([b"", b"\xc3\0\0\0\x01\x08" + rng.randbytes(8), b"\xff\xff\xff\xff\xff"])
        udp.sendto((head + rng.randbytes(1300))[:1200], ("127.0.0.1", broker.port("quic")))


def reset_on_close(tcp):
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def upgraded(stream, data):
    """What is left of `data` once a WebSocket is open: frames may not come with the request."""
    if not data.startswith(UPGRADE) or data == UPGRADE:
        return data
    stream.sendall(UPGRADE)
    stream.recv(4096)
    return data[len(UPGRADE) :]


def strike(broker, listener, rng):
    """One connection: sends an attack, reads for a moment or not, leaves in one of several ways."""
    if listener == "quic":
        (quic_strike if rng.randrange(2) else quic_datagram)(broker, rng)
        return
    with contextlib.suppress(OSError, ssl.SSLError):
        with socket.create_connection(("127.0.0.1", broker.port(listener)), timeout=5) as tcp:
            secure = listener in SECURE and rng.randrange(4) > 0
            stream = tls_context(broker).wrap_socket(tcp, server_hostname="localhost") if secure else tcp
            end, data = rng.randrange(8), upgraded(stream, attack(rng, listener))
            if end == 0:
                # The beginning in pieces of a byte.
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in data[:30]:
                    stream.sendall(bytes([byte]))
                data = data[30:]
            stream.sendall(data)
            if end == 1:
                reset_on_close(stream)
            elif end >= 4:
                # Half of them say that nothing more comes, and see how it is answered.
                if not secure:
                    stream.shutdown(socket.SHUT_WR)
                stream.settimeout(0.05)
                while stream.recv(65536):
                    pass


class Holders:
    """Connections that say nothing, or little, or a byte at a time, and stay."""

    def __init__(self, broker, listener, most=200):
        self.broker, self.listener, self.most = broker, listener, most
        self.open, self.number = [], 0

    def beginning(self):
        """What this one says before it falls silent, and what it goes on with."""
        spoken = hostile_input.protocol(self.listener)
        parts = {
            "mqtt": [b"", b"\x10", hostile_input.CLAIMS["mqtt"][2] + b"\0\x04MQTT\x05"],
            "ws": [b"", b"GET /mq", UPGRADE, UPGRADE + b"\x82\xfe\xff\xff"],
            "kafka": [b"\0", b"\0\0\x01\0\0\x12", hostile_input.CLAIMS["kafka"][2] + b"\0" * 100],
            "admin": [b"", b"GET /met", b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{"],
        }[spoken]
        return parts[self.number % len(parts)]

    def begin(self):
        self.number += 1
        tcp = socket.create_connection(("127.0.0.1", self.broker.port(self.listener)), timeout=5)
        if self.listener in SECURE and self.number % 3 == 0:
            tcp.sendall(b"\x16\x03\x01\x02\x00\x01")
        else:
            if self.listener in SECURE:
                tcp = tls_context(self.broker).wrap_socket(tcp, server_hostname="localhost")
            tcp.sendall(upgraded(tcp, self.beginning()))
        tcp.setblocking(False)
        self.open.append(tcp)

    def renew(self):
        """Opens some that are missing, and lets others trickle. Returns how many it opened."""
        if self.listener == "quic":
            for _ in range(10):
                QuicClient(self.broker).udp.close()
            return 10
        self.still_open()
        self.trickle()
        opened = min(20, self.most - len(self.open))
        for _ in range(opened):
            with contextlib.suppress(OSError):
                self.begin()
        return opened

    def trickle(self):
        """Some say one more byte."""
        for tcp in self.open[::4]:
            with contextlib.suppress(OSError):
                tcp.send(b"\0")

    def still_open(self):
        """How many the broker has not closed yet."""
        self.open = [tcp for tcp in self.open if not is_closed(tcp)]
        return len(self.open)

    def close(self):
        for tcp in self.open:
            tcp.close()
        self.open = []


def is_closed(tcp):
    try:
        while tcp.recv(65536):
            pass
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    except OSError:
        pass
    tcp.close()
    return True


class Probe:
    """A client that behaves, without a thread: QoS 1 publishes, one at a time."""

    def __init__(self, broker):
        self.tcp = socket.create_connection(("127.0.0.1", broker.port("mqtt")), timeout=mqtt_clients.PATIENCE)
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connect = bytearray(hostile_input.connect_packet(4, "probe"))
        connect[10:12] = b"\0\0"  # no keep-alive
        self.tcp.sendall(connect)
        assert self.read(4)[:2] == b"\x20\x02"

    def read(self, count):
        data = b""
        while len(data) < count:
            more = self.tcp.recv(count - len(data))
            assert more, "the probe was disconnected"
            data += more
        return data

    def publish(self, payload=b"probe"):
        """Returns when the broker has acknowledged."""
        body = b"\x00\x05probe\x00\x01" + payload
        self.tcp.sendall(b"\x32" + hostile_input.varint(len(body)) + body)
        assert self.read(4) == b"\x40\x02\x00\x01"

    def close(self):
        self.tcp.close()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def still_serves(broker, topic):
    """Every listener does its work for a client that behaves."""
    for kind in ["paho-311", "paho-5-tls", "paho-5-ws", "mqttjs-wss", "quic"]:
        with mqtt_clients.subscribe(kind, broker, topic) as receive:
            mqtt_clients.publish(kind, broker, topic, kind, 1)
            assert receive() == (topic, kind)
    for kind in ["confluent", "confluent-tls"]:
        kafka_clients.produce(kind, broker, "hostile", topic, kind)
    assert kafka_clients.consume("confluent", broker, "hostile", topic, 2) == ["confluent", "confluent-tls"]
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.port('admin')}/healthz", timeout=mqtt_clients.PATIENCE) as health:
        assert health.status == 200


def seeded(number):
    return random.Random(number)
