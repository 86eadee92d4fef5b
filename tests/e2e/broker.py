"""The system under test as a process: started, killed, restarted, measured."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("INTERFLOW_BIN", str(ROOT / "target/debug/interflow"))
PORTS = ["mqtt", "mqtts", "ws", "wss", "quic", "kafka", "kafkas", "admin"]
# Generous: it only decides how late a hang is reported.
PATIENCE = 60
# Where the brokers keep their metadata: embedded; remote, each in a server of its own; or fdb, each in a
# cluster of FoundationDB's stand-in, whose library INTERFLOW_TEST_FDB_LIBRARY names. The processes of a
# cluster share a server, or with fdb a cluster of the stand-in.
META = os.environ.get("INTERFLOW_TEST_META", "embedded")


class MetaServer:
    """`interflow meta serve` on a folder."""

    def __init__(self, folder, *arguments, env=None, host="127.0.0.1"):
        self.command = [BINARY, "meta", "serve", "--data-dir", folder, *arguments]
        self.env = {**os.environ, **(env or {})}
        self.start(f"{host}:0")
        self.flags = ["--meta", self.address]

    def start(self, listen=None):
        """Starts it, again where it was."""
        listen = listen or self.address.removeprefix("remote:")
        command = [*self.command, "--listen", listen]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=self.env
        )
        line = self.process.stdout.readline()
        assert line.startswith("serving"), f"the metadata server ended: {line}"
        self.address = "remote:" + line.split()[-1]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class SharedFdb(MetaServer):
    """A cluster of the stand-in for several processes, which has its data in such a server."""

    def __init__(self, folder):
        super().__init__(folder)
        self.flags = fdb_flags(folder, "shared", self.address.removeprefix("remote:"))


def fdb_flags(folder, description="durable", address="127.0.0.1:4500"):
    """The flags that name a new cluster of the stand-in; one called `durable` keeps its data in the folder."""
    file = pathlib.Path(folder) / "fdb.cluster"
    file.write_text(f"{description}:test@{address}\n")
    return ["--meta", f"fdb:{file}", "--fdb-library", os.environ["INTERFLOW_TEST_FDB_LIBRARY"]]


class Broker:
    """`interflow standalone` on a folder. Ports are chosen at the first start and kept over restarts."""

    # Where its clients reach it.
    host = "localhost"

    def __init__(self, *arguments, settings=None, data_dir=None, meta=META):
        self.arguments = arguments
        self.settings = {"INTERFLOW_KAFKA__GROUP_INITIAL_REBALANCE_DELAY_MS": "0", **(settings or {})}
        self.folder = tempfile.mkdtemp(prefix="interflow-test-")
        self.data_dir = data_dir or os.path.join(self.folder, "data")
        self.ports = {}
        self.ca = None
        self.output = []
        self.process = None
        self.meta = MetaServer(os.path.join(self.folder, "meta")) if meta == "remote" else None
        if self.meta:
            self.arguments = [*self.meta.flags, *arguments]
        elif meta == "fdb":
            self.arguments = [*fdb_flags(self.folder), *arguments]
        self.start()

    def command(self):
        command = [BINARY, "standalone", "--data-dir", self.data_dir, *self.arguments]
        for name in PORTS:
            command += [f"--{name}-port", str(self.ports.get(name, 0))]
        return command

    def start(self):
        self.errors = open(os.path.join(self.folder, "stderr"), "ab")
        self.process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **self.settings},
        )
        for line in self.process.stdout:
            self.output.append(line.rstrip("\n"))
            words = line.split()
            if words[:1] == ["listening"]:
                self.ports.setdefault(words[1], int(words[2].rsplit(":", 1)[1]))
            elif "dev-tls CA:" in line:
                self.ca = line.split("dev-tls CA:", 1)[1].strip()
            elif words == ["ready"]:
                break
        else:
            self.process.wait()
            raise AssertionError(f"the broker ended before it was ready:\n{self.log()}")
        # Read to the end, so that the broker never blocks on its output.
        threading.Thread(target=self._drain, args=[self.process], daemon=True).start()

    def _drain(self, process):
        for line in process.stdout:
            self.output.append(line.rstrip("\n"))

    def port(self, name):
        return self.ports[name]

    @property
    def bootstrap(self):
        return f"{self.host}:{self.ports['kafka']}"

    def log(self):
        with open(os.path.join(self.folder, "stderr"), errors="replace") as errors:
            return "\n".join(self.output[-20:]) + "\n" + errors.read()[-4000:]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def terminate(self):
        """SIGTERM; returns the exit code and the seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE), time.monotonic() - started

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def alive(self):
        return self.process.poll() is None

    def close(self):
        if self.alive():
            self.kill()
        if self.meta:
            self.meta.close()
        self.errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def interflow(*arguments, stdin=None, check=True, env=None):
    """Runs a subcommand; returns the finished process."""
    done = subprocess.run(
        [BINARY, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **(env or {})},
    )
    if check and done.returncode != 0:
        raise AssertionError(f"interflow {arguments}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done
