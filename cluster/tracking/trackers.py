"""Experiment trackers: sends a run's config and scalars to MLflow or Weights & Biases. Off by default.

`train.tracker` is `mlflow` or `wandb`; the package must be installed on the nodes (`pip install '.[mlflow]'` or
`'.[wandb]'` in the project's folder). Server and API key come from the tracker's own environment variables
(MLFLOW_TRACKING_URI, WANDB_MODE, WANDB_API_KEY, ...), which must be set on the workers. A password in an address does
not reach them: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD there. A resumed run continues the
tracker's run, whose id is stored in the run's folder. `metrics.jsonl` remains the authoritative record: a tracker that
fails does not stop the training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cluster.config import RunSpec
from cluster.errors import redact, without_password
from cluster.storage.location import open_uri
from textscanner.config_parsing import flatten
from textscanner.errors import UserError, install_command

TRACKER_NAME = "tracker.json"
# Variables that are set on the workers of a remote cluster too. No keys and passwords: nodes have their own.
PASSED_ON = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_ENTITY")
PROJECT = "textscanner"
MLFLOW_PARAM_CHARACTERS = 500  # MLflow refuses longer values


def passed_on() -> dict[str, str]:
    """The variables of `PASSED_ON` that are set in this process, without passwords in URLs: Ray shows the runtime
    environment on its dashboard."""
    return {name: without_password(os.environ[name]) for name in PASSED_ON if name in os.environ}


class Tracker(Protocol):
    """An open run of an experiment tracker."""

    run_id: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the values of a step."""

    def close(self) -> None:
        """Sends what is buffered and ends the run."""


class MlflowTracker:
    """A run in MLflow; `run_id` continues an earlier one."""

    def __init__(self, name: str, spec: RunSpec, run_id: str | None) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(PROJECT)
        self.run_id: str = mlflow.start_run(run_id=run_id, run_name=name, log_system_metrics=False).info.run_id
        if run_id is None:
            params = flatten(spec.flat_sections())
            mlflow.log_params({key: str(value)[:MLFLOW_PARAM_CHARACTERS] for key, value in params.items()})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
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
        self.run_id: str = self._run.id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[str, RunSpec, str | None], Tracker]] = {"mlflow": MlflowTracker, "wandb": WandbTracker}


class SafeTracker:
    """A tracker that is disabled after its first error, so that training continues without it.

    Args:
      tracker: the tracker.
      report: receives the message about the error, once.
    """

    def __init__(self, tracker: Tracker, report: Callable[[str], None]) -> None:
        self._tracker: Tracker | None = tracker
        self._report = report

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the values of a step."""
        self._try(lambda tracker: tracker.scalars(step, values))

    def close(self) -> None:
        """Sends what is buffered and ends the run."""
        self._try(lambda tracker: tracker.close())

    def _try(self, operation: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            operation(self._tracker)
        except Exception as error:  # trackers raise anything; metrics.jsonl has the values
            self._tracker = None
            self._report(f"the tracker failed and is disabled, training continues: {redact(str(error))}")


def open_tracker(run_root: str, spec: RunSpec, report: Callable[[str], None]) -> SafeTracker | None:
    """Opens the config's tracker, continuing the run of an earlier attempt; None if there is none, or it fails.

    Args:
      run_root: URI of the run's folder.
      report: receives the message of a tracker that fails.

    Raises:
      UserError: the tracker's package is not installed.
    """
    kind = spec.runtime.train.tracker
    if kind == "none":
        return None
    ids_file = open_uri(run_root).join(TRACKER_NAME)
    try:
        run_ids: dict[str, Any] = json.loads(ids_file.read_bytes()) if ids_file.exists() else {}
        tracker = TRACKERS[kind](run_root.rpartition("/")[2], spec, run_ids.get(kind))
        ids_file.write_bytes(json.dumps(run_ids | {kind: tracker.run_id}).encode())
    except ImportError as error:
        raise UserError(
            f"train.tracker is {kind!r}: {error}; install it on every node: {install_command(kind)}"
        ) from None
    except Exception as error:  # trackers raise anything
        report(f"the tracker cannot be opened, training continues without it: {redact(str(error))}")
        return None
    return SafeTracker(tracker, report)
