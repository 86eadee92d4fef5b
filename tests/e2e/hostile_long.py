"""Attacks each listener for a while and says what it cost, against what it may cost.

Attackers are processes of their own on a processor of their own: they stand for other machines, and
must not take from the broker and the probe the processors that these two would have for themselves.
(A low priority isn't enough: Linux without kernel preemption may let such a process run on for some
milliseconds before one that woke up gets its turn.) Broker and probe share the other processors, with
and without an attack.
What is left of that is the disk's: a bare loop of write and `fdatasync` runs between the probes, and where
its p99 rises under attack, by so much the probes' may.
Rounds of quiet and of attack alternate with as many probes in each, so that what else the machine
does weighs on both alike.
"""

import argparse
import ctypes
import math
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import hostile  # noqa: E402
import kafka_clients  # noqa: E402
from broker import Broker  # noqa: E402

MEMORY_MIB = 16
P99_RATIO = 2
ROUNDS = 6
PROBES_A_SECOND = 100
# The cache of the log's newest entries and what it is allocated in: full before anything is measured.
LOG_CACHE_MIB = 64 + 16
# So often resident memory is looked at, in probes.
SAMPLE_EVERY = 20


class Attackers:
    """Processes that strike one listener while they are told to."""

    def __init__(self, target, listener, strikers, processors):
        context = multiprocessing.get_context("spawn")
        self.loud, self.ended = context.Event(), context.Event()
        self.parked = context.Semaphore(0)
        self.counts = context.Array(ctypes.c_uint64, strikers + 1)
        common = (target, listener, processors, self.loud, self.ended, self.parked, self.counts)
        self.processes = [
            context.Process(target=run_attacker, args=[index, index == strikers, *common], daemon=True)
            for index in range(strikers + 1)
        ]
        for process in self.processes:
            process.start()
        self.wait_until_parked()

    def wait_until_parked(self):
        for _ in self.processes:
            assert self.parked.acquire(timeout=60), "an attacker hangs"

    def start(self):
        self.loud.set()

    def pause(self):
        self.loud.clear()
        self.wait_until_parked()

    def stop(self):
        self.ended.set()
        self.loud.set()
        for process in self.processes:
            process.join(60)


def run_attacker(index, is_holder, target, listener, processors, loud, ended, parked, counts):
    """One process: strikes, or holds connections that say little, while `loud` is set."""
    os.sched_setaffinity(0, processors)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = 0
    while True:
        parked.release()
        loud.wait()
        if ended.is_set():
            return
        holders = hostile.Holders(target, listener) if is_holder else None
        while loud.is_set():
            if holders:
                counts[index] += holders.renew()
                time.sleep(0.1)
            else:
                hostile.strike(target, listener, hostile.seeded(index << 32 | number))
                counts[index] += 1
            number += 1
        if holders:
            holders.close()


class Floor:
    """The bare disk: what a probe's publish waits for whatever the broker does. On a virtual machine it is
    slower while attackers keep a processor busy."""

    def __init__(self, folder):
        self.file = tempfile.TemporaryFile(dir=folder)

    def sync(self):
        """Writes as much as a publish does and syncs it. Returns the seconds that this took."""
        started = time.monotonic()
        os.write(self.file.fileno(), bytes(512))
        os.fdatasync(self.file.fileno())
        return time.monotonic() - started


class Measured:
    """What probes of one kind of round saw, and the broker's memory meanwhile."""

    def __init__(self, broker, probe, floor):
        self.broker, self.probe, self.floor = broker, probe, floor
        self.latencies, self.floors, self.resident = [], [], []

    def add(self, seconds=math.inf, most=math.inf):
        """Probes for `seconds`, or `most` times. Returns how often."""
        count, end = 0, time.monotonic() + seconds
        while count < most and time.monotonic() < end:
            started = time.monotonic()
            self.probe.publish()
            took = time.monotonic() - started
            self.latencies.append(took * 1000)
            bare = self.floor.sync()
            self.floors.append(bare * 1000)
            took += bare
            if count % SAMPLE_EVERY == 0:
                self.resident.append(self.broker.resident_bytes())
            time.sleep(max(0, 1 / PROBES_A_SECOND - took))
            count += 1
        return count

    def p99(self):
        return hostile.percentile(self.latencies, 0.99)

    def floor_p99(self):
        return hostile.percentile(self.floors, 0.99)


def measure(listener, options, theirs):
    """One listener of a broker of its own, attacked from the processors `theirs`. Returns a line of the
    table and what is over its bound."""
    with Broker("--dev-tls") as broker:
        kafka_clients.create_topic(broker, "hostile")
        hostile.still_serves(broker, "hostile/before")
        target = hostile.Target(broker)
        # Warm: what serving costs is not what an attack costs.
        for seed in range(100):
            hostile.strike(target, listener, hostile.seeded(seed))
        probe = hostile.Probe(target)
        for _ in range(LOG_CACHE_MIB):
            probe.publish(bytes(900_000))
        floor = Floor(broker.folder)
        Measured(broker, probe, floor).add(seconds=5)
        quiet, loud = Measured(broker, probe, floor), Measured(broker, probe, floor)
        attackers = Attackers(target, listener, options.attackers, theirs)
        before = broker.resident_bytes()
        for _ in range(ROUNDS):
            attackers.start()
            probes = loud.add(seconds=options.minutes * 60 / ROUNDS)
            attackers.pause()
            quiet.add(most=probes)
        attackers.stop()
        probe.close()

        def mib(resident):
            return (max(resident) - before) / (1 << 20)

        half = len(loud.resident) // 2
        peak, ratio = mib(loud.resident), loud.p99() / quiet.p99()
        floor_ratio = loud.floor_p99() / quiet.floor_p99()
        alive = broker.alive()
        if alive:
            hostile.still_serves(broker, "hostile/after")
        verdicts = {
            "died": not alive,
            f"more than {MEMORY_MIB} MiB": peak > MEMORY_MIB,
            f"p99 more than {P99_RATIO} times its quiet value": ratio > P99_RATIO * max(1, floor_ratio),
        }
        line = (
            f"{listener:8} {sum(attackers.counts):11} {mib(loud.resident[:half]):+7.1f} MiB"
            f" {mib(loud.resident[half:]):+7.1f} MiB {quiet.p99():7.2f} ms {loud.p99():7.2f} ms {ratio:5.2f}"
            f" {floor_ratio:10.2f}"
        )
        return line, [what for what, holds in verdicts.items() if holds]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=1, help="of attack on each listener; as much is quiet")
    parser.add_argument("--listener", choices=hostile.LISTENERS, action="append")
    parser.add_argument("--attackers", type=int, default=2, help="processes, beside one that holds connections")
    options = parser.parse_args()
    failures = []
    processors = sorted(os.sched_getaffinity(0))
    theirs, ours = processors[-1:], processors[:-1] or processors
    # The broker has it of this process.
    os.sched_setaffinity(0, ours)
    print("memory: the most above what it was before, in the first and the second half of the attack")
    print(f"{'listener':8} {'connections':>11} {'memory':>11} {'then':>11} {'quiet p99':>10} {'p99':>10} ratio bare disk's")
    for listener in options.listener or hostile.LISTENERS:
        line, failed = measure(listener, options, theirs)
        failures += [f"{listener}: {what}" for what in failed]
        print(line, "; ".join(failed) or "ok", flush=True)
    for failure in failures:
        print(f"over the bound: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
