"""Experiment trackers, off by default: a run's scalars and config go to MLflow or Weights & Biases as well.

`--set train.tracker=mlflow` or `wandb`, with the package installed (`pip install 'textscanner[mlflow]'`, `[wandb]`).
Where to, and with which key, is said in their own environment variables (MLFLOW_TRACKING_URI, WANDB_MODE,
WANDB_API_KEY, ...), which must be set where the workers run. A run that is resumed goes on in the tracker's same run:
its id is kept in the run's folder. The journal stays the record; a tracker that does not answer costs no training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cluster.config import RunSpec
from cluster.storage.location import open_uri
from textscanner.config import flatten

TRACKER_NAME = "tracker.json"
# Passed on to the workers of a remote cluster. Keys are not: give those to the nodes.
PASSED_ON = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_ENTITY")
PROJECT = "textscanner"


class Tracker(Protocol):
    """Where scalars go."""

    run_id: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values of a step."""

    def close(self) -> None:
        """Everything is sent when this returns."""


class MlflowTracker:
    """A run in MLflow."""

    def __init__(self, name: str, spec: RunSpec, run_id: str | None) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(PROJECT)
        self.run_id = mlflow.start_run(run_id=run_id, run_name=name, log_system_metrics=False).info.run_id
        if run_id is None:
            mlflow.log_params({key: str(value)[:500] for key, value in flatten(spec.flat_sections()).items()})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values of a step."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """Ends the run."""
        self._mlflow.end_run()


class WandbTracker:
    """A run in Weights & Biases; with WANDB_MODE=offline in a local folder, for `wandb sync`."""

    def __init__(self, name: str, spec: RunSpec, run_id: str | None) -> None:
        import wandb

        self._run = wandb.init(
            project=PROJECT,
            name=name,
            id=run_id,
            resume="allow",
            config=spec.flat_sections(),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.run_id = self._run.id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


TRACKERS: dict[str, Callable[[str, RunSpec, str | None], Tracker]] = {"mlflow": MlflowTracker, "wandb": WandbTracker}


class SafeTracker:
    """A tracker whose failures cost no training: the first is told, and nothing is sent any more."""

    def __init__(self, tracker: Tracker, say: Callable[[str], None]) -> None:
        self._tracker: Tracker | None = tracker
        self._say = say

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values of a step."""
        self._try(lambda tracker: tracker.scalars(step, values))

    def close(self) -> None:
        """Everything is sent when this returns."""
        self._try(lambda tracker: tracker.close())

    def _try(self, act: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            act(self._tracker)
        except Exception as error:  # whatever a tracker raises; the journal has the values
            self._tracker = None
            self._say(f"the tracker is given up, training goes on: {error}")


def open_tracker(run_root: str, spec: RunSpec, say: Callable[[str], None]) -> SafeTracker | None:
    """The config's tracker, in the run that it had before; None where none is asked for.

    Raises:
      ValueError: the tracker's package is not installed.
    """
    kind = spec.runtime.train.tracker
    if kind == "none":
        return None
    place = open_uri(run_root).join(TRACKER_NAME)
    known: dict[str, Any] = json.loads(place.read_bytes()) if place.exists() else {}
    try:
        tracker = TRACKERS[kind](run_root.rpartition("/")[2], spec, known.get(kind))
    except ImportError as error:
        raise ValueError(
            f"train.tracker is {kind!r}: {error}; install it on every node: pip install 'textscanner[{kind}]'"
        ) from None
    place.write_bytes(json.dumps(known | {kind: tracker.run_id}).encode())
    return SafeTracker(tracker, say)
