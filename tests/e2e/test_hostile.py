"""Hostile input on each listener: the broker survives, serves others and stays within its memory."""

import concurrent.futures
import contextlib
import socket
import struct
import time

import pytest

import hostile
import hostile_input
import kafka_clients
import mqtt_clients
from broker import PATIENCE, Broker
from hostile_input import UPGRADE, connect_packet

CONNECTIONS = 300
MEMORY = 16 << 20


@pytest.fixture(scope="module")
def target():
    with Broker("--dev-tls") as broker:
        kafka_clients.create_topic(broker, "hostile")
        # Warm: what serving costs is not what an attack costs.
        with mqtt_clients.subscribe("paho-5", broker, "warm") as receive:
            mqtt_clients.publish("paho-5", broker, "warm", "x", 1)
            receive()
        for listener in hostile.LISTENERS:
            for seed in range(40):
                hostile.strike(broker, listener, hostile.seeded(seed))
        yield broker


@pytest.mark.parametrize("listener", hostile.LISTENERS)
def test_survives_within_its_memory(target, listener):
    before = target.resident_bytes()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        strikes = [
            pool.submit(hostile.strike, target, listener, hostile.seeded(1000 + seed)) for seed in range(CONNECTIONS)
        ]
    for strike in strikes:
        strike.result()
    assert target.alive(), target.log()
    grown = target.resident_bytes() - before
    assert grown <= MEMORY, f"{listener}: {grown >> 20} MiB more"


def test_many_claims_of_large_packets_hold_little_memory(target):
    """200 connections that claim the largest packet each and send a byte of it."""
    before = target.resident_bytes()
    open_connections = []
    for n in range(200):
        for listener, claim in [("mqtt", b"\x30\xff\xff\x3f\0"), ("kafka", b"\x06\x00\x00\x00\0")]:
            connection = socket.create_connection(("127.0.0.1", target.port(listener)))
            if listener == "mqtt":
                connection.sendall(next(hostile_input.mqtt_packets(hostile.seeded(n))))
            connection.sendall(claim)
            open_connections.append(connection)
    mqtt_clients.publish("paho-5", target, "hostile/still", "here", 1)
    grown = target.resident_bytes() - before
    for connection in open_connections:
        connection.close()
    assert grown <= MEMORY, f"{grown >> 20} MiB more"


def test_serves_afterwards(target):
    hostile.still_serves(target, "hostile/after")
    assert target.alive()


def test_those_who_hold_connections_keep_nobody_out_and_are_let_go():
    """Silent, half-way through a handshake, or a byte at a time: others come in, and time is up."""
    settings = {"INTERFLOW_MQTT__CONNECT_TIMEOUT_MS": "3000", "INTERFLOW_KAFKA__REQUEST_STALL_MS": "3000"}
    with Broker("--dev-tls", settings=settings) as broker, contextlib.ExitStack() as stack:
        kafka_clients.create_topic(broker, "hostile")
        holders = {listener: hostile.Holders(broker, listener, most=60) for listener in hostile.LISTENERS}
        for one in holders.values():
            stack.callback(one.close)
            for _ in range(3):
                one.renew()
        hostile.still_serves(broker, "hostile/held")
        deadline = time.monotonic() + PATIENCE
        while left := {listener: n for listener, one in holders.items() if (n := one.still_open())}:
            assert time.monotonic() < deadline, f"still open: {left}"
            for listener, one in holders.items():
                # Bytes of a Kafka request may come slowly: only one that stops is given up soon.
                if hostile_input.protocol(listener) != "kafka":
                    one.trickle()
            time.sleep(0.2)


def answer(broker, listener, data):
    """All that comes back for `data` until the broker closes."""
    with socket.create_connection(("127.0.0.1", broker.port(listener)), timeout=PATIENCE) as tcp:
        received = b""
        # It may close before it has read all.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            tcp.sendall(hostile.upgraded(tcp, data))
            while more := tcp.recv(65536):
                received += more
        return received


def mqtt_answers(received):
    """The packets of an answer, as (first byte, body)."""
    packets = []
    while received:
        # None of these answers is longer than one byte of length can say.
        packets.append((received[0], received[2 : 2 + received[1]]))
        received = received[2 + received[1] :]
    return packets


