"""Measurements on every node, by an actor each; `check.py` judges them.

A probe is pinned to its node and reserves no CPU, so that it starts on a full node and on a head that runs no work. It
does not import TensorFlow: versions come from the packages' metadata, GPUs from nvidia-smi (whether TensorFlow sees
them is tested by the workers of the collective). Every call has a timeout, and a node that does not answer is reported
like any other problem.
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
from textscanner.errors import UserError

PACKAGES = ("ray", "tensorflow", "keras", "numpy", "pyarrow")
OWN_PACKAGE = "textscanner"
SMALL_BYTES = 1 << 10
LARGE_BYTES = 8 << 20
STORAGE_DEADLINE_S = 15  # training retries longer; a preflight must report soon that storage does not answer
CONNECT_TIMEOUT_S = 3.0
GREETING = b"textscanner"
MAX_LISTED_LABELS = 4

Address = tuple[str, int]
"""(host, port)"""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
      node_id: Ray's.
      label: its address and the start of its id.
      resources: as Ray counts them.
    """

    node_id: str
    label: str
    resources: dict[str, float]


@dataclasses.dataclass(frozen=True)
class NodeInfo:
    """Software and limits of a node.

    Attributes:
      versions: of Python, the packages, and this package's source; `none` for what is not installed.
      gpus: names by nvidia-smi.
      plasma_dir: folder of Ray's object store.
      shm_bytes: size of /dev/shm.
      temp_dir: folder of Ray's logs and spilled objects.
      temp_free_bytes: free space there.
      temp_bytes: size of that disk.
      max_open_files: limit of a process; -1 for no limit.
      port_range: ports that the system assigns to sockets that ask for none, `low-high`.
    """

    versions: dict[str, str]
    gpus: tuple[str, ...]
    plasma_dir: str
    shm_bytes: int
    temp_dir: str
    temp_free_bytes: int
    temp_bytes: int
    max_open_files: int
    port_range: str


@dataclasses.dataclass(frozen=True)
class StorageTimes:
    """Latency of a small object and throughput of a large one; a megabyte is a million bytes."""

    put_ms: float
    get_ms: float
    write_mb_per_s: float
    read_mb_per_s: float


@dataclasses.dataclass(frozen=True)
class Answers(Generic[T]):
    """Answers of nodes, and the error messages of those that failed, both by label."""

    values: dict[str, T]
    errors: dict[str, str]

    @property
    def problems(self) -> list[str]:
        """The errors, each with the nodes that have it."""
        by_error: dict[str, list[str]] = {}
        for label, error in self.errors.items():
            by_error.setdefault(error, []).append(label)
        return [f"{join_labels(labels)}: {error}" for error, labels in by_error.items()]


def join_labels(labels: Sequence[str]) -> str:
    """The first few labels, and how many more there are."""
    num_more = len(labels) - MAX_LISTED_LABELS
    return ", ".join(labels[:MAX_LISTED_LABELS]) + (f" and {num_more} more" if num_more > 0 else "")


class Probe:
    """Measures on its node: a Ray actor."""

    def __init__(self) -> None:
        os.environ.setdefault("TEXTSCANNER_S3_DEADLINE_S", str(STORAGE_DEADLINE_S))

    def info(self) -> NodeInfo:
        folder = _session_dir()
        disk = shutil.disk_usage(folder)
        ports = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
        return NodeInfo(
            versions=versions(),
            gpus=_gpus(),
            plasma_dir=_plasma_dir(),
            shm_bytes=shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else 0,
            temp_dir=str(pathlib.Path(folder).parent),
            temp_free_bytes=disk.free,
            temp_bytes=disk.total,
            max_open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            port_range="-".join(ports.read_text().split()) if ports.exists() else "1024-65535",
        )

    def now_s(self) -> float:
        """Seconds since the epoch, by the node's clock."""
        return time.time()

    def write(self, uri: str) -> StorageTimes:
        """Writes a small object at `uri` and a large one beside it, and reads them back.

        The small one stays, for another node to read.

        Raises:
          StorageError: storage refuses, does not answer, or returns other bytes.
        """
        large = open_uri(f"{uri}.large")
        put_s, get_s = _round_trip(uri, _content(uri, SMALL_BYTES))
        write_s, read_s = _round_trip(large.uri, _content(uri, LARGE_BYTES))
        large.delete()
        return StorageTimes(put_s * 1e3, get_s * 1e3, LARGE_BYTES / write_s / 1e6, LARGE_BYTES / read_s / 1e6)

    def read(self, uri: str) -> None:
        """Reads the small object that another node wrote.

        Raises:
          StorageError: it is missing, or has other bytes.
        """
        if open_uri(uri).read_bytes() != _content(uri, SMALL_BYTES):
            raise _changed(uri)

    def delete(self, uri: str) -> None:
        """Deletes the small object.

        Raises:
          StorageError: storage refuses, or does not answer.
        """
        open_uri(uri).delete()

    def clear(self, uri: str) -> None:
        """Removes everything below `uri`, as far as storage permits."""
        with contextlib.suppress(StorageError):
            open_uri(uri).delete_tree()

    def read_data(self, uri: str) -> int:
        """Reads a data set's manifest and its first row group, whose hash is verified.

        Returns:
          the number of rows of the whole data set.

        Raises:
          UserError: the manifest or the row group is missing or damaged.
        """
        manifest = read_manifest(uri)
        if not manifest.shards:
            raise UserError(f"{uri} holds no shards")
        read_row_group(uri, next(manifest.shards[0].refs()))
        return manifest.num_rows

    def listen(self) -> Address:
        """Accepts connections on a free port of the node, as collectives in training will; returns the address."""
        host = ray.util.get_node_ip_address()
        server = socket.create_server((host, 0))
        threading.Thread(target=_serve_greeting, args=(server,), daemon=True).start()
        return host, int(server.getsockname()[1])

    def connect(self, addresses: dict[str, Address], greeting: bytes = GREETING) -> dict[str, str]:
        """Connects to each address; returns, by label, why some cannot be reached or do not send the greeting."""
        with ThreadPoolExecutor(16) as pool:
            reasons = pool.map(lambda address: _refusal(address, greeting), addresses.values())
        return {label: reason for label, reason in zip(addresses, reasons, strict=True) if reason}


