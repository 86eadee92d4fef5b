"""A standalone reaches its metadata over mutual TLS, and says what is wrong where it can't."""

import socket
import subprocess

import pytest

import kafka_clients
import mqtt_clients
from broker import Broker, MetaServer
from test_standalone import any_ports, refused

TOKEN = "a-token-of-the-test"


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_ca(folder, name):
    openssl(
        folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", f"/CN={name}", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.pem",
    )  # fmt: skip


def make_certificate(folder, ca, name, extension):
    openssl(
        folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
    )  # fmt: skip
    (folder / f"{name}.ext").write_text(extension)
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key",
        "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
    )  # fmt: skip


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A server that demands certificates of `ca` and a token; the folder has these, and those of `other`."""
    folder = tmp_path_factory.mktemp("tls")
    for ca in ["ca", "other"]:
        make_ca(folder, ca)
        make_certificate(folder, ca, f"{ca}-client", "extendedKeyUsage=clientAuth\n")
    make_certificate(folder, "ca", "server", "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "wrong-token").write_text("another-token-of-the-test\n")
    tls = [f"--tls-cert={folder}/server.pem", f"--tls-key={folder}/server.key", f"--tls-client-ca={folder}/ca.pem"]
    server = MetaServer(str(folder / "meta"), "--token-file", str(folder / "token"), *tls)
    yield server, folder
    server.close()


def flags(address, folder, ca="ca", client="ca-client", token="token"):
    """What a standalone is told of the server."""
    given = ["--meta", address]
    if ca:
        given += ["--meta-tls-ca", f"{folder}/{ca}.pem"]
    if client:
        given += ["--meta-tls-cert", f"{folder}/{client}.pem", "--meta-tls-key", f"{folder}/{client}.key"]
    if token:
        given += ["--meta-token-file", f"{folder}/{token}"]
    return given


def test_messages_over_a_secured_store(secured):
    server, folder = secured
    host, port = "localhost", server.address.rsplit(":", 1)[1]
    with Broker(*flags(f"remote:{host}:{port}", folder), meta="embedded") as broker:
        kafka_clients.create_topic(broker, "secured")
        kafka_clients.produce("confluent", broker, "secured", "key", "value")
        mqtt_clients.publish("paho-5", broker, "kept", "message", 1)
        assert broker.terminate()[0] == 0
        # The same by a file and by variables; the certificate is for the address too.
        file = folder / "interflow.toml"
        file.write_text(f'[meta]\nstore = "{server.address}"\ntls_ca = "{folder}/ca.pem"\n')
        broker.arguments = ["--config", str(file)]
        broker.settings["INTERFLOW_META__TLS_CERT"] = f"{folder}/ca-client.pem"
        broker.settings["INTERFLOW_META__TLS_KEY"] = f"{folder}/ca-client.key"
        broker.settings["INTERFLOW_META_TOKEN"] = TOKEN
        broker.start()
        assert kafka_clients.consume("confluent", broker, "secured", "key") == ["value"]
        assert kafka_clients.consume("confluent", broker, "mqtt", "kept") == ["message"]


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({"ca": "other"}, ["UnknownIssuer"]),
        ({"client": "other-client"}, ["does it take the certificate that it is shown?"]),
        ({"client": None}, ["does it demand a certificate?"]),
        ({"token": "wrong-token"}, ["the token is wrong"]),
        ({"token": None}, ["a token is needed"]),
        ({"ca": None, "client": None}, ["does it speak TLS?"]),
    ],
    ids=["ca", "client", "no-client", "token", "no-token", "no-tls"],
)
def test_what_the_server_refuses_is_told(secured, tmp_path, changed, expected):
    server, folder = secured
    message = told(tmp_path, *flags(server.address, folder, **changed))
    assert server.address.removeprefix("remote:") in message, message
    for part in expected:
        assert part in message, message


def test_a_server_that_is_not_there_is_told(secured, tmp_path):
    _, folder = secured
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # It takes connections, and says nothing.
        message = told(tmp_path, *flags(f"remote:127.0.0.1:{port}", folder))
        assert f"127.0.0.1:{port}" in message, message
    message = told(tmp_path, *flags(f"remote:127.0.0.1:{port}", folder))
    assert f"127.0.0.1:{port}" in message and "refused" in message, message


def told(tmp_path, *arguments):
    """What a start says that ends by itself, within PATIENCE."""
    message = refused("--data-dir", str(tmp_path / "data"), *arguments, *any_ports())
    assert "panicked" not in message, message
    return message
