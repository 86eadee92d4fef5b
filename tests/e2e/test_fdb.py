"""`--meta fdb`: what FoundationDB needs that isn't there is told, in bounded time."""

import ctypes.util
import os

import pytest

import mqtt_clients
from broker import Broker, fdb_flags, interflow
from test_standalone import any_ports, refused

pytestmark = pytest.mark.usefixtures("fdb")


def told(tmp_path, flags):
    """What a start with `flags` says, within PATIENCE; no journal is made before the metadata is there."""
    message = refused("--data-dir", str(tmp_path / "data"), *flags, *any_ports())
    assert "panicked" not in message, message
    assert list((tmp_path / "data" / "journal").iterdir()) == []
    return message


def test_no_library(tmp_path):
    meta = fdb_flags(tmp_path)[:2]
    missing = str(tmp_path / "libfdb_c.so")
    message = told(tmp_path, [*meta, "--fdb-library", missing])
    assert missing in message and "install FoundationDB's client" in message, message
    message = told(tmp_path, [*meta, "--fdb-library", "libc.so.6"])
    assert "libc.so.6 lacks fdb_" in message, message
    if has_library():
        pytest.skip("the system has the library")
    message = told(tmp_path, meta)
    assert "libfdb_c.so" in message and "--fdb-library" in message, message


def has_library():
    return ctypes.util.find_library("fdb_c") is not None


def test_no_cluster_file(tmp_path):
    missing = str(tmp_path / "nothing")
    message = told(tmp_path, ["--meta", f"fdb:{missing}", *fdb_flags(tmp_path)[2:]])
    assert f"no cluster file {missing}" in message, message


@pytest.mark.parametrize("content", ["", "hello\n", "a:b@nowhere\n", "a b:c@127.0.0.1:4500\n"])
def test_a_file_that_is_no_cluster_file(tmp_path, content):
    flags = fdb_flags(tmp_path)
    (tmp_path / "fdb.cluster").write_text(content)
    message = told(tmp_path, flags)
    assert str(tmp_path / "fdb.cluster") in message and "Connection string invalid" in message, message


def test_a_cluster_that_does_not_answer(tmp_path):
    message = told(tmp_path, fdb_flags(tmp_path, "unreachable"))
    assert str(tmp_path / "fdb.cluster") in message and "has not answered within 10 s" in message, message


def test_the_tools_see_what_the_broker_wrote():
    with Broker() as broker:
        mqtt_clients.publish("paho-5", broker, "kept", "message", 1)
        flags = broker.arguments
        assert broker.terminate()[0] == 0
        checked = interflow("meta", "check", *flags).stdout
        assert "0 problems" in checked and "topic " in checked, checked
        shown = interflow("meta", "upgrade", "--dry-run", *flags).stdout
        assert "nothing is to be raised" in shown, shown
        # A folder's messages are kept from a cluster that doesn't know them.
        other = os.path.join(broker.folder, "other")
        os.mkdir(other)
        message = refused("--data-dir", broker.data_dir, *fdb_flags(other), *any_ports())
        assert broker.data_dir in message and "belong" in message, message
        broker.start()
