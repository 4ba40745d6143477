"""Progress of a run on the driver: a tqdm bar on a terminal, one line per 10 % of the steps in a log file.

Rank 0 sends its figures to a small actor, which the driver polls. The output of the workers themselves goes to Ray's
log files, so a run without problems prints little else.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import ray
import tqdm

from cluster.progress_bar import LineIntervals

POLL_S = 0.5
ACTOR_TIMEOUT_S = 5.0

Progress = dict[str, float]
"""Newest step metrics: `step`, `loss`, `images_per_s`, `data_wait_fraction`, `global_batch_size`; empty before any."""

CheckpointReport = dict[str, Any]
"""A complete checkpoint in storage: `step`, `checkpoint` (its URI) and its validation metrics, if it was validated."""

Listener = Callable[[Progress, list[CheckpointReport]], None]
"""Called from a thread of the driver, with the newest progress and the checkpoints since the last call."""


@ray.remote(num_cpus=0)
class ProgressActor:
    """Buffers what rank 0 sends until the driver fetches it."""

    def __init__(self) -> None:
        self._progress: Progress = {}
        self._messages: list[str] = []
        self._checkpoints: list[CheckpointReport] = []

    def set_progress(self, progress: Progress) -> None:
        self._progress = progress

    def add_message(self, message: str) -> None:
        self._messages.append(message)

    def add_checkpoint(self, checkpoint: CheckpointReport) -> None:
        self._checkpoints.append(checkpoint)

    def fetch(self) -> tuple[Progress, list[str], list[CheckpointReport]]:
        """Returns the newest progress, and the messages and checkpoints added since the last call."""
        fetched = self._progress, self._messages, self._checkpoints
        self._messages, self._checkpoints = [], []
        return fetched


class ProgressBar:
    """Context manager on the driver: prints progress and messages while a run lasts.

    Args:
      actor: handle of the run's `ProgressActor`.
      num_steps: the run's last step.
      listener: also receives progress and checkpoints.
    """

    def __init__(self, actor: Any, num_steps: int, listener: Listener | None = None) -> None:
        self._actor = actor
        self._listener = listener
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=num_steps, unit="step", file=sys.stderr, disable=not self._is_terminal, dynamic_ncols=True
        )
        self._line_intervals = LineIntervals(num_steps, first_percent=0)  # the first step has a line in any case
        self._last_line_step = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> ProgressBar:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._update()  # what came after the last poll
        self._bar.close()

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            self._update()

    def _update(self) -> None:
        try:
            progress, messages, checkpoints = ray.get(self._actor.fetch.remote(), timeout=ACTOR_TIMEOUT_S)
        except Exception:  # training does not depend on the actor: without it, only the display is missing
            return
        if self._listener:
            self._listener(progress, checkpoints)
        for message in messages:
            tqdm.tqdm.write(message, file=sys.stderr)
        if progress:
            self._print_progress(progress)

    def _print_progress(self, progress: Progress) -> None:
        step, num_steps = int(progress["step"]), self._bar.total
        metrics = (
            f"loss {progress['loss']:.3f}  {progress['images_per_s']:.0f} images/s  "
            f"data wait {progress['data_wait_fraction']:.0%}"
        )
        if self._is_terminal:
            self._bar.initial = self._bar.initial or step  # a resumed run: tqdm's rate counts from here
            self._bar.n = step
            self._bar.set_postfix_str(metrics, refresh=True)
            return
        if step > self._last_line_step and self._line_intervals.is_due(step):
            remaining_s = (num_steps - step) * progress["global_batch_size"] / max(progress["images_per_s"], 1e-9)
            print(f"step {step}/{num_steps}  {metrics}  {remaining_s / 60:.0f} min left", file=sys.stderr, flush=True)
            self._last_line_step = step
