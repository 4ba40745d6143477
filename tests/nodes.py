"""Nodes of a Ray cluster as `ray start` makes them, on loopback."""

import contextlib
import itertools
import pathlib
import subprocess
import sys

import psutil

from cluster.storage.local_server import is_free_port

RAY = str(pathlib.Path(sys.executable).with_name("ray"))


def free_ports(start: int, count: int) -> list[int]:
    """The first `count` ports from `start` on that nothing listens at."""
    return list(itertools.islice(filter(is_free_port, range(start, start + 500)), count))


@contextlib.contextmanager
def node(environment, *arguments):
    """Runs `ray start --block` with these arguments for the block."""
    command = [RAY, "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1", *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            if "--block" in line:  # printed when the node is up
                break
        try:
            yield
        finally:  # SIGTERM would drain the node for half a minute
            tree = [*psutil.Process(process.pid).children(recursive=True), process]
            for member in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            psutil.wait_procs(tree[:-1], timeout=20)
