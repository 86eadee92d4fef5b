"""The compose files of a cluster, and the units of its roles, fit the binary; the cluster for development starts
as its file says, on loopback."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import threading

import pytest

from broker import BINARY, PATIENCE, ROOT, interflow
from cluster import until
from deployed import (
    DEPLOY, ECHO, STOP_SECONDS, check_flags, check_variables, compose, dockerfile, run_script, settings, undollared,
)  # fmt: skip

FILES = ["compose.cluster.yaml", "compose.dev.yaml"]
ROLES = {"logstore1": "logstore", "logstore2": "logstore", "logstore3": "logstore", "gateway1": "gateway", "gateway2": "gateway"}
UNITS = ["logstore", "gateway", "meta"]


def command_of(service, folder):
    """What a service starts in the end."""
    if service["command"][0] == "interflow":
        return service["command"]
    shell, option, script, *arguments = service["command"]
    assert (shell, option) == ("sh", "-c")
    done = run_script(folder, undollared(script), service["environment"], *arguments, interflow=ECHO)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("file", FILES)
def test_compose_starts_what_the_binary_takes(file, tmp_path):
    whole = compose(file)
    services, logstores, outside = whole["services"], set(), []
    for name, role in ROLES.items():
        service = services[name]
        command = command_of(service, tmp_path)
        assert command[:2] == ["interflow", role]
        variables = {**dockerfile()[0], **service["environment"]}
        found = settings(command, variables)
        check_variables(found, variables)
        # Its secrets are where it looks for them.
        files = {value for key, (value, _) in found.items() if key.endswith("token_file") and value}
        assert files == {f"/run/secrets/{secret}" for secret in service["secrets"]}
        assert set(service["secrets"]) <= whole["secrets"].keys()
        assert found["logstore.token_file"][0]
        assert int(service["stop_grace_period"].removesuffix("s")) > STOP_SECONDS
        assert service["healthcheck"]["test"] == ["CMD", "interflow-probe", "/readyz"]
        assert found["ports.admin"] == (8090, "default")
        if role == "logstore":
            logstores.add(found["node.id"][0])
            assert found["logstore.listen"][0] == "0.0.0.0:7071"
            assert found["logstore.advertise"][0] == f"{name}:7071"
            assert service["volumes"] == [f"{name}:{found['data_dir'][0]}"] and name in whole["volumes"]
            assert "ports" not in service
            continue
        assert found["listen"][0] == ["0.0.0.0"] and found["allow_anonymous"][0] is True
        ports = {key: value for key, (value, _) in found.items() if key.startswith("ports.")}
        for published in service["ports"]:
            host, port, inside = published.split(":")
            assert host == "127.0.0.1" and int(inside) in ports.values()
            outside.append(port)
            # Kafka clients are told the port that it listens on.
            assert int(inside) != ports["ports.kafka"] or port == inside
        assert {int(published.split(":")[2]) for published in service["ports"]} == {ports[f"ports.{key}"] for key in ("mqtt", "ws", "kafka")}
    assert logstores == {1, 2, 3} and len(set(outside)) == len(outside) == 6
    for service in services.values():
        assert set(service.get("depends_on", [])) <= services.keys()
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in whole["volumes"]


def test_compose_cluster_has_the_foundationdb_of_the_other_file():
    whole, other = compose("compose.cluster.yaml"), compose("compose.yaml")
    assert whole["x-cluster"] == other["x-cluster"]
    assert whole["networks"]["fdb"] == other["networks"]["fdb"]
    for name, service in other["services"].items():
        if name.startswith("fdb"):
            assert whole["services"][name] == {"extends": {"file": "compose.yaml", "service": name}}
            assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= whole["volumes"].keys()
    for name in ROLES:
        service = whole["services"][name]
        assert service["build"]["args"]["FEATURES"] == "fdb" and "fdb" in service["networks"]
        assert service["environment"]["CLUSTER"] == other["x-cluster"]


class Container:
    """A service's process, without a container: what it names is elsewhere."""

    def __init__(self, service, elsewhere, *more):
        def translate(text):
            for name, here in elsewhere.items():
                text = text.replace(name, here)
            return text

        command = [BINARY, *map(translate, service["command"][1:]), *more]
        variables = {**dockerfile()[0], **service["environment"]}
        env = {**os.environ, **{name: translate(value) for name, value in variables.items()}}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        self.errors, self.admin = [], None
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def ready(self):
        for line in self.process.stdout:
            if line.startswith("listening admin 127."):
                self.admin = line.rsplit(":", 1)[1].strip()
            if line == "ready\n" or line.startswith("serving"):
                return self
        raise AssertionError("".join(self.errors))

    def probe(self, path):
        env = {**os.environ, "INTERFLOW_PORTS__ADMIN": self.admin}
        return subprocess.run([DEPLOY / "interflow-probe", path], env=env, timeout=PATIENCE).returncode

    def end(self):
        self.process.terminate()
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return code