V5, V311 = connect_packet(5, "by-rule-5"), connect_packet(4, "by-rule-4")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x30\x02\0\xff", 0x81),  # a topic longer than its packet
        (b"\x00\x00", 0x81),  # no such packet
        (b"\x36\x05\0\1a\0\1", 0x81),  # QoS 3
        (b"\x30\xff\xff\xff\x7f", 0x95),  # larger than any packet may be
        (b"\x30\xff\xff\xff\xff\x7f", 0x81),  # a length of five bytes
        (V5, 0x82),  # CONNECT again
        (b"\x30\x06\0\3a/#\0x"[:8], 0x90),  # a filter where a name belongs
    ],
)
def test_mqtt_says_why_it_closes(target, data, reason):
    (kind, connack), (last, disconnect) = mqtt_answers(answer(target, "mqtt", V5 + data))
    assert (kind, connack[1], last, disconnect[0]) == (0x20, 0, 0xE0, reason)
    # MQTT 3.1.1 has no word for it.
    assert answer(target, "mqtt", V311 + data.replace(V5, V311)) == b"\x20\x02\0\0"


@pytest.mark.parametrize("data", [b"\x30\x03\0\1a", b"\xc0\0", b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\xff\xff"])
def test_mqtt_without_connect_gets_no_answer(target, data):
    assert answer(target, "mqtt", data) == b""


def test_mqtt_of_an_unknown_version_is_told_so(target):
    unknown = bytearray(V5)
    unknown[8] = 6
    ((kind, connack),) = mqtt_answers(answer(target, "mqtt", bytes(unknown)))
    assert (kind, connack[:2]) == (0x20, b"\0\x84")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (UPGRADE.replace(b"/mqtt", b"/other"), b"404"),
        (UPGRADE.replace(b"Protocol: mqtt", b"Protocol: amqp"), b"400"),
    ],
)
def test_websocket_refuses_requests(target, request_bytes, status):
    received = answer(target, "ws", request_bytes)
    assert received == b"" and status == b"400" or received.split()[1] == status, received


def test_websocket_closes_on_text_and_on_oversized_frames(target):
    for frame, code in [(b"\x81\x80\0\0\0\0", 1003), (b"\x82\xff" + b"\x7f" + b"\xff" * 7 + b"\0\0\0\0", None)]:
        frames = answer(target, "ws", UPGRADE + frame)
        assert code is None or frames[:4] == b"\x88" + frames[1:2] + struct.pack(">H", code), frames


@pytest.mark.parametrize("listener", hostile.SECURE)
def test_tls_answers_garbage_with_an_alert(target, listener):
    assert answer(target, listener, b"GET / HTTP/1.1\r\n\r\n")[:1] in (b"\x15", b"")


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x0a" + b"\x7f" * 10])
def test_kafka_closes_on_what_is_no_request(target, data):
    assert answer(target, "kafka", data) == b""


def test_kafka_tells_which_versions_it_speaks(target):
    with socket.create_connection(("127.0.0.1", target.port("kafka")), timeout=PATIENCE) as tcp:
        tcp.sendall(b"\0\0\0\x0b" + struct.pack(">hhihb", 18, 99, 77, -1, 0))
        (size,) = struct.unpack(">i", tcp.recv(4, socket.MSG_WAITALL))
        correlation, error = struct.unpack(">ih", tcp.recv(size, socket.MSG_WAITALL)[:6])
        assert (correlation, error) == (77, 35)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (b"PUT /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"405"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n", b"431"),
        (b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 9000\r\n\r\n" + b" " * 9000, b"413"),
        (
            b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: 3\r\n\r\n{!}",
            b"400",
        ),
    ],
)
def test_admin_refuses_requests(target, request_bytes, status):
    received = answer(target, "admin", request_bytes)
    assert received.split()[1:2] == [status], received[:200]


def test_quic_names_the_versions_it_speaks(target):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(PATIENCE)
        udp.sendto(b"\xc3\x1a\x2a\x3a\x4a\x08" + b"d" * 8 + b"\x08" + b"s" * 8 + b"\0" * 1200, ("127.0.0.1", target.port("quic")))
        received = udp.recv(2000)
    # Version Negotiation: version 0, the connection ids turned around.
    assert received[0] & 0x80 and received[1:5] == b"\0" * 4, received
    assert received[5:23] == b"\x08" + b"s" * 8 + b"\x08" + b"d" * 8
