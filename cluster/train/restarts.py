"""Restarts a run whose workers fail, with a budget of failures that progress refills.

Ray Train's own budget counts all failures of a run, so a run of weeks ends after a handful of unrelated ones, each of
which cost minutes. Here a checkpoint that is newer than at the failure before starts the count again: the budget limits
failures that recur, not how long a run may take. Ray Train is given no budget, and each failure starts another attempt.
Preemptions are Ray's own affair and are not limited.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

import ray
import ray.train

from cluster.errors import StorageError, redact
from cluster.storage.checkpoints import complete_checkpoints
from cluster.storage.location import open_uri
from textscanner.errors import UserError

RAY_SNAPSHOT_NAME = "checkpoint_manager_snapshot.json"


class Trainer(Protocol):
    """A Ray Train trainer."""

    def fit(self) -> Any:
        """Trains until the end or the first failure."""


class FailureBudget:
    """Counts failures since the last progress.

    Args:
      max_failures: failures in a row that are followed by a restart; -1 for no limit.
      newest_step: step of the newest checkpoint; 0 without one.
    """

    def __init__(self, max_failures: int, newest_step: int) -> None:
        self.max_failures, self.newest_step = max_failures, newest_step
        self.num_failures = 0

    def allows_restart(self, newest_step: int) -> bool:
        """Counts a failure that happened when the newest checkpoint was that of `newest_step`."""
        if newest_step > self.newest_step:
            self.newest_step, self.num_failures = newest_step, 0
        self.num_failures += 1
        return self.max_failures == -1 or self.num_failures <= self.max_failures


def fit_with_restarts(make_trainer: Callable[[], Trainer], run_root: str, max_failures: int) -> None:
    """Trains to the last step. Every attempt has a new trainer and resumes from the newest checkpoint in storage.

    Raises:
      WorkerGroupError: workers failed more often than the budget allows.
      TrainingFailedError, RayError: Ray Train itself failed.
    """
    budget = FailureBudget(max_failures, _newest_step(run_root))
    while True:
        # Ray refuses to resume if a checkpoint in its own list is gone. Storage and our retention decide which exist.
        open_uri(run_root).join(RAY_SNAPSHOT_NAME).delete()
        try:
            make_trainer().fit()
        except ray.train.WorkerGroupError as error:
            if not budget.allows_restart(_newest_step(run_root, budget.newest_step)):
                raise
            _print_restart(error, budget)
        else:
            return


def _newest_step(run_root: str, default: int = 0) -> int:
    """Step of the newest checkpoint; `default` if there is none, or storage does not say: that is no progress."""
    try:
        return max((checkpoint.step for checkpoint in complete_checkpoints(run_root)), default=default)
    except (StorageError, UserError):
        return default


def _print_restart(error: Exception, budget: FailureBudget) -> None:
    limit = f" of {budget.max_failures}" if budget.max_failures != -1 else ""
    print(
        f"restarting from step {budget.newest_step} after failure {budget.num_failures}{limit}: "
        f"{failure_message(error)}",
        file=sys.stderr,
        flush=True,
    )


def failure_message(error: Exception) -> str:
    """The last line of what each failed worker raised, or of the error if Ray names no worker; and where the logs are.

    One line: Tune's callback keeps the last line of what a trial raised.
    """
    failures = getattr(error, "worker_failures", {}) or {}
    reasons = [f"rank {rank}: {_last_line(failure)}" for rank, failure in sorted(failures.items())]
    logs = _ray_logs()
    return redact("; ".join([*(reasons or [_last_line(error)]), *([f"logs: {logs}"] if logs else [])]))


def _last_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else repr(error)


def _ray_logs() -> str:
    """Folder of the Ray session's logs on each node, with the workers' tracebacks; empty if Ray is not connected."""
    node = ray._private.worker._global_node  # Ray Train's logging uses it too; there is no public equivalent
    return str(node.get_logs_dir_path()) if node else ""
