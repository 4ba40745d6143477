"""What a run tells the person who started it: one live line, and a few sentences.

Rank 0 posts to a tiny actor; the driver polls it and prints. Worker output itself stays in Ray's log files: a good run
is quiet. On a terminal the line is a tqdm bar; in a log file it is printed now and then.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
import tqdm

POLL_S = 0.5
LINE_EVERY_S = 30.0  # where the output is a file

Listener = Callable[[dict[str, float], list[dict[str, Any]]], None]
"""Told the newest progress and the new reports, from a thread of its own."""


@ray.remote(num_cpus=0)
class ProgressActor:
    """Holds the newest progress, and the sentences and reports not yet fetched."""

    def __init__(self) -> None:
        self._progress: dict[str, float] = {}
        self._sentences: list[str] = []
        self._reports: list[dict[str, Any]] = []

    def post(self, progress: dict[str, float]) -> None:
        """Replaces the progress: step, loss, images_per_s, data_wait_fraction."""
        self._progress = progress

    def say(self, sentence: str) -> None:
        """Adds a sentence for the driver to print once."""
        self._sentences.append(sentence)

    def report(self, checkpoint: dict[str, Any]) -> None:
        """Adds a checkpoint that is whole in storage: its step, its URI and the metrics of its validation."""
        self._reports.append(checkpoint)

    def take(self) -> tuple[dict[str, float], list[str], list[dict[str, Any]]]:
        """The newest progress, the new sentences and the new reports."""
        taken = self._progress, self._sentences, self._reports
        self._sentences, self._reports = [], []
        return taken


class ProgressBar:
    """Prints a board while a run lasts: a context manager on the driver."""

    def __init__(self, board: Any, num_steps: int, listener: Listener | None = None) -> None:
        self._board = board
        self._listener = listener
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=num_steps, unit="step", file=sys.stderr, disable=not self._terminal, dynamic_ncols=True
        )
        self._printed_s = 0.0
        self._step = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProgressBar:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._show()
        self._bar.close()

    def _watch(self) -> None:
        while not self._done.wait(POLL_S):
            self._show()

    def _show(self) -> None:
        try:
            progress, sentences, reports = ray.get(self._board.take.remote(), timeout=5)
        except Exception:  # the board is a comfort: without it the run goes on
            return
        if self._listener:
            self._listener(progress, reports)
        for sentence in sentences:
            tqdm.tqdm.write(sentence, file=sys.stderr)
        if progress:
            self._line(progress)

    def _line(self, progress: dict[str, float]) -> None:
        step, total = int(progress["step"]), self._bar.total
        told = (
            f"loss {progress['loss']:.3f}  {progress['images_per_s']:.0f} images/s  "
            f"data wait {progress['data_wait_fraction']:.0%}"
        )
        if self._terminal:
            self._bar.initial = self._bar.initial or step
            self._bar.n = step
            self._bar.set_postfix_str(told, refresh=True)
        elif step > self._step and (time.monotonic() - self._printed_s > LINE_EVERY_S or step == total):
            left_s = (total - step) * progress["global_batch_size"] / max(progress["images_per_s"], 1e-9)
            print(f"step {step}/{total}  {told}  {left_s / 60:.0f} min left", file=sys.stderr, flush=True)
            self._printed_s, self._step = time.monotonic(), step
