"""Stops waiting for a run that makes no progress.

`train_run` runs in a thread of its own. The caller receives its checkpoint reports, its failure, or an error when it
takes no step for too long. A stalled run cannot be interrupted: it is abandoned, and its processes end with the
driver's.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

from cluster.config import RunSpec
from cluster.errors import RunError, StorageError
from cluster.train.launch import RunResult, train_run
from cluster.train.progress import CheckpointReport, Progress
from textscanner.errors import UserError

POLL_S = 1.0


class MonitoredRun:
    """`train_run` in a background thread; construction starts it."""

    def __init__(self, spec: RunSpec, storage_uri: str, name: str) -> None:
        self._reports: queue.Queue[CheckpointReport] = queue.Queue()
        self._result: RunResult | BaseException | None = None
        self._progress: Progress = {}
        self._last_progress_s = time.monotonic()
        self._thread = threading.Thread(target=self._train, args=(spec, storage_uri, name), daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Waits for the end of the run, at most `timeout_s`."""
        self._thread.join(timeout_s)

    def reports(self, stall_s: float, start_s: float | None = None) -> Iterator[CheckpointReport]:
        """Yields each checkpoint report of the run until it ends.

        Args:
          stall_s: timeout in seconds for the next step, part of a validation, or report, while workers run.
          start_s: timeout in seconds for workers to start, also after a failure; None waits for nodes as long as Ray
            does.

        Raises:
          RunError: the run failed, or stalled. A bug is raised as it is, with its traceback.
        """
        while self.is_alive or not self._reports.empty():
            try:
                yield self._reports.get(timeout=POLL_S)
            except queue.Empty:
                self._check_stalled(stall_s, start_s)
        if isinstance(self._result, (RunError, UserError, StorageError)):
            raise RunError(str(self._result)) from None
        if isinstance(self._result, BaseException):
            raise self._result

    def _check_stalled(self, stall_s: float, start_s: float | None) -> None:
        waited_s = time.monotonic() - self._last_progress_s
        if not self._progress and start_s is not None and waited_s > start_s:
            raise RunError(f"stalled: no worker has started for {start_s:.0f} s")
        if self._progress and waited_s > stall_s:
            raise RunError(f"stalled: no step for {stall_s:.0f} s after step {int(self._progress['step'])}")

    def _train(self, spec: RunSpec, storage_uri: str, name: str) -> None:
        try:
            self._result = train_run(spec, storage_uri, name, self._listen, in_sweep=True)
        except BaseException as error:  # re-raised by `reports`, in the thread that waits
            self._result = error

    def _listen(self, progress: Progress, reports: list[CheckpointReport]) -> None:
        if progress != self._progress or reports:
            self._progress, self._last_progress_s = progress, time.monotonic()
        for report in reports:
            self._reports.put(report)
