"""One actor on each node that measures; it judges nothing.

An actor pinned to the node and of no CPUs, so that it finds a place on a full node and on a head that runs no work. It
imports neither TensorFlow nor the network: versions come from the packages' metadata, GPUs from nvidia-smi (what
TensorFlow sees is asked by the members of the collective). Every question to the nodes has a deadline, and a node
that does not answer is a finding like any other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import resource
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.data.shards import read_manifest, read_row_group
from cluster.errors import StorageError
from cluster.storage.location import open_uri

PACKAGES = ("ray", "tensorflow", "keras", "numpy", "pyarrow")
OWN = "textscanner"
SMALL_BYTES = 1 << 10
LARGE_BYTES = 8 << 20
STORAGE_DEADLINE_S = 15  # training would wait longer for a bucket; a person who asks whether it answers does not
CONNECT_TIMEOUT_S = 3.0
HELLO = b"textscanner"
LABELS_TOLD = 4

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Node:
    """An alive node: `label` is its address and the start of its id, resources are what Ray counts."""

    node_id: str
    label: str
    resources: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a node is.

    Attributes:
      versions: of Python, the packages, and this one's source; `none` where it is not installed.
      gpus: names by nvidia-smi.
      plasma_dir: where Ray keeps its object store.
      shm_bytes: size of /dev/shm.
      temp_dir, temp_free_bytes, temp_bytes: where Ray keeps logs and spilled objects.
      open_files: how many files a process may have open.
      port_range: the ports that are given out to who asks for any.
    """

    versions: dict[str, str]
    gpus: tuple[str, ...]
    plasma_dir: str
    shm_bytes: int
    temp_dir: str
    temp_free_bytes: int
    temp_bytes: int
    open_files: int
    port_range: str


@dataclasses.dataclass(frozen=True)
class StorageTimes:
    """How storage answered a node: times of a small object, speeds of a large one in megabytes of a million bytes."""

    put_ms: float
    get_ms: float
    write_mb_per_s: float
    read_mb_per_s: float


@dataclasses.dataclass(frozen=True)
class Answers(Generic[T]):
    """What each node answered, and why the others did not, both by label."""

    values: dict[str, T]
    failures: dict[str, str]

    @property
    def faults(self) -> list[str]:
        """The failures as sentences, nodes of the same reason in one."""
        by_reason: dict[str, list[str]] = {}
        for label, reason in self.failures.items():
            by_reason.setdefault(reason, []).append(label)
        return [f"{listed(labels)}: {reason}" for reason, labels in by_reason.items()]


def listed(labels: Sequence[str]) -> str:
    """The first few labels, and how many more there are."""
    more = len(labels) - LABELS_TOLD
    return ", ".join(labels[:LABELS_TOLD]) + (f" and {more} more" if more > 0 else "")


class _Probe:
    """Measures on its node."""

    def __init__(self) -> None:
        os.environ.setdefault("TEXTSCANNER_S3_DEADLINE_S", str(STORAGE_DEADLINE_S))

    def facts(self) -> Facts:
        """What the node is."""
        folder = _session_dir()
        disk = shutil.disk_usage(folder)
        ports = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
        return Facts(
            versions=versions(),
            gpus=_gpus(),
            plasma_dir=_plasma_dir(),
            shm_bytes=shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else 0,
            temp_dir=str(pathlib.Path(folder).parent),
            temp_free_bytes=disk.free,
            temp_bytes=disk.total,
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            port_range="-".join(ports.read_text().split()) if ports.exists() else "1024-65535",
        )

    def now_s(self) -> float:
        """Seconds since the epoch by the node's clock."""
        return time.time()

    def write(self, uri: str) -> StorageTimes:
        """Writes a small and a large object and reads them back; the small one stays, for another node to read.

        Raises:
          StorageError: storage refuses, does not answer, or gives back something else.
        """
        large = open_uri(f"{uri}.large")
        put_s, get_s = _round_trip(uri, _content(uri, SMALL_BYTES))
        write_s, read_s = _round_trip(large.uri, _content(uri, LARGE_BYTES))
        large.delete()
        return StorageTimes(put_s * 1e3, get_s * 1e3, LARGE_BYTES / write_s / 1e6, LARGE_BYTES / read_s / 1e6)

    def read(self, uri: str) -> None:
        """Reads the small object that another node has written.

        Raises:
          StorageError: it is not there, or is another one.
        """
        if open_uri(uri).read_bytes() != _content(uri, SMALL_BYTES):
            raise StorageError(f"{uri} was read back other than it was written")

    def delete(self, uri: str) -> None:
        """Deletes the small object.

        Raises:
          StorageError: storage does not let it.
        """
        open_uri(uri).delete()

    def clear(self, uri: str) -> None:
        """Removes what is below a place, as far as storage lets it."""
        with contextlib.suppress(StorageError):
            open_uri(uri).delete_tree()

    def read_data(self, uri: str) -> int:
        """Reads a data set's manifest and its first row group, whose hash is compared; the rows of the set.

        Raises:
          ValueError: the manifest or the row group is not what it should be.
        """
        manifest = read_manifest(uri)
        if not manifest.shards:
            raise ValueError(f"{uri} holds no shard")
        read_row_group(uri, next(manifest.shards[0].refs()))
        return manifest.num_rows

    def listen(self) -> tuple[str, int]:
        """Takes connections on any free port of the node's address, as training's collectives will."""
        server = socket.create_server((ray.util.get_node_ip_address(), 0))
        threading.Thread(target=_greet, args=(server,), daemon=True).start()
        return server.getsockname()[:2]

    def connect(self, addresses: dict[str, tuple[str, int]], hello: bytes = HELLO) -> dict[str, str]:
        """Which of these, by label, cannot be reached from here or do not say hello, and why."""
        with ThreadPoolExecutor(16) as pool:
            reasons = pool.map(lambda address: _refusal(address, hello), addresses.values())
        return {label: reason for label, reason in zip(addresses, reasons, strict=True) if reason}