def brokers(bootstrap):
    """What a Kafka client is told."""
    command = ["kcat", "-b", bootstrap, "-L", "-J"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    return {broker["name"] for broker in json.loads(told.stdout)["brokers"]}


def test_dev_cluster_runs_as_its_file_says(tmp_path):
    """Every container has an address of loopback; the gateways share the host's, at the ports that are published."""
    # Of this process, as long as others run their own.
    net = f"127.{100 + os.getpid() % 100}.{os.getpid() // 100 % 256}"
    host = f"{net}.9"
    services = compose("compose.dev.yaml", ADVERTISE=host)["services"]
    for secret in ("logstore-token", "meta-token"):
        (tmp_path / secret).write_text(f"{secret}-0123456789abcdef\n")
    names = {"/run/secrets": str(tmp_path), "remote:meta:": f"remote:{net}.4:"}
    names |= {f"logstore{number}:": f"{net}.{number}:" for number in (1, 2, 3)}
    running, containers = {}, []

    def start(name, address, *more):
        folder = tmp_path / name
        folder.mkdir()
        elsewhere = {**names, "0.0.0.0": address, "/var/lib/interflow": str(folder)}
        running[name] = Container(services[name], elsewhere, *more)
        containers.append(running[name])

    try:
        start("meta", f"{net}.4")
        running["meta"].ready()
        kind, *healthcheck = services["meta"]["healthcheck"]["test"]
        assert kind == "CMD"
        healthcheck[-1] = healthcheck[-1].replace("127.0.0.1", f"{net}.4")
        assert subprocess.run(healthcheck, timeout=PATIENCE).returncode == 0
        healthcheck[-1] = healthcheck[-1].replace("7070", "7069")
        assert subprocess.run(healthcheck, timeout=PATIENCE, stderr=subprocess.DEVNULL).returncode != 0
        for number in (1, 2, 3):
            start(f"logstore{number}", f"{net}.{number}", "--admin-port", "0")
        for number in (1, 2, 3):
            assert running[f"logstore{number}"].ready().probe("/readyz") == 0
        for name in ("gateway1", "gateway2"):
            (_, mqtt, _), (_, ws, _), _ = (published.split(":") for published in services[name]["ports"])
            start(name, host, "--admin-port", "0", "--mqtt-port", mqtt, "--ws-port", ws)
        for name in ("gateway1", "gateway2"):
            assert running[name].ready().probe("/readyz") == 0
            assert running[name].probe("/healthz") == 0
            assert running[name].probe("/nothing") != 0

        # What a client writes at one gateway, it reads by way of both.
        interflow("pub", "-b", f"{host}:1883", "-t", "sensors/1", "-m", "21")
        command = ["kcat", "-b", f"{host}:9094", "-C", "-t", "mqtt", "-o", "beginning", "-c", "1", "-K:"]
        read = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert read.stdout == "sensors/1:21\n", read.stderr
        both = {f"{host}:9092", f"{host}:9094"}
        until(lambda: brokers(f"{host}:9092") == both == brokers(f"{host}:9094"), "not all gateways are told")
        # Once there are users, `--allow-anonymous` lets nobody in without a password.
        interflow("user", "add", "ann", "--admin", f"127.0.0.1:{running['gateway1'].admin}", stdin="s3cret\n")
        refused = interflow("pub", "-b", f"{host}:1883", "-t", "sensors/1", "-m", "21", check=False)
        assert refused.returncode != 0
        # Nobody can take the logs of the last ones, so that they end within the time for it, at once.
        meta = running.pop("meta")
        for container in running.values():
            container.process.terminate()
        for container in [*running.values(), meta]:
            assert container.end() == 0, "".join(container.errors)
    finally:
        for container in containers:
            if container.process.poll() is None:
                container.process.kill()
                container.process.wait()


def environment_file(text):
    """The lines of an environment file, those that are but suggested too."""
    lines = re.findall(r"^#?([A-Z][A-Z_]*)=(.*)$", text, re.M)
    return [(name, shlex.split(value)[0]) for name, value in lines]


@pytest.mark.parametrize("role", UNITS)
def test_unit_starts_what_the_binary_takes(role):
    unit = (DEPLOY / f"systemd/interflow-{role}.service").read_text()
    command = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.M)[1])
    command[0] = pathlib.Path(command[0]).name
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1])
    assert stop > (STOP_SECONDS if role == "logstore" else 10)
    example = environment_file((DEPLOY / f"systemd/{role}.env").read_text())
    assert re.search(rf"^EnvironmentFile=-?/etc/interflow/{role}.env$", unit, re.M)
    folder = re.search(r"^StateDirectory=(\S+)$", unit, re.M)[1]
    credentials = set(re.findall(r"^LoadCredential=([\w-]+):/etc/interflow/\1$", unit, re.M))
    variables = dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.M))
    if role == "meta":
        check_flags(command)
        assert command[1:3] == ["meta", "serve"] and command[4] == f"/var/lib/{folder}"
        assert variables.keys() == {"META_LISTEN"} == {name for name, _ in example}
        assert "${CREDENTIALS_DIRECTORY}/meta-token" in command and credentials == {"meta-token"}
        return
    assert command == ["interflow", role]
    assert variables["INTERFLOW_LOGSTORE__TOKEN_FILE"] == "%d/logstore-token" and credentials == {"logstore-token"}
    # The first value of each is the one that it begins with.
    began = dict(reversed(example))
    found = settings(command, {**began, **variables})
    check_variables(found, {**began, **variables})
    assert found["meta.store"][0] == f"fdb:/var/lib/{folder}/fdb.cluster"
    if role == "logstore":
        assert found["data_dir"][0] == f"/var/lib/{folder}"
        assert found["node.id"][0] == 1 and found["logstore.advertise"][0].endswith(":7071")
    else:
        assert found["listen"][0] == ["0.0.0.0", "::"]
    for name, value in example:
        settings(command, {**began, **variables, name: value})


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
@pytest.mark.parametrize("unit", ["interflow", *(f"interflow-{role}" for role in UNITS)])
def test_systemd_takes_the_unit(unit, tmp_path):
    file = tmp_path / f"{unit}.service"
    text = (DEPLOY / f"systemd/{unit}.service").read_text()
    file.write_text(text.replace("/usr/local/bin/interflow", str(pathlib.Path(ROOT, BINARY))))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and str(tmp_path) not in done.stderr, done.stderr
