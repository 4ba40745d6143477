"""Nodes of a Ray cluster as `ray start` makes them, on loopback."""

import contextlib
import pathlib
import subprocess
import sys

import psutil

from cluster.storage.local_server import is_free_port

RAY = str(pathlib.Path(sys.executable).with_name("ray"))


def free_ports(start: int, count: int) -> list[int]:
    """Ports from `start` on that nobody listens at."""
    found = [port for port in range(start, start + 500) if is_free_port(port)]
    return found[:count]


@contextlib.contextmanager
def node(environment, *arguments):
    """`ray start --block` with these arguments, until the block ends."""
    command = [RAY, "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1", *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            if "--block" in line:  # says that it now waits: everything is up
                break
        try:
            yield
        finally:  # SIGTERM would drain the node for half a minute
            tree = [*psutil.Process(process.pid).children(recursive=True), process]
            for member in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            psutil.wait_procs(tree[:-1], timeout=20)