def alive_nodes() -> list[Node]:
    """The cluster's nodes."""
    return [
        Node(told["NodeID"], f"{told['NodeManagerAddress']} ({told['NodeID'][:6]})", told["Resources"])
        for told in ray.nodes()
        if told["Alive"]
    ]


def start_probes(nodes: list[Node]) -> dict[str, Any]:
    """A probe on each node, by label."""
    return {node.label: _start(node) for node in nodes}


def _start(node: Node) -> Any:
    here = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return ray.remote(_Probe).options(num_cpus=0, scheduling_strategy=here).remote()


def gather(calls: Mapping[str, Any], deadline_s: float) -> Answers[Any]:
    """The results of remote calls by label, and for those that failed or are late the reason."""
    ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=deadline_s) if calls else ([], [])
    values, failures = {}, {}
    for label, call in calls.items():
        if call not in ready:
            failures[label] = f"no answer within {deadline_s:g} s"
            continue
        try:
            values[label] = ray.get(call)
        except Exception as error:  # whatever a node raises is what there is to tell of it
            failures[label] = _reason(error)
    return Answers(values, failures)


def clock_skews(probes: Mapping[str, Any], samples: int = 5, deadline_s: float = 30.0) -> Answers[float]:
    """Seconds that each node's clock is ahead of the driver's; the time of the question's way is taken out."""
    best: dict[str, tuple[float, float]] = {}
    failures: dict[str, str] = {}
    for label, probe in probes.items():
        for _ in range(samples):
            begin = time.time()
            answer = gather({label: probe.now_s.remote()}, deadline_s)
            end = time.time()
            if answer.failures:
                failures |= answer.failures
                break
            skew = answer.values[label] - (begin + end) / 2
            best[label] = min(best.get(label, (end - begin, skew)), (end - begin, skew))
    return Answers({label: skew for label, (_, skew) in best.items() if label not in failures}, failures)


def versions() -> dict[str, str]:
    """Versions in this process."""
    own = f"{_version(OWN)} {_source_digest()}"
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES} | {OWN: own}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _source_digest() -> str:
    """Tells the source that runs from another of the same version: a job may bring its own in a working directory."""
    root = pathlib.Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for ring in ("textscanner", "cluster") for path in (root / ring).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _gpus() -> tuple[str, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    told = subprocess.run(
        [program, "--query-gpu=name", "--format=csv,noheader"], check=False, capture_output=True, text=True, timeout=30
    )
    return tuple(line.strip() for line in told.stdout.splitlines()) if told.returncode == 0 else ()


def _plasma_dir() -> str:
    """From the command line of the raylet, which is this worker's parent; /dev/shm unless it says otherwise."""
    option = "--plasma_directory="
    given = [part for part in psutil.Process(os.getppid()).cmdline() if part.startswith(option)]
    return given[0].removeprefix(option) if given else "/dev/shm"


def _session_dir() -> str:
    node = ray._private.worker._global_node  # Ray has no public way to ask
    return node.get_session_dir_path() if node else tempfile.gettempdir()


def _content(uri: str, size: int) -> bytes:
    """Bytes that only this object holds."""
    seed = hashlib.sha256(uri.encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def _round_trip(uri: str, data: bytes) -> tuple[float, float]:
    """Seconds of writing and of reading back."""
    place = open_uri(uri)
    begin = time.perf_counter()
    place.write_bytes(data)
    written = time.perf_counter()
    same = place.read_bytes() == data
    end = time.perf_counter()
    if not same:
        raise StorageError(f"{uri} was read back other than it was written")
    return written - begin, end - written


def _greet(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(HELLO)


def _refusal(address: tuple[str, int], hello: bytes) -> str:
    try:
        with socket.create_connection(address, timeout=CONNECT_TIMEOUT_S) as connection:
            answer = connection.recv(len(hello), socket.MSG_WAITALL)
    except OSError as error:
        return "no answer" if isinstance(error, TimeoutError) else str(error.strerror or error).lower()
    return "" if answer == hello else "something else answers there"


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[-1].strip() if isinstance(cause, ray.exceptions.RayError) else " ".join(lines)
