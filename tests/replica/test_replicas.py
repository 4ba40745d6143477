"""N workers compute the same as one device: real processes under MultiWorkerMirroredStrategy."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.replica.replica_main import POISONED_STEP

pytestmark = pytest.mark.replica


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def run(world, folder):
    """Trains with `world` processes; returns the arrays that each wrote."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(world)]
    processes, outs = [], []
    for rank in range(world):
        outs.append(folder / f"{world}_{rank}.npz")
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
        environment = os.environ | ({"TF_CONFIG": json.dumps(task)} if world > 1 else {})
        command = [sys.executable, "-m", "tests.replica.replica_main", str(rank), str(world), str(outs[-1])]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-3000:]
    return [dict(np.load(out)) for out in outs]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    return run(1, folder)[0], run(2, folder)


def test_two_workers_with_half_the_batch_give_the_losses_of_one(runs):
    alone, (first, second) = runs
    for name in (name for name in alone if name.startswith("metrics/")):
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    np.testing.assert_allclose(first["metrics/loss"], alone["metrics/loss"], rtol=1e-4)
    assert (alone["metrics/gradient_norm"] > 1.0).any(), (
        "gradients must be clipped in some steps, or clipping is not tested"
    )


def test_a_value_that_is_not_finite_on_one_worker_makes_all_skip_that_step(runs):
    alone, workers = runs
    for arrays in (alone, *workers):
        assert arrays["metrics/skipped"].nonzero()[0].tolist() == [POISONED_STEP]
        assert all(np.isfinite(arrays[name]).all() for name in arrays if name.startswith(("live/", "ema/")))


def test_both_workers_hold_identical_weights_and_statistics(runs):
    alone, (first, second) = runs
    moved = [name for name in first if "moving" in name]
    assert moved and all(np.abs(first[name]).max() > 0 for name in moved)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    for name in alone:
        if name.startswith(("live/", "ema/")):
            np.testing.assert_allclose(first[name], alone[name], rtol=2e-2, atol=2e-3, err_msg=name)


def test_a_sum_over_workers_counts_each_once(runs):
    _, (first, second) = runs
    assert first["summed"].tolist() == second["summed"].tolist() == [2.0, 1.0]
