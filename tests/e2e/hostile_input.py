"""Garbage, truncated and oversized bytes for each listener, from a seed."""

import struct

from mqtt_clients import _field

UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)
# The largest sizes that each protocol can claim, and the largest that are taken.
CLAIMS = {
    "mqtt": [b"\x30\xff\xff\xff\x7f", b"\x10\xff\xff\xff\x7f", b"\x10\xfb\xff\x3f"],
    "ws": [b"\x82\xff" + b"\x7f" + b"\xff" * 7 + b"\0\0\0\0", b"\x82\xff" + (1 << 20).to_bytes(8, "big") + b"\0\0\0\0"],
    "kafka": [b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\x05\0\0\0\0\0\0\x09"],
    "admin": [
        b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"GET /" + b"x" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
    ],
}


def protocol(listener):
    """What a listener speaks, whatever lies below."""
    return {"mqtts": "mqtt", "quic": "mqtt", "wss": "ws", "kafkas": "kafka"}.get(listener, listener)


def varint(value):
    out = b""
    while True:
        out += bytes([value & 0x7F | (0x80 if value > 0x7F else 0)])
        value >>= 7
        if value == 0:
            return out


def connect_packet(version, client):
    name = "MQIsdp" if version == 3 else "MQTT"
    props = b"\0" if version == 5 else b""
    body = _field(name) + bytes([version, 2]) + b"\0\x3c" + props + _field(client)
    return b"\x10" + varint(len(body)) + body


def mqtt_packets(rng):
    """Well-formed packets to cut and to twist."""
    version = rng.choice([3, 4, 5])
    props = b"\0" if version == 5 else b""
    yield connect_packet(version, f"hostile-{rng.randrange(1 << 30)}")
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


def http_requests(rng):
    """Requests of the admin port, of served and of unknown paths."""
    for _ in range(3):
        body = rng.choice([b"", b"{}", b'{"name":"' + b"x" * rng.randrange(20_000) + b'"}', rng.randbytes(300)])
        method = rng.choice([b"GET", b"POST", b"PUT", b"\xff", b"CONNECT"])
        path = rng.choice([b"/metrics", b"/healthz", b"/v1/users", b"/v1/users/remove", b"/v1/topics/%ff/logs", b"//"])
        length = b"Content-Length: %d\r\n" % len(body)
        yield method + b" " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + length + b"\r\n" + body


PACKETS = {"mqtt": mqtt_packets, "ws": mqtt_packets, "kafka": kafka_requests, "admin": http_requests}


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


def ws_frames(rng, data):
    """A masked frame, or several, of this and that kind."""
    frames, first = b"", rng.choice([0x82, 0x82, 0x82, 0x81, 0x02, 0xFF, 0x89])
    while data:
        piece = data[: rng.choice([1, 100, 60_000])] if len(frames) < 2000 else data[:60_000]
        data = data[len(piece) :]
        frames += bytes([first, 0xFE]) + struct.pack(">H", len(piece)) + b"\0\0\0\0" + piece
    return frames


def attack(rng, listener):
    """The bytes of one connection."""
    spoken, kind = protocol(listener), rng.randrange(4)
    if kind == 0:
        return (UPGRADE if spoken == "ws" and rng.randrange(2) else b"") + rng.randbytes(rng.randrange(1, 5000))
    if kind == 1:
        # A size with a little of what it promises.
        claim = rng.choice(CLAIMS[spoken])
        return (UPGRADE if spoken == "ws" else b"") + claim + rng.randbytes(rng.randrange(2000))
    if spoken == "ws" and rng.randrange(4) == 0:
        return twisted(rng, UPGRADE)
    data = b"".join(twisted(rng, packet) for packet in PACKETS[spoken](rng))
    return UPGRADE + ws_frames(rng, data) if spoken == "ws" else data
