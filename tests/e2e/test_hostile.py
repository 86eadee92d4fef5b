"""Hostile input on each listener: the broker survives, serves others and stays within its memory."""

import concurrent.futures
import socket

import pytest

import hostile
import kafka_clients
import mqtt_clients
from broker import Broker

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
                connection.sendall(next(hostile.mqtt_packets(hostile.seeded(n))))
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
