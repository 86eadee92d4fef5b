"""What is in `deploy/` fits the binary and FoundationDB's image, as far as that shows without a container
engine; with one, its own check of the compose file runs too."""

import ipaddress
import pathlib
import re
import shlex
import subprocess

import pytest

from deployed import DEPLOY, ECHO, check_variables, compose, dockerfile, run_script, settings, undollared

COMPOSE = compose("compose.yaml")
SERVICES = COMPOSE["services"]
# What the image foundationdb/foundationdb:7.3 reads (its Dockerfile and fdb.bash), and its port.
FDB_VARIABLES = {
    "FDB_PORT", "FDB_CLUSTER_FILE", "FDB_NETWORKING_MODE", "FDB_COORDINATOR", "FDB_COORDINATOR_PORT",
    "FDB_CLUSTER_FILE_CONTENTS", "FDB_PROCESS_CLASS", "FDB_IP_VERSION", "PUBLIC_IP", "LISTEN_IP",
}  # fmt: skip
FDB_PORT = 4500
FDB_SERVERS = {name: service for name, service in SERVICES.items() if re.fullmatch(r"fdb\d", name)}


def has_compose():
    try:
        return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not has_compose(), reason="docker compose is not here")
@pytest.mark.parametrize("file", ["compose.yaml", "compose.cluster.yaml", "compose.dev.yaml"])
def test_compose_takes_the_file(file):
    command = ["docker", "compose", "-f", str(DEPLOY / file), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_image_starts_what_the_binary_takes():
    variables, command = dockerfile()
    found = settings(command, variables)
    check_variables(found, variables)
    assert found["data_dir"][0] == "/var/lib/interflow"


def test_unit_starts_what_the_binary_takes(tmp_path):
    unit = (DEPLOY / "systemd/interflow.service").read_text()
    command = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.M)[1])
    command[0] = pathlib.Path(command[0]).name
    variables = dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.M))
    # Its configuration file is the operator's.
    file = tmp_path / "interflow.toml"
    file.touch()
    assert variables.pop("INTERFLOW_CONFIG").endswith("/interflow.toml")
    check_variables(settings(command, {**variables, "INTERFLOW_CONFIG": str(file)}), variables)


def test_compose_starts_interflow_on_the_cluster(tmp_path):
    service = SERVICES["interflow"]
    shell, option, script = service["command"]
    assert (shell, option) == ("sh", "-c")
    script = undollared(script)
    file = tmp_path / "fdb.cluster"
    for _ in range(2):
        done = run_script(tmp_path, script, service["environment"], interflow=ECHO)
        assert done.returncode == 0, done.stderr
        assert file.read_text() == COMPOSE["x-cluster"] + "\n"
    # What FoundationDB's client has written since stays.
    file.write_text("changed\n")
    run_script(tmp_path, script, service["environment"], interflow="")
    assert file.read_text() == "changed\n"

    variables = {**dockerfile()[0], **service["environment"]}
    found = settings(done.stdout.splitlines(), variables)
    check_variables(found, variables)
    assert found["meta.store"][0] == "fdb:/var/lib/interflow/fdb.cluster"
    # Every port that is published is one that it listens on, at an address that is.
    assert found["listen"][0] == ["0.0.0.0"] and found["allow_anonymous"][0] is True
    ports = {value for name, (value, _) in found.items() if name.startswith("ports.")}
    for published in service["ports"]:
        host, outside, inside = published.split(":")
        assert host == "127.0.0.1" and outside == inside and int(inside) in ports, published
    data_dir = found["data_dir"][0]
    assert f"interflow:{data_dir}" in service["volumes"]


def test_compose_names_the_coordinators():
    description, coordinators = COMPOSE["x-cluster"].split("@")
    assert re.fullmatch(r"\w+:[A-Za-z0-9]+", description), description
    networks = COMPOSE["networks"]["fdb"]["ipam"]["config"]
    subnet = ipaddress.ip_network(networks[0]["subnet"])
    addresses = [ipaddress.ip_address(server["networks"]["fdb"]["ipv4_address"]) for server in FDB_SERVERS.values()]
    assert len(set(addresses)) == 3 and all(address in subnet for address in addresses)
    assert coordinators.split(",") == [f"{address}:{FDB_PORT}" for address in addresses]
    for name, server in FDB_SERVERS.items():
        assert server["environment"].keys() <= FDB_VARIABLES
        assert server["environment"]["FDB_CLUSTER_FILE_CONTENTS"] == COMPOSE["x-cluster"]
        assert server["environment"]["FDB_NETWORKING_MODE"] == "container"
        assert server["volumes"] == [f"{name}:/var/fdb/data"] and name in COMPOSE["volumes"]
        assert server["hostname"] == name
    for service in SERVICES.values():
        assert set(service["networks"]) <= {*COMPOSE["networks"], "default"}
        assert set(service.get("depends_on", [])) <= SERVICES.keys()


def test_compose_makes_a_database_once(tmp_path):
    service = SERVICES["fdb-configure"]
    assert service["entrypoint"] == ["/bin/bash", "-c"]
    (script,) = service["command"]
    # It is there after the second attempt to make it.
    fdbcli = """
      cmp -s "$FDB_CLUSTER_FILE" <(echo "$FDB_CLUSTER_FILE_CONTENTS") || exit 3
      echo "$*" >> "$FDB_CLUSTER_FILE.calls"
      made=$(grep -c 'configure new' "$FDB_CLUSTER_FILE.calls")
      case "$*" in
        *'status minimal'*) if ((made < 2)); then echo 'The database is unavailable; type `status'"'"' for more.'; else echo 'The database is available.'; fi ;;
        *) ((made == 2)) ;;
      esac
    """
    variables = {**service["environment"], "FDB_CLUSTER_FILE": str(tmp_path / "fdb.cluster")}
    assert service["environment"].keys() <= FDB_VARIABLES
    done = run_script(tmp_path, undollared(script), variables, fdbcli=fdbcli)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "fdb.cluster.calls").read_text().splitlines()
    status, configure = "--timeout 10 --exec status minimal", "--timeout 30 --exec configure new double ssd"
    assert calls == [status, configure, status, configure, status]
    assert SERVICES["interflow"]["depends_on"]["fdb-configure"] == {"condition": "service_completed_successfully"}
