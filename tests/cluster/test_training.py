"""Whole runs on a local Ray cluster: resuming, a killed worker, refusals. Real processes throughout."""

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

from cluster.config import RunSpec, override
from cluster.data.ingest import make_training_sampler, worker_batches
from cluster.errors import RunError
from cluster.storage.checkpoints import best_checkpoint
from cluster.storage.run_layout import RunLayout
from cluster.train.launch import train_run
from jobs.train import main as train_job
from tests.factories import rendered_records, write_dataset
from textscanner import checkpoint, checkpoint_files
from textscanner.presets import preset

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
DASHBOARD = pathlib.Path(__file__).parents[2] / "cluster" / "deploy" / "grafana" / "training.json"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    records = rendered_records(160)
    train = write_dataset(str(folder / "train"), records[:128])
    return train, write_dataset(str(folder / "val"), records[128:])


def config_of(data, *more):
    train, val = data
    told = [f'data.train=["{train}"]', f'data.val=["{val}"]', "train.workers=2", "train.max_failures=0"]
    return override(RunSpec(preset("tiny")), [*told, "train.log_every_steps=1", *more])


def losses_of(storage, name):
    lines = (pathlib.Path(storage) / name / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def weights_of(folder):
    return checkpoint._read(pathlib.Path(folder) / checkpoint_files.TRAINING_NAME)


def rows_seen(config, worker, num_workers, start, steps):
    sampler = make_training_sampler(config.config)
    batches = worker_batches(config, sampler, worker=worker, num_workers=num_workers, start_step=start, num_steps=steps)
    return [batch["row_id"].tolist() for batch in batches]


def test_ingest_gives_the_planned_rows_whatever_the_workers_and_wherever_it_starts(ray_session, data):
    config = config_of(data)
    alone = rows_seen(config, 0, 1, 0, 32)
    parts = [rows_seen(config, w, 2, 0, 32) for w in range(2)]
    for whole, first, second in zip(alone, *parts, strict=True):
        assert sorted(whole) == sorted(first + second)
    assert rows_seen(config, 1, 2, 17, 15) == parts[1][17:]
    # 128 rows in steps of 8: 16 steps are an epoch, every row exactly once.
    for epoch in range(2):
        assert sorted(row for step in alone[16 * epoch : 16 * epoch + 16] for row in step) == list(range(128))


def test_augmented_pixels_are_the_same_after_a_restart(ray_session, data):
    config = config_of(data)
    sampler = make_training_sampler(config.config)
    straight, resumed = (
        list(worker_batches(config, sampler, worker=0, num_workers=2, start_step=start, num_steps=9 - start))
        for start in (0, 6)
    )
    for a, b in zip(straight[6:], resumed, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_run_stopped_half_way_ends_as_the_one_that_was_not(ray_session, data, tmp_path):
    """20 steps against 13, a SIGKILL, and the rest from step 10: the loss of each step and the weights agree.

    One checkpoint is kept, so that the first is gone when a finished run is started once more: that does nothing.
    """
    storage = str(tmp_path)
    cadence = [
        "train.num_steps=20",
        "train.validate_every_steps=10",
        "train.checkpoint_every_steps=10",
        "train.image_every_steps=20",
    ]
    config = config_of(data, *cadence, "optimizer.learning_rate=0.0005", "train.keep_checkpoints=1")
    straight = train_run(config, storage, "straight")
    assert straight.last.endswith("step_00000020")
    _check_gauges("straight")
    assert not pathlib.Path(storage, "straight", "step_00000010").exists()
    before = (pathlib.Path(straight.last) / checkpoint_files.WEIGHTS_NAME).stat().st_mtime_ns
    assert train_run(config, storage, "straight") == straight
    assert (pathlib.Path(straight.last) / checkpoint_files.WEIGHTS_NAME).stat().st_mtime_ns == before
    retried = override(config, ["train.max_failures=2"])
    killer = _Killer(pathlib.Path(storage) / "killed" / "metrics.jsonl", after_step=13)
    with killer:
        result = train_run(retried, storage, "killed")
    assert killer.killed
    assert result.last.endswith("step_00000020")
    first, second = losses_of(storage, "straight"), losses_of(storage, "killed")
    assert list(second) == list(range(1, 21))
    np.testing.assert_allclose([second[s] for s in range(1, 21)], [first[s] for s in range(1, 21)], rtol=1e-3)
    a, b = weights_of(straight.last), weights_of(result.last)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0.05, atol=5e-3, err_msg=name)
    assert best_checkpoint(RunLayout(storage, "killed").root).startswith(storage)
    _check_refusals(config, storage)


def _check_gauges(run):
    """The run at Ray's Prometheus endpoint, under the names that the dashboard draws."""
    figures = _exported(run)
    drawn = set(re.findall(r"ray_textscanner_\w+", DASHBOARD.read_text()))
    assert drawn - figures.keys() == {"ray_textscanner_restarts_total"}  # it has not been restarted
    assert figures["ray_textscanner_step"] == 20 and 0 <= figures["ray_textscanner_word_accuracy"] <= 1


def _exported(run, deadline_s=60):
    """What the node's metrics port says of a run, once it knows the last step."""
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    end, figures = time.monotonic() + deadline_s, {}
    while time.monotonic() < end and figures.get("ray_textscanner_step") != 20:
        text = urllib.request.urlopen(address, timeout=10).read().decode()
        lines = [line for line in text.splitlines() if line.startswith("ray_textscanner_") and f'run="{run}"' in line]
        figures = {re.match(r"\w+", line).group(): float(line.rpartition(" ")[2]) for line in lines}
    return figures


def _check_refusals(config, storage):
    other = override(config, ["optimizer.learning_rate=0.5"])
    with pytest.raises(ValueError, match=r"optimizer\.learning_rate: 0\.0005 -> 0\.5"):
        train_run(other, storage, "straight")


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


def test_mistakes_are_sentences(ray_session, data, tmp_path, capsys):
    train, val = data
    where = ["--storage", str(tmp_path), "--name", "x"]
    assert train_job(["tiny", "--train", str(tmp_path / "none"), *where]) == 2
    assert "is not a prepared data set" in capsys.readouterr().err
    assert train_job(["huge", "--train", train, *where]) == 2
    assert "there are paper, small, tiny" in capsys.readouterr().err
    assert train_job(["tiny", "--train", train, "--val", val, *where, "--workers", "3"]) == 2
    assert "data.num_streams is 4" in capsys.readouterr().err
    assert train_job(["tiny", "--train", train, "--val", val, *where, "--workers", "2", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "2 workers x 1 replicas (CPU) x 4 images = 8 a step" in told and '"learning_rate": 0.005' in told
    assert train_job(["tiny", "--train", train, "--val", val, *where, "--init", str(tmp_path / "nowhere")]) == 2
    assert "nowhere': there is no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    with pytest.raises(ValueError, match=r"leaves no data\.cpus_per_read_task"):
        train_run(config_of(data, "data.cpus_per_read_task=1000"), str(tmp_path), "y")


def test_a_damaged_shard_ends_the_run_with_a_sentence(data, tmp_path):
    """A failure inside the workers reaches the driver as their own words."""
    broken = pathlib.Path(data[0]) / "shard-00001.parquet"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    try:
        with pytest.raises(RunError, match=r"shard-00001\.parquet"):
            train_run(config_of(data), str(tmp_path), "broken")
    finally:
        broken.write_bytes(whole)