def alive_nodes() -> list[Node]:
    return [
        Node(node["NodeID"], f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})", node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]


def start_probes(nodes: list[Node]) -> dict[str, Any]:
    """Starts a probe on each node; returns their handles by label."""
    return {node.label: _start(node) for node in nodes}


def _start(node: Node) -> Any:
    pinned = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return ray.remote(Probe).options(num_cpus=0, scheduling_strategy=pinned).remote()


def gather(calls: Mapping[str, Any], timeout_s: float) -> Answers[Any]:
    """Waits for remote calls, given by label; those that fail or are late become errors."""
    ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s) if calls else ([], [])
    values, errors = {}, {}
    for label, call in calls.items():
        if call not in ready:
            errors[label] = f"no answer within {timeout_s:g} s"
            continue
        try:
            values[label] = ray.get(call)
        except Exception as error:  # whatever fails on a node is a result of the preflight
            errors[label] = _error_message(error)
    return Answers(values, errors)


def clock_skews(probes: Mapping[str, Any], num_samples: int = 5, timeout_s: float = 30.0) -> Answers[float]:
    """Seconds that each node's clock is ahead of the driver's.

    As in NTP, half of the round trip is subtracted, and of several samples the one with the shortest round trip counts.
    """
    best: dict[str, tuple[float, float]] = {}  # (round trip, skew) in seconds
    errors: dict[str, str] = {}
    for label, probe in probes.items():
        for _ in range(num_samples):
            begin_s = time.time()
            answer = gather({label: probe.now_s.remote()}, timeout_s)
            end_s = time.time()
            if answer.errors:
                errors |= answer.errors
                break
            sample = (end_s - begin_s, answer.values[label] - (begin_s + end_s) / 2)
            best[label] = min(best.get(label, sample), sample)
    return Answers({label: skew_s for label, (_, skew_s) in best.items() if label not in errors}, errors)


def versions() -> dict[str, str]:
    """Versions of Python, the packages and this package's source, in this process."""
    own = f"{_version(OWN_PACKAGE)} {_source_digest()}"
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES} | {OWN_PACKAGE: own}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _source_digest() -> str:
    """Start of a hash of the source. A submitted job may bring other source of the same version."""
    root = pathlib.Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for ring in ("textscanner", "cluster") for path in (root / ring).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _gpus() -> tuple[str, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = subprocess.run(
        [program, "--query-gpu=name", "--format=csv,noheader"], check=False, capture_output=True, text=True, timeout=30
    )
    return tuple(line.strip() for line in query.stdout.splitlines()) if query.returncode == 0 else ()


def _plasma_dir() -> str:
    """From the command line of the raylet, which is this actor's parent process; /dev/shm by default."""
    option = "--plasma_directory="
    arguments = [part for part in psutil.Process(os.getppid()).cmdline() if part.startswith(option)]
    return arguments[0].removeprefix(option) if arguments else "/dev/shm"


def _session_dir() -> str:
    node = ray._private.worker._global_node  # there is no public API
    return node.get_session_dir_path() if node else tempfile.gettempdir()


def _content(uri: str, size: int) -> bytes:
    """Bytes that no other object has, so that a stale or wrong object is detected."""
    seed = hashlib.sha256(uri.encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def _round_trip(uri: str, data: bytes) -> tuple[float, float]:
    """(seconds of writing, seconds of reading back)"""
    location = open_uri(uri)
    begin_s = time.perf_counter()
    location.write_bytes(data)
    written_s = time.perf_counter()
    is_same = location.read_bytes() == data
    end_s = time.perf_counter()
    if not is_same:
        raise _changed(uri)
    return written_s - begin_s, end_s - written_s


def _changed(uri: str) -> StorageError:
    return StorageError(f"{uri}: the bytes that were read differ from those that were written")


def _serve_greeting(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(GREETING)


def _refusal(address: Address, greeting: bytes) -> str:
    """Why an address cannot be reached or sends something else; empty if it sends the greeting."""
    try:
        with socket.create_connection(address, timeout=CONNECT_TIMEOUT_S) as connection:
            received = connection.recv(len(greeting), socket.MSG_WAITALL)
    except OSError as error:
        return "no answer" if isinstance(error, TimeoutError) else str(error.strerror or error).lower()
    return "" if received == greeting else "another program answers there"


def _error_message(error: Exception) -> str:
    """The error of a remote call, on one line."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[-1].strip() if isinstance(cause, ray.exceptions.RayError) else " ".join(lines)
