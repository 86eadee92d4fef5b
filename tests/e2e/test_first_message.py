"""The first thing that somebody does: one command, then a message each way, with default ports.

In a network namespace of its own, so that the ports are free whatever else runs on the machine.
"""

import subprocess

from broker import BINARY, META, fdb_flags

SCRIPT = r"""
set -euo pipefail
ip link set lo up
cd "$1"
"$2" standalone "${@:3}" > output 2> errors &
broker=$!
trap 'kill $broker; wait $broker' EXIT
until grep -qx ready output; do kill -0 $broker; sleep 0.05; done

kcat -b localhost -t mqtt -C -K: -u > from-mqtt 2> kcat-errors &
mosquitto_pub -t sensors/1/temp -m 21 -q 1
until grep -qx 'sensors/1/temp:21' from-mqtt; do kill -0 $!; sleep 0.05; done

stdbuf -oL mosquitto_sub -d -t 'sensors/#' -F 'got %t:%p' > from-kafka &
until grep -q Subscribed from-kafka; do kill -0 $!; sleep 0.05; done
echo sensors/2/temp:22 | kcat -b localhost -P -t mqtt -K:
until grep -qx 'got sensors/2/temp:22' from-kafka; do kill -0 $!; sleep 0.05; done
kill %2 %3
"""


def test_first_message_each_way(tmp_path):
    (tmp_path / "fdb").mkdir()
    flags = fdb_flags(tmp_path / "fdb") if META == "fdb" else []
    script = ["bash", "-c", SCRIPT, "bash", tmp_path, BINARY, *flags]
    done = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--kill-child", *script],
        capture_output=True,
        text=True,
        timeout=120,
    )
    seen = "".join(f"-- {file.name}\n{file.read_text()}" for file in tmp_path.iterdir() if file.is_file())
    assert done.returncode == 0, done.stderr + seen
