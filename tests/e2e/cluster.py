"""A cluster as processes: metadata that they share, log stores and gateways on loopback."""

import json
import os
import shutil
import tempfile
import time
import urllib.request

from broker import BINARY, META, PATIENCE, PORTS, Broker, MetaServer, SharedFdb, interflow

# Short, so that the dead are missed soon; long enough for a busy machine.
LEASE_MS = "3000"


class Role(Broker):
    """A process of a cluster. Ports are chosen at its first start and kept over restarts."""

    def __init__(self, meta, *arguments, settings=None):
        self.arguments = [*meta.flags, "--lease-ms", LEASE_MS, *arguments]
        self.settings = {
            "INTERFLOW_KAFKA__GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "INTERFLOW_STORAGE__DEFAULT_REPLICATION_FACTOR": "1",
            **(settings or {}),
        }
        self.folder = tempfile.mkdtemp(prefix="interflow-test-")
        self.data_dir = os.path.join(self.folder, "data")
        self.ports, self.ca, self.output, self.process, self.meta = {}, None, [], None, None
        self.start()

    @property
    def node(self):
        """The id under which it registered last."""
        return [int(line.split()[1]) for line in self.output if line.startswith("node ")][-1]

    @property
    def admin(self):
        return ["--admin", f"127.0.0.1:{self.port('admin')}"]

    def nodes(self):
        """The nodes as this process sees them, by id."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port('admin')}/v1/nodes", timeout=PATIENCE) as answer:
            return {node["id"]: node for node in json.load(answer)}


class LogStore(Role):
    listen_host = "127.0.0.1"

    def __init__(self, meta, node_id, *arguments, **more):
        self.node_id = node_id
        super().__init__(meta, *arguments, **more)

    def command(self):
        return [
            BINARY, "logstore", "--data-dir", self.data_dir, "--node-id", str(self.node_id),
            "--logstore-listen", f"{self.listen_host}:{self.ports.get('logstore', 0)}",
            "--admin-port", str(self.ports.get("admin", 0)), *self.arguments,
        ]  # fmt: skip


class Gateway(Role):
    def command(self):
        command = [BINARY, "gateway", *self.arguments]
        for name in PORTS:
            command += [f"--{name}-port", str(self.ports.get(name, 0))]
        return command


class Cluster:
    """Shared metadata, log stores in racks of their own, and gateways."""

    def __init__(self, stores=2, gateways=2, settings=None):
        self.folder = tempfile.mkdtemp(prefix="interflow-test-")
        self.meta = self.new_meta()
        self.stores, self.gateways = [], []
        try:
            for node in range(1, stores + 1):
                self.stores.append(self.new_store(node, "--rack", f"rack-{node}", settings=settings))
            for _ in range(gateways):
                self.gateways.append(self.new_gateway(settings=settings))
        except BaseException:
            self.close()
            raise

    def new_meta(self):
        return (SharedFdb if META == "fdb" else MetaServer)(os.path.join(self.folder, "meta"))

    def new_store(self, node, *arguments, **more):
        return LogStore(self.meta, node, *arguments, **more)

    def new_gateway(self, **more):
        return Gateway(self.meta, **more)

    def describe(self, topic):
        """The lines of `interflow log describe`."""
        return interflow("log", "describe", topic, *self.gateways[0].admin).stdout.splitlines()

    def close(self):
        for role in self.gateways + self.stores:
            role.close()
        self.meta.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def until(is_so, what):
    """Asks again until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := is_so()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return answer


__all__ = ["Cluster", "Gateway", "LogStore", "interflow", "until"]
