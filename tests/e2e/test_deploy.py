"""What is in `deploy/` is well-formed, as far as that shows without a container engine."""

import pathlib
import subprocess

import pytest

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"


def has_compose():
    try:
        return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not has_compose(), reason="docker compose is not here")
def test_compose_file():
    command = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
