"""A run that is given up when it no longer moves.

`train_run` works in a thread of its own: whoever waits for it hears what it reports, that it failed, or that it took no
step for too long. What stands still is left behind; its processes end with the driver's.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from cluster.config import RunSpec
from cluster.errors import RunError
from cluster.train.launch import RunResult, train_run

POLL_S = 1.0

Report = dict[str, Any]
"""A checkpoint in storage: `step`, `checkpoint` (its URI) and the metrics of its validation."""


class MonitoredRun:
    """`train_run` in a thread: its reports as they come, its failure, or that it stands still."""

    def __init__(self, spec: RunSpec, storage_uri: str, name: str) -> None:
        self._told: queue.Queue[Report] = queue.Queue()
        self._result: RunResult | BaseException | None = None
        self._progress: dict[str, float] = {}
        self._moved_s = time.monotonic()
        self._thread = threading.Thread(target=self._train, args=(spec, storage_uri, name), daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Waits for its end."""
        self._thread.join(timeout_s)

    def reports(self, stall_s: float) -> Iterator[Report]:
        """The run's reports until it ends.

        Raises:
          RunError: it failed, or took no step for `stall_s`.
        """
        while self.alive or not self._told.empty():
            try:
                yield self._told.get(timeout=POLL_S)
            except queue.Empty:
                if time.monotonic() - self._moved_s > stall_s:
                    step = int(self._progress.get("step", 0))
                    raise RunError(f"no step for {stall_s:.0f} s after step {step}: given up") from None
        if isinstance(self._result, BaseException):
            raise RunError(str(self._result)) from None

    def _train(self, spec: RunSpec, storage_uri: str, name: str) -> None:
        try:
            self._result = train_run(spec, storage_uri, name, self._listen)
        except BaseException as error:  # it belongs to the thread that waits
            self._result = error

    def _listen(self, progress: dict[str, float], reports: list[Report]) -> None:
        if progress != self._progress or reports:
            self._progress, self._moved_s = progress, time.monotonic()
        for report in reports:
            self._told.put(report)
