"""A training run with data and checkpoints in a bucket, while connections are reset and the server is killed."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from cluster.storage import local_server
from cluster.storage.checkpoints import list_checkpoints, pull
from cluster.storage.location import open_uri
from tests.factories import rendered_records, write_dataset
from tests.storage.proxy import Proxy
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME

pytestmark = [pytest.mark.storage, pytest.mark.cluster, pytest.mark.timeout(600)]

NUM_STEPS = 20
RESET_PROBABILITY = 0.02


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server for this test alone, because the test kills it."""
    running = local_server.start(tmp_path / "store")
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    yield running
    local_server.stop(running.folder)


@pytest.fixture
def command(server):
    """Command of a run whose data and results are in the bucket."""
    records = rendered_records(72)
    train = write_dataset(f"{server.uri}/train", records[:64])
    val = write_dataset(f"{server.uri}/val", records[64:])
    cadence = [
        "train.validate_every_steps=4",
        "train.checkpoint_every_steps=4",
        "train.image_every_steps=20",
        "train.log_every_steps=1",
    ]
    return [
        *(sys.executable, "-m", "jobs.train", "tiny", "--train", train, "--val", val),
        *("--storage", f"{server.uri}/runs", "--name", "faulty", "--workers", "2"),
        *("--set", f"train.num_steps={NUM_STEPS}", *cadence, "train.max_failures=0", "train.keep_checkpoints=2"),
    ]


@pytest.fixture
def ray_folder():
    """Ray's temporary folder. Its path must be short: socket paths are limited to about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        yield pathlib.Path(folder)


def test_a_run_survives_resets_a_killed_server_and_an_outage(server, command, ray_folder, tmp_path):
    """The server is killed and stays down: the run fails with a message. The same command, now with two workers, then
    resumes and finishes, although connections are reset and the server is killed and restarted once more.

    In between an old checkpoint disappears, as by retention: Ray's own list still has it, and must not matter.
    """
    short_timeouts = {"TEXTSCANNER_S3_DEADLINE_S": "3", "TEXTSCANNER_S3_CONNECT_TIMEOUT_S": "1"}
    with _KillsServer(server, at_step=8, restart=False) as killer:
        done = _run([*command, "--workers", "1"], short_timeouts)
    assert killer.killed and done.returncode == 1
    assert "the run failed" in done.stdout and "request to http" in done.stdout and "Traceback" not in done.stdout
    server = local_server.start(server.folder)
    open_uri(f"{server.uri}/runs/faulty/step_00000004").delete_tree()
    with Proxy(("127.0.0.1", server.port + 3)) as proxy:
        proxy.reset_probability = RESET_PROBABILITY
        environment = {"AWS_ENDPOINT_URL_S3": proxy.endpoint, "TEXTSCANNER_S3_REQUEST_TIMEOUT_S": "5"}
        with _KillsServer(server, at_step=12, restart=True) as killer:
            done = _run(command, environment | {"RAY_TMPDIR": str(ray_folder)})
        assert done.returncode == 0, done.stdout
        assert killer.killed and proxy.resets > 2
    assert "resumed at step 8" in done.stdout
    assert "tensorflow" not in done.stdout.lower() and "Traceback" not in done.stdout  # no log noise
    _check_result(server, tmp_path)
    _check_for_secrets(server, done.stdout, ray_folder)


def _run(command, environment):
    return subprocess.run(
        command,
        check=False,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )


def _check_result(server, tmp_path):
    """Every step was logged once, and the remaining checkpoints pass verification."""
    rows = [json.loads(line) for line in open_uri(f"{server.uri}/runs/faulty/metrics.jsonl").read_bytes().splitlines()]
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, NUM_STEPS + 1))
    checkpoints = list_checkpoints(f"{server.uri}/runs/faulty")
    assert checkpoints[-1].step == NUM_STEPS and len(checkpoints) <= 3
    for checkpoint in checkpoints:
        pull(checkpoint, tmp_path / f"pulled_{checkpoint.step}", quiet=True)  # compares every hash


def _check_for_secrets(server, output, ray_folder):
    """The secret key appears in none of the run's objects, its output, or Ray's logs."""
    secret = server.secret_key.encode()
    root = open_uri(f"{server.uri}/runs")
    names = list(root.walk())
    assert any(name.endswith("config.json") for name in names)
    assert [name for name in names if secret in root.join(name).read_bytes()] == []
    logs = [path for path in ray_folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name == "raylet.out" for path in logs)
    assert server.secret_key not in output
    assert [str(path) for path in logs if secret in path.read_bytes()] == []


class _KillsServer:
    """Kills the object store once the run has a checkpoint of `at_step`; `restart` starts it again on the same port."""

    def __init__(self, server, at_step, restart):
        self._server, self._step, self._restart = server, at_step, restart
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.killed = False

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        checkpoint = open_uri(f"{self._server.uri}/runs/faulty/step_{self._step:08d}/{CHECKPOINT_MANIFEST_NAME}")
        while not self._stop.wait(0.2):
            if checkpoint.exists():
                local_server.kill(self._server)
                self.killed = True
                if self._restart:
                    time.sleep(3)  # as long as a restart takes in production: clients must retry for that long
                    local_server.start(self._server.folder)
                return
