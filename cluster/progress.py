"""What a run tells the person who started it: one live line, and a few sentences.

Rank 0 posts to a tiny actor; the driver polls it and prints. Worker output itself stays in Ray's log files: a good run
is quiet. On a terminal the line is a tqdm bar; in a log file it is printed now and then.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import ray
import tqdm

POLL_S = 0.5
LINE_EVERY_S = 30.0  # where the output is a file


@ray.remote(num_cpus=0)
class Board:
    """Holds the newest progress and the sentences not yet fetched."""

    def __init__(self) -> None:
        self._progress: dict[str, float] = {}
        self._sentences: list[str] = []

    def post(self, progress: dict[str, float]) -> None:
        """Replaces the progress: step, loss, images_per_s, data_wait_share."""
        self._progress = progress

    def say(self, sentence: str) -> None:
        """Adds a sentence for the driver to print once."""
        self._sentences.append(sentence)

    def take(self) -> tuple[dict[str, float], list[str]]:
        """The newest progress and the new sentences."""
        sentences, self._sentences = self._sentences, []
        return self._progress, sentences


class Display:
    """Prints a board while a run lasts: a context manager on the driver."""

    def __init__(self, board: Any, num_steps: int) -> None:
        self._board = board
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=num_steps, unit="step", file=sys.stderr, disable=not self._terminal, dynamic_ncols=True
        )
        self._printed_s = 0.0
        self._step = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Display:
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
            progress, sentences = ray.get(self._board.take.remote(), timeout=5)
        except Exception:  # the board is a comfort: without it the run goes on
            return
        for sentence in sentences:
            tqdm.tqdm.write(sentence, file=sys.stderr)
        if progress:
            self._line(progress)

    def _line(self, progress: dict[str, float]) -> None:
        step, total = int(progress["step"]), self._bar.total
        told = (
            f"loss {progress['loss']:.3f}  {progress['images_per_s']:.0f} images/s  "
            f"data wait {progress['data_wait_share']:.0%}"
        )
        if self._terminal:
            self._bar.initial = self._bar.initial or step
            self._bar.n = step
            self._bar.set_postfix_str(told, refresh=True)
        elif step > self._step and (time.monotonic() - self._printed_s > LINE_EVERY_S or step == total):
            left_s = (total - step) * progress["global_batch"] / max(progress["images_per_s"], 1e-9)
            print(f"step {step}/{total}  {told}  {left_s / 60:.0f} min left", file=sys.stderr, flush=True)
            self._printed_s, self._step = time.monotonic(), step
