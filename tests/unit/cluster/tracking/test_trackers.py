"""Experiment trackers, real and offline: what is logged is there, and a resumed run goes on in the same one."""

import json
import pathlib

import pytest

from cluster.config import RunSpec, override
from cluster.tracking.trackers import TRACKER_NAME, SafeTracker, open_tracker
from textscanner.presets import preset


def log(folder, kind, step, loss):
    said: list[str] = []
    tracker = open_tracker(
        str(folder / "run"), override(RunSpec(preset("tiny")), [f"train.tracker={kind}"]), said.append
    )
    tracker.scalars(step, {"train/loss": loss})
    tracker.close()
    assert not said
    return json.loads((folder / "run" / TRACKER_NAME).read_text())[kind]


def test_mlflow_has_the_scalars_and_the_config(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    run = log(tmp_path, "mlflow", 1, 0.5)
    assert log(tmp_path, "mlflow", 2, 0.25) == run
    client = mlflow.MlflowClient()
    assert [(m.step, m.value) for m in client.get_metric_history(run, "train/loss")] == [(1, 0.5), (2, 0.25)]
    assert client.get_run(run).data.params["optimizer.learning_rate"] == "0.005"


def test_wandb_offline_keeps_the_scalars_for_later(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = log(tmp_path, "wandb", 1, 0.5)
    assert log(tmp_path, "wandb", 2, 0.25) == run
    files = list(pathlib.Path(tmp_path, "wandb").glob(f"offline-run-*/run-{run}.wandb"))
    assert len(files) >= 1 and any(b"train/loss" in file.read_bytes() for file in files)


def test_no_tracker_unless_asked_for(tmp_path):
    assert open_tracker(str(tmp_path), RunSpec(preset("tiny")), print) is None
    with pytest.raises(ValueError, match=r"train\.tracker"):
        override(RunSpec(preset("tiny")), ["train.tracker=paper"])


def test_a_tracker_that_fails_costs_no_training():
    class Broken:
        run_id = "x"

        def scalars(self, step, values):
            raise ConnectionError("no answer")

        def close(self):
            raise AssertionError("it was disabled")

    said: list[str] = []
    tracker = SafeTracker(Broken(), said.append)
    tracker.scalars(1, {})
    tracker.scalars(2, {})
    tracker.close()
    assert said == ["the tracker failed and is disabled, training continues: no answer"]
