"""A network in one machine: a network namespace for each process and one for the clients, joined by a bridge.

What goes from one namespace to another can be cut or lost, in one direction alone. Needs root, `ip` and `nft`. A
namespace is kept by its descriptor: nothing is left when the process that made it ends, however it ends.
"""

import contextlib
import ctypes
import os
import subprocess
import threading

CLONE_NEWNET = 0x40000000
SUBNET = "10.213.77"

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _current():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """A network namespace with an address."""

    def __init__(self, address):
        self.address, self.descriptor = address, None
        # On a thread of its own, which ends with it: nothing has to be undone.
        maker = threading.Thread(target=self._make)
        maker.start()
        maker.join()
        assert self.descriptor is not None, "no network namespace could be made (is this root?)"
        with self.inside():
            run("ip", "link", "set", "lo", "up")

    def _make(self):
        _checked(_libc.unshare(CLONE_NEWNET))
        self.descriptor = _current()

    @property
    def path(self):
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @contextlib.contextmanager
    def inside(self):
        """The thread, and all that it starts, are in it."""
        before = _current()
        try:
            _checked(_libc.setns(self.descriptor, CLONE_NEWNET))
            yield
        finally:
            _checked(_libc.setns(before, CLONE_NEWNET))
            os.close(before)

    def close(self):
        os.close(self.descriptor)


class Network:
    """The bridge, in the namespace of the clients, and the namespaces on it."""

    def __init__(self):
        self.clients = Namespace(f"{SUBNET}.1")
        self.others = []
        with self.clients.inside():
            run("ip", "link", "add", "bridge", "type", "bridge")
            run("ip", "address", "add", f"{self.clients.address}/24", "dev", "bridge")
            run("ip", "link", "set", "bridge", "up")

    def join(self):
        """A new namespace on the bridge."""
        number = len(self.others) + 2
        joined = Namespace(f"{SUBNET}.{number}")
        self.others.append(joined)
        port = f"port{number}"
        with self.clients.inside():
            run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", joined.path)
            run("ip", "link", "set", port, "master", "bridge", "up")
        with joined.inside():
            run("ip", "address", "add", f"{joined.address}/24", "dev", "eth0")
            run("ip", "link", "set", "eth0", "up")
            run("nft", "add table ip faults; add chain ip faults in { type filter hook input priority 0; }")
        return joined

    def cut(self, sender, receiver):
        """Nothing that `sender` sends gets to `receiver` any more; the other direction stays."""
        self._drop(sender, receiver, "")

    def lose(self, sender, receiver, percent):
        """Packets on that way are lost at random."""
        self._drop(sender, receiver, f"numgen random mod 100 < {percent}")

    def _drop(self, sender, receiver, condition):
        with receiver.inside():
            run("nft", f"add rule ip faults in ip saddr {sender.address} {condition} counter drop")

    def dropped(self):
        """Packets that were dropped since the last time that all was healed."""
        count = 0
        for joined in self.others:
            with joined.inside():
                words = run("nft", "list chain ip faults in").split()
            count += sum(int(words[at + 1]) for at, word in enumerate(words) if word == "packets")
        return count

    def heal(self):
        for joined in self.others:
            with joined.inside():
                run("nft", "flush chain ip faults in")

    def close(self):
        for joined in [*self.others, self.clients]:
            joined.close()


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
