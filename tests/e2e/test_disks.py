"""A log store whose disk is full, read-only or broken: its logs go on at others, and it comes back.

Under load as in `test_replication`, and checked as there. The disks are mounts: that needs root.
"""

import contextlib
import errno
import os
import pathlib
import subprocess
import tempfile

import pytest

from broker import PATIENCE
from cluster import Cluster, LogStore, until
from test_replication import Load, sequencers, store_of

MIB = 1 << 20
SETTINGS = {
    "INTERFLOW_STORAGE__DEFAULT_REPLICATION_FACTOR": "3",
    "INTERFLOW_STORAGE__EXTENT_BYTES": str(2 * MIB),
    "INTERFLOW_STORAGE__MIN_FREE_BYTES": str(4 * MIB),
    "INTERFLOW_STORAGE__MIN_FREE_PERCENT": "1",
}


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


class Memory:
    """A small disk in memory."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="interflow-disk-")
        run("mount", "-t", "tmpfs", "-o", f"size={256 * MIB}", "interflow-test", self.folder)
        self.ballast = pathlib.Path(self.folder, "ballast")

    def fill(self):
        """Nothing is free."""
        with open(self.ballast, "wb") as ballast:
            taken = 0
            while (space := os.statvfs(self.folder)).f_bavail:
                free = space.f_bavail * space.f_frsize
                try:
                    os.posix_fallocate(ballast.fileno(), taken, free)
                    taken += free
                except OSError as error:
                    # The store has taken some of it meanwhile.
                    if error.errno != errno.ENOSPC:
                        raise

    def empty(self):
        self.ballast.unlink()

    def close(self):
        run("umount", "--lazy", self.folder)
        os.rmdir(self.folder)


class Image:
    """A file system that goes read-only at its first error, as that of a disk that breaks does."""

    def __init__(self):
        self.place = tempfile.mkdtemp(prefix="interflow-disk-")
        self.image, self.folder = f"{self.place}/image", f"{self.place}/mounted"
        os.mkdir(self.folder)
        with open(self.image, "wb") as image:
            image.truncate(256 * MIB)
        run("mkfs.ext4", "-q", "-F", self.image)
        self.mount("rw")

    def mount(self, mode):
        run("mount", "-o", f"loop,{mode},errors=remount-ro", self.image, self.folder)
        self.device = run("findmnt", "-n", "-o", "SOURCE", "--mountpoint", self.folder)

    def unmount(self):
        run("umount", self.folder)

    def break_down(self):
        trigger = f"/sys/fs/ext4/{os.path.basename(self.device)}/trigger_fs_error"
        # It may say that the file system is read-only now.
        with contextlib.suppress(OSError):
            with open(trigger, "w") as file:
                file.write("a test")

    def repair(self):
        """As an operator would: checked, and mounted again."""
        self.unmount()
        assert subprocess.run(["e2fsck", "-f", "-y", self.image], capture_output=True).returncode in (0, 1)
        self.mount("rw")

    def close(self):
        run("umount", "--lazy", self.folder)
        os.unlink(self.image)
        os.rmdir(self.folder)
        os.rmdir(self.place)


class OnDisk(LogStore):
    def __init__(self, disk, *arguments, **more):
        self.disk = disk
        super().__init__(*arguments, **more)

    def start(self):
        self.data_dir = os.path.join(self.disk.folder, "data")
        super().start()

    def close(self):
        super().close()
        self.disk.close()


class ClusterOnDisks(Cluster):
    def __init__(self, kind, **more):
        self.kind = kind
        super().__init__(**more)

    def new_store(self, node, *arguments, **more):
        return OnDisk(self.kind(), self.meta, node, *arguments, **more)


@pytest.fixture(scope="module")
def in_memory():
    with ClusterOnDisks(Memory, stores=3, gateways=2, settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def in_images():
    with ClusterOnDisks(Image, stores=3, gateways=2, settings=SETTINGS) as running:
        yield running


def replicas(cluster, topic):
    """The nodes that each log's open segment is on."""
    rows = [line.split() for line in cluster.describe(topic) if " open " in line]
    return [{int(node) for node in row[4].split(",")} for row in rows]


def is_left(cluster, topic, store):
    """None of the topic's logs is there any more."""
    return all(store.node_id not in nodes for nodes in replicas(cluster, topic))


def is_back(cluster, topic):
    return all(len(nodes) == 3 for nodes in replicas(cluster, topic))


def is_full(cluster, store):
    """What others are told of it."""
    return cluster.gateways[0].nodes()[store.node_id]["is_full"]


def test_a_full_disk(in_memory, unique):
    cluster = in_memory
    with Load(cluster, unique("full")) as load:
        store = store_of(cluster, sequencers(cluster, load.topic)[0])
        store.disk.fill()
        until(lambda: is_full(cluster, store), "the full disk is not noticed")
        until(lambda: is_left(cluster, load.topic, store), "logs stay on the full disk")
        load.goes_on()
        store.disk.empty()
        until(lambda: not is_full(cluster, store), "it is not noticed that there is room again")
        load.goes_on()
        until(lambda: is_back(cluster, load.topic), "the node gets no replicas any more")
        load.goes_on()


def test_all_disks_are_full(in_memory, unique):
    cluster = in_memory
    with Load(cluster, unique("all-full")) as load:
        for store in cluster.stores:
            store.disk.fill()
        try:
            # With two of them nothing can be acknowledged any more, and nothing fills the third.
            until(lambda: sum(is_full(cluster, store) for store in cluster.stores) >= 2, "full disks are not noticed")
        finally:
            for store in cluster.stores:
                store.disk.empty()
        load.goes_on()
        until(lambda: is_back(cluster, load.topic), "the nodes get no replicas any more")


def test_a_disk_that_goes_read_only(in_images, unique):
    cluster = in_images
    with Load(cluster, unique("broken")) as load:
        store = store_of(cluster, sequencers(cluster, load.topic)[0])
        store.disk.break_down()
        until(lambda: is_full(cluster, store), "the broken disk is not noticed")
        until(lambda: is_left(cluster, load.topic, store), "logs stay on the broken disk")
        load.goes_on()
        # It can't be started on a disk that it can't write to, and says so.
        store.kill()
        done = subprocess.run(
            store.command(), capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **store.settings}
        )
        assert done.returncode != 0 and "Read-only file system" in done.stderr, done
        assert "panicked" not in done.stderr, done
        store.disk.repair()
        store.start()
        load.goes_on()
        until(lambda: is_back(cluster, load.topic), "the node gets no replicas any more")
        load.goes_on()
