"""How long appends wait when a log store goes: see `tests/failover`."""

import argparse
import json
import statistics
import sys
import time

from cluster import Cluster, interflow, until
from history import Producing, check, create

PARTITIONS = 12


def sequencers(cluster):
    """The nodes that give out offsets, by partition."""
    lines = interflow("log", "describe", "failover", *cluster.gateways[0].admin).stdout.splitlines()
    return [int(line.split("sequencer ")[1].split(",")[0]) for line in lines if "sequencer " in line]


def is_whole(cluster):
    """Each log's open segment is on three nodes."""
    lines = interflow("log", "describe", "failover", *cluster.gateways[0].admin).stdout.splitlines()
    replicas = [line.split()[4] for line in lines if " open " in line]
    return len(replicas) == PARTITIONS and all(len(nodes.split(",")) == 3 for nodes in replicas)


def silence(times, since, until_):
    """The longest time between two acknowledgements that overlaps a span."""
    near = [time for time in times if since - 1 <= time <= until_]
    return max((b - a for a, b in zip(near, near[1:]) if b >= since), default=until_ - since)


def one_round(cluster, producer, store, end):
    """Ends a node under load, and starts it again; the silences of the partitions that it had, in seconds."""
    had = [n for n, node in enumerate(sequencers(cluster)) if node == store.node_id]
    before = {n: len(producer.times[n]) for n in had}
    since = time.monotonic()
    end(store)

    def go_on():
        return all(len(producer.times[n]) > before[n] + 200 for n in had)

    until(go_on, "appends don't succeed any more")
    now = time.monotonic()
    silences = [silence(producer.times[n], since, now) for n in had]
    store.start()
    until(lambda: is_whole(cluster), "not all logs have three replicas again")
    return silences


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=10)
    options = options.parse_args()
    settings = {"INTERFLOW_STORAGE__DEFAULT_REPLICATION_FACTOR": "3"}
    report = {}
    with Cluster(stores=3, gateways=2, settings=settings) as cluster:
        create(cluster.gateways[0], "failover", PARTITIONS)
        bootstraps = [gateway.bootstrap for gateway in cluster.gateways]
        producer = Producing(",".join(bootstraps), "failover", PARTITIONS, "p")
        producer.start()
        until(lambda: all(len(producer.times[n]) > 100 for n in range(PARTITIONS)), "nothing is acknowledged")
        for name, end in [("SIGKILL", lambda store: store.kill()), ("SIGTERM", lambda store: store.terminate())]:
            silences = []
            for number in range(options.rounds):
                store = cluster.stores[number % len(cluster.stores)]
                silences += one_round(cluster, producer, store, end)
            report[name] = {
                "appends wait for, median": round(statistics.median(silences), 3),
                "longest": round(max(silences), 3),
                "logs": len(silences),
            }
        producer.stop()
        report["records"] = check([producer], bootstraps, "failover", PARTITIONS)
    print(json.dumps(report, indent=1))
    killed = report["SIGKILL"]
    if killed["appends wait for, median"] > 1 or killed["longest"] > 3:
        sys.exit("appends waited for longer than 1 s in the median, or 3 s at worst")


if __name__ == "__main__":
    main()
