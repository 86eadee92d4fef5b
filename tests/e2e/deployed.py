"""What is in `deploy/`, and whether the binary takes it."""

import hashlib
import json
import os
import pathlib
import re
import subprocess

import yaml

from broker import PATIENCE, interflow

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
# Handing logs over takes a log store 5 s at a stop, its appends 4 s; connections get 5 s.
STOP_SECONDS = 5 + 4 + 5


def compose(name, **variables):
    """A compose file, with the variables of whoever calls it; others have their defaults."""

    def value(match):
        return variables.get(match[1], match[2])

    text = (DEPLOY / name).read_text()
    return yaml.safe_load(re.sub(r"(?<!\$)\$\{(\w+):-([^}]*)\}", value, text))


def dockerfile():
    """The last stage's variables and command."""
    variables, command = {}, None
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("FROM "):
            variables, command = {}, None
        elif line.startswith("ENV "):
            name, value = line.removeprefix("ENV ").split("=", 1)
            variables[name] = value
        elif line.startswith("CMD "):
            command = json.loads(line.removeprefix("CMD "))
    return variables, command


def check_flags(command):
    """The binary has what the command names; returns the flags."""
    program, role, *flags = command
    assert program == "interflow", command
    roles = [role, flags.pop(0)] if role == "meta" else [role]
    known = interflow(*roles, "--help").stdout
    for flag in flags:
        assert not flag.startswith("--") or re.search(rf"^ +{flag}\b", known, re.M), f"there is no flag {flag}"
    return flags


def settings(command, variables):
    """Every setting as the command's role would have it: name → (value, source)."""
    rows = interflow("config", *check_flags(command), env=variables).stdout.splitlines()
    return {name: (json.loads(value), source) for name, value, source in (re.split(r" {2,}", row, maxsplit=2) for row in rows[1:])}


def check_variables(found, variables):
    """Each variable is a setting's."""
    sources = {source for _, source in found.values()}
    for name in variables:
        assert not name.startswith("INTERFLOW_") or f"variable {name}" in sources, f"{name} sets nothing"


def run_script(folder, script, variables, *arguments, shell="-c", paths=("/var/lib/interflow",), **stubs):
    """Runs a container's script with these programs in the place of the real ones, and the folder in that of its
    paths."""
    for name, text in stubs.items():
        stub = folder / name
        stub.write_text(f"#!/bin/bash\n{text}\n")
        stub.chmod(0o755)
    env = {**os.environ, **variables, "PATH": f"{folder}:{os.environ['PATH']}"}
    for path in paths:
        script = script.replace(path, str(folder))
    command = ["bash", shell, script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=env)


def undollared(script):
    """What compose makes of it: a doubled dollar sign is one, and a single one would be its own."""
    assert "$" not in script.replace("$$", "")
    return script.replace("$$", "$")


# Prints what it is called with, a line each.
ECHO = 'printf "%s\\n" interflow "$@"'


def digest(folder):
    """Of a folder's files, as `deploy/helm/render` has it."""
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
