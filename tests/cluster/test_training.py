"""Training runs on a local Ray cluster with real worker processes: resuming, a killed worker, refusals."""

import collections
import json
import os
import pathlib
import re
import signal
import threading
import time
import urllib.request

import numpy as np
import psutil
import pytest
import ray
import tensorflow as tf

from cluster.config import RunSpec, override
from cluster.data.ingest import make_training_sampler, worker_batches
from cluster.data.tf_input import DistributedBatches
from cluster.storage.checkpoints import best_checkpoint
from cluster.storage.run_layout import RunLayout
from cluster.train.launch import train_run
from jobs.train import main as train_job
from tests.factories import rendered_records, write_dataset
from textscanner import checkpoint, checkpoint_files
from textscanner.errors import UserError
from textscanner.presets import preset

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
DASHBOARD = pathlib.Path(__file__).parents[2] / "cluster" / "deploy" / "grafana" / "training.json"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    records = rendered_records(160)
    train = write_dataset(str(folder / "train"), records[:128], num_shards=3)  # of 43, 43 and 42 rows
    return train, write_dataset(str(folder / "val"), records[128:])


def spec_of(data, *more):
    train, val = data
    assignments = [f'data.train=["{train}"]', f'data.val=["{val}"]', "train.workers=2", "train.max_failures=0"]
    return override(RunSpec(preset("tiny")), [*assignments, "train.log_every_steps=1", *more])


