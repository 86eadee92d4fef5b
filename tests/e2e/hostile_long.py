"""Attacks each listener for a while and says what it cost."""

import argparse
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import hostile  # noqa: E402
import kafka_clients  # noqa: E402
import mqtt_clients  # noqa: E402
from broker import Broker  # noqa: E402


def measure(client, seconds):
    """Latencies of a probe a hundredth of a second, in milliseconds."""
    values, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        values.append(hostile.probe(client, "probe") * 1000)
        time.sleep(0.01)
    return values


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=1, help="on each listener")
    parser.add_argument("--listener", choices=hostile.LISTENERS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    failed = False
    with Broker("--dev-tls") as broker:
        kafka_clients.create_topic(broker, "hostile")
        client = mqtt_clients.paho_client("paho-5", broker)
        print(f"{'listener':8} {'connections':>11} {'memory':>12} {'quiet p99':>10} {'p99':>10}")
        for listener in [options.listener] if options.listener else hostile.LISTENERS:
            quiet = hostile.percentile(measure(client, 10), 0.99)
            before, stop, counts = broker.resident_bytes(), threading.Event(), [0] * options.threads

            def strikes(index):
                while not stop.is_set():
                    hostile.strike(broker, listener, hostile.seeded(index << 32 | counts[index]))
                    counts[index] += 1

            threads = [threading.Thread(target=strikes, args=[n]) for n in range(options.threads)]
            for thread in threads:
                thread.start()
            loud = hostile.percentile(measure(client, options.minutes * 60), 0.99)
            stop.set()
            for thread in threads:
                thread.join()
            grown = (broker.resident_bytes() - before) / (1 << 20)
            failed |= not broker.alive() or grown > 16
            print(f"{listener:8} {sum(counts):11} {grown:+8.1f} MiB {quiet:7.2f} ms {loud:7.2f} ms", flush=True)
        hostile.still_serves(broker, "hostile/after")
    sys.exit(1 if failed else 0)


main()
