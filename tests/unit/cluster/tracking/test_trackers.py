"""MLflow and Weights & Biases, offline: they receive scalars and config, and a resumed run continues the same run."""

import json
import pathlib

import pytest

from cluster.config import RunSpec, override
from cluster.tracking import trackers
from cluster.tracking.trackers import TRACKER_NAME, SafeTracker, open_tracker
from textscanner.presets import preset


def log_scalar(folder, kind, step, loss):
    messages: list[str] = []
    spec = override(RunSpec(preset("tiny")), [f"train.tracker={kind}"])
    tracker = open_tracker(str(folder / "run"), spec, messages.append)
    tracker.scalars(step, {"train/loss": loss})
    tracker.close()
    assert not messages
    return json.loads((folder / "run" / TRACKER_NAME).read_text())[kind]


def test_mlflow_receives_scalars_and_config(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    run = log_scalar(tmp_path, "mlflow", 1, 0.5)
    assert log_scalar(tmp_path, "mlflow", 2, 0.25) == run
    client = mlflow.MlflowClient()
    assert [(m.step, m.value) for m in client.get_metric_history(run, "train/loss")] == [(1, 0.5), (2, 0.25)]
    assert client.get_run(run).data.params["optimizer.learning_rate"] == "0.005"


def test_wandb_offline_stores_scalars_for_a_later_sync(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = log_scalar(tmp_path, "wandb", 1, 0.5)
    assert log_scalar(tmp_path, "wandb", 2, 0.25) == run
    files = list(pathlib.Path(tmp_path, "wandb").glob(f"offline-run-*/run-{run}.wandb"))
    assert len(files) >= 1 and any(b"train/loss" in file.read_bytes() for file in files)


def test_the_default_is_no_tracker(tmp_path):
    assert open_tracker(str(tmp_path), RunSpec(preset("tiny")), print) is None
    with pytest.raises(ValueError, match=r"train\.tracker"):
        override(RunSpec(preset("tiny")), ["train.tracker=paper"])


def test_a_tracker_is_disabled_at_its_first_error():
    class Broken:
        run_id = "x"

        def scalars(self, step, values):
            raise ConnectionError("no answer from https://user:secret@host/api")

        def close(self):
            raise AssertionError("it was disabled")

    messages: list[str] = []
    tracker = SafeTracker(Broken(), messages.append)
    tracker.scalars(1, {})
    tracker.scalars(2, {})
    tracker.close()
    assert messages == ["the tracker failed and is disabled, training continues: no answer from https://***@host/api"]


def test_a_tracker_that_cannot_be_opened_does_not_stop_the_run(tmp_path, monkeypatch):
    def refuse(name, spec, run_id):
        raise ConnectionError("no answer from https://user:secret@host/api")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", refuse)
    messages: list[str] = []
    spec = override(RunSpec(preset("tiny")), ["train.tracker=mlflow"])
    assert open_tracker(str(tmp_path), spec, messages.append) is None
    (message,) = messages
    assert message.endswith("training continues without it: no answer from https://***@host/api")


def test_a_password_in_an_address_does_not_reach_the_runtime_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret@host/api")
    assert trackers.passed_on()["MLFLOW_TRACKING_URI"] == "https://host/api"
