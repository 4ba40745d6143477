"""The README's commands for a cluster: a training job and a sweep submitted to a head node and two workers, data and
results in a bucket, the best checkpoint pulled from outside the cluster."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from cluster.storage.run_layout import SweepLayout
from cluster.tune.results import load_results
from tests.factories import write_dataset
from tests.nodes import RAY, free_ports, node

pytestmark = [pytest.mark.storage, pytest.mark.cluster, pytest.mark.timeout(900)]
ROOT = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(sys.executable).parent


@pytest.fixture(scope="module")
def dashboard(object_store):
    """A head node that runs no work and two nodes of two CPUs; the address that jobs are submitted to."""
    (gcs,), (port,), agents = free_ports(25_000, 1), free_ports(26_000, 1), free_ports(27_000, 3)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True))
        # A HOME of its own: a token that another Ray program left in ~/.ray would be demanded.
        environment = os.environ | {"HOME": folder, "PATH": f"{BIN}:{os.environ['PATH']}"}
        head = ["--head", f"--port={gcs}", "--num-cpus=0", f"--temp-dir={folder}", "--include-dashboard=true"]
        head += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", f"--dashboard-agent-listen-port={agents[0]}"]
        stack.enter_context(node(environment, *head))
        for agent in agents[1:]:
            more = [f"--address=127.0.0.1:{gcs}", "--num-cpus=2", f"--dashboard-agent-listen-port={agent}"]
            stack.enter_context(node(environment, *more, "--min-worker-port=0", "--max-worker-port=0"))
        yield f"http://127.0.0.1:{port}"


def submit(dashboard, *command):
    """`ray job submit` as the README states it for a cluster, from the project's folder."""
    arguments = [RAY, "job", "submit", "--address", dashboard, "--runtime-env", "jobs/runtime_env.yaml"]
    arguments += ["--working-dir", ".", "--", "python", "-m", *command]
    return subprocess.run(arguments, check=False, cwd=ROOT, capture_output=True, text=True)


def test_submitted_job_and_sweep_leave_checkpoints_that_can_be_pulled(dashboard, bucket, words, tmp_path):
    train, val = write_dataset(f"{bucket}/words", words), write_dataset(f"{bucket}/val", words[:16])
    cadence = [
        "train.num_steps=6",
        "train.validate_every_steps=3",
        "train.checkpoint_every_steps=3",
        "train.threads_per_worker=1",
    ]
    run = ["tiny", "--train", train, "--val", val, "--storage", f"{bucket}/runs", "--set", *cadence]

    done = submit(dashboard, "jobs.train", *run, "--name", "first", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout and f"best checkpoint  {bucket}/runs/first/step_0000000" in done.stdout

    sweep = ["--name", "sweep", "--trials", "1", "--workers-per-trial", "2", "--space", "scratch"]
    done = submit(dashboard, "jobs.tune", *run, *sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    results = load_results(SweepLayout(f"{bucket}/runs", "sweep"))
    assert [record.state for record in results.trials if record.points] and not results.count("failed")

    for uri, folder in ((f"{bucket}/runs/first", "first"), (f"{bucket}/runs/sweep", "best")):
        pull = [sys.executable, "-m", "jobs.pull", uri, "--to", str(tmp_path / folder)]
        pulled = subprocess.run(pull, check=False, cwd=ROOT, capture_output=True, text=True)
        assert pulled.returncode == 0, pulled.stderr
        assert (tmp_path / folder / "state.json").exists()