def losses_of(storage, name):
    lines = (pathlib.Path(storage) / name / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def weights_of(folder):
    return checkpoint._read_arrays(pathlib.Path(folder) / checkpoint_files.TRAINING_NAME)


def row_ids(spec, worker, num_workers, start, steps):
    sampler = make_training_sampler(spec.config)
    batches = worker_batches(spec, sampler, worker=worker, num_workers=num_workers, start_step=start, num_steps=steps)
    return [batch["row_id"].tolist() for batch in batches]


def test_ingest_gives_the_sampled_rows_for_any_number_of_workers_and_any_start_step(ray_session, data):
    spec = spec_of(data)
    alone = row_ids(spec, 0, 1, 0, 32)
    parts = [row_ids(spec, w, 2, 0, 32) for w in range(2)]
    for whole, first, second in zip(alone, *parts, strict=True):
        assert sorted(whole) == sorted(first + second)
    assert row_ids(spec, 1, 2, 17, 15) == parts[1][17:]
    # 128 rows in steps of 8: 16 steps are an epoch, every row exactly once.
    for epoch in range(2):
        assert sorted(row for step in alone[16 * epoch : 16 * epoch + 16] for row in step) == list(range(128))


def test_augmented_pixels_are_the_same_after_a_restart(ray_session, data):
    spec = spec_of(data)
    sampler = make_training_sampler(spec.config)
    uninterrupted, resumed = (
        list(worker_batches(spec, sampler, worker=0, num_workers=2, start_step=start, num_steps=9 - start))
        for start in (0, 6)
    )
    for a, b in zip(uninterrupted[6:], resumed, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_run_whose_worker_is_killed_ends_like_an_uninterrupted_one(ray_session, data, tmp_path):
    """20 steps without interruption; 13, a SIGKILL, and the rest from the checkpoint of step 10.

    The loss and the rows of each step and the final weights agree.
    """
    storage = str(tmp_path)
    row_logs = {name: tmp_path / "rows" / name for name in ("uninterrupted", "killed")}
    cadence = [
        "train.num_steps=20",
        "train.validate_every_steps=10",
        "train.checkpoint_every_steps=10",
        "train.image_every_steps=20",
    ]
    spec = spec_of(data, *cadence, "optimizer.learning_rate=0.0005", "train.keep_checkpoints=1")
    uninterrupted = train_run(_with_row_log(spec, row_logs["uninterrupted"]), storage, "uninterrupted")
    assert uninterrupted.last.endswith("step_00000020")
    _check_prometheus_metrics("uninterrupted")
    assert pathlib.Path(storage, "uninterrupted", "step_00000010").exists()  # retention keeps the two newest
    retried = override(spec, ["train.max_failures=2"])
    killer = _Killer(pathlib.Path(storage) / "killed" / "metrics.jsonl", after_step=13)
    with killer:
        killed = train_run(_with_row_log(retried, row_logs["killed"]), storage, "killed")
    assert killer.killed
    assert killed.last.endswith("step_00000020")
    _check_rows(**row_logs)
    expected, losses = losses_of(storage, "uninterrupted"), losses_of(storage, "killed")
    assert list(losses) == list(range(1, 21))
    np.testing.assert_allclose([losses[s] for s in range(1, 21)], [expected[s] for s in range(1, 21)], rtol=1e-3)
    a, b = weights_of(uninterrupted.last), weights_of(killed.last)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0.05, atol=5e-3, err_msg=name)
    assert best_checkpoint(RunLayout(storage, "killed").root).startswith(storage)
    _check_refusal_of_another_config(spec, storage)


def _with_row_log(spec, folder):
    return override(spec, [f"data.row_log_dir={folder}"])


def _check_rows(uninterrupted, killed):
    """Every row once per epoch of 16 steps; the killed run took steps twice, both times with the same rows."""
    expected, logged = _logged_rows(uninterrupted), _logged_rows(killed)
    assert {step: set(rows) for step, rows in logged.items()} == {step: set(rows) for step, rows in expected.items()}
    assert any(len(rows) == 2 for rows in logged.values())
    batches = {key: rows[-1] for key, rows in logged.items()}
    assert sorted(row for (step, _), rows in batches.items() if step <= 16 for row in rows) == list(range(128))
    second_epoch = [row for (step, _), rows in batches.items() if step > 16 for row in rows]
    assert len(second_epoch) == len(set(second_epoch)) == 32


def _logged_rows(folder):
    """The row ids of each time that a step was taken, by step and rank."""
    logged = collections.defaultdict(list)
    for rank in range(2):
        for line in (folder / f"rows-{rank}.jsonl").read_text().splitlines():
            entry = json.loads(line)
            logged[entry["step"], rank].append(tuple(entry["row_ids"]))
    return logged


def _check_prometheus_metrics(run):
    """Ray's Prometheus endpoint serves the run's metrics under the names that the Grafana dashboard draws."""
    metrics = _prometheus_metrics(run)
    drawn = set(re.findall(r"ray_textscanner_\w+", DASHBOARD.read_text()))
    assert drawn - metrics.keys() == {"ray_textscanner_restarts_total"}  # it has not been restarted
    assert metrics["ray_textscanner_step"] == 20 and 0 <= metrics["ray_textscanner_word_accuracy"] <= 1


def _prometheus_metrics(run, timeout_s=60):
    """A run's metrics at the node's metrics port, once they are those of the last step."""
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    end_s, metrics = time.monotonic() + timeout_s, {}
    while time.monotonic() < end_s and metrics.get("ray_textscanner_step") != 20:
        text = urllib.request.urlopen(address, timeout=10).read().decode()
        lines = [line for line in text.splitlines() if line.startswith("ray_textscanner_") and f'run="{run}"' in line]
        metrics = {re.match(r"\w+", line).group(): float(line.rpartition(" ")[2]) for line in lines}
    return metrics


def _check_refusal_of_another_config(spec, storage):
    other = override(spec, ["optimizer.learning_rate=0.5"])
    with pytest.raises(UserError, match=r"optimizer\.learning_rate: 0\.0005 -> 0\.5"):
        train_run(other, storage, "uninterrupted")


class _Killer:
    """Kills one training worker with SIGKILL once the run has logged a step."""

    def __init__(self, metrics, after_step):
        self._metrics, self._after = metrics, after_step
        self._stop = threading.Event()
        self.killed = 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        deadline = time.monotonic() + 300
        while not self._stop.wait(0.05) and time.monotonic() < deadline:
            lines = self._metrics.read_text().splitlines() if self._metrics.exists() else []
            if lines and json.loads(lines[-1])["step"] >= self._after:
                self.killed = self._kill()
                return

    def _kill(self):
        for process in psutil.Process().children(recursive=True):
            try:
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    os.kill(process.pid, signal.SIGKILL)
                    return process.pid
            except psutil.Error:
                continue
        return 0


def test_invalid_commands_are_refused_with_a_message_and_start_nothing(ray_session, data, tmp_path, capsys):
    train, val = data
    run = ["--storage", str(tmp_path), "--name", "x"]
    assert train_job(["tiny", "--train", str(tmp_path / "none"), *run]) == 2
    assert "is not a prepared data set" in capsys.readouterr().err
    assert train_job(["huge", "--train", train, *run]) == 2
    assert "must be one of paper, small, tiny" in capsys.readouterr().err
    assert train_job(["tiny", "--train", train, "--val", val, *run, "--workers", "3"]) == 2
    assert "data.num_streams is 4" in capsys.readouterr().err
    assert train_job(["tiny", "--train", train, "--val", val, *run, "--workers", "2", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "2 workers x 1 replicas (CPU) x 4 images = 8 per step" in output and '"learning_rate": 0.005' in output
    assert train_job(["tiny", "--train", train, "--val", val, *run, "--init", str(tmp_path / "nowhere")]) == 2
    assert "nowhere': there is no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match=r"leaves no data\.cpus_per_read_task"):
        train_run(spec_of(data, "data.cpus_per_read_task=1000"), str(tmp_path), "y")


def test_a_damaged_shard_is_named_by_the_error_that_a_worker_raises(ray_session, data):
    """The error passes from a reading task through Ray Data and tf.data into the training loop.

    How a worker's error reaches the driver is tested by the sweep's diverging trial.
    """
    damaged = pathlib.Path(data[0]) / "shard-00001.parquet"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:200])
    try:
        spec = spec_of(data, "train.workers=1")
        sampler = make_training_sampler(spec.config)
        batches = worker_batches(spec, sampler, worker=0, num_workers=1, start_step=0, num_steps=20)
        with pytest.raises(UserError, match=r"shard-00001\.parquet"):
            list(DistributedBatches(spec, batches, tf.distribute.get_strategy()))
    finally:
        damaged.write_bytes(content)
