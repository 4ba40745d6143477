"""A progress bar on a terminal; in a log file one line per 10 %, without carriage returns."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

MIN_TOTAL_FOR_LINES = 100  # smaller totals only get their last line
BYTES = "B"


@contextlib.contextmanager
def progress_bar(
    description: str, total: int, unit: str, *, disable: bool = False, stream: TextIO | None = None
) -> Iterator[Callable[[int], None]]:
    """Yields a function that advances the bar by a number of units; it may be called from several threads.

    Args:
      description: what is being done, e.g. "render".
      unit: one unit in the singular, e.g. "word"; BYTES is scaled to kB, MB, GB.
      disable: shows nothing.
      stream: stderr by default.
    """
    stream = stream or sys.stderr
    if disable:
        yield lambda _: None
    elif stream.isatty():
        import tqdm

        with tqdm.tqdm(total=total, unit=unit, unit_scale=unit == BYTES, desc=description, file=stream) as bar:
            yield lambda count: bar.update(count) and None
    else:
        lines = _ProgressLines(description, total, unit, stream)
        yield lines.advance
        lines.finish()


class LineIntervals:
    """Decides when a log file gets a line: whenever a multiple of 10 % is passed.

    Args:
      first_percent: of the first line, a multiple of 10.
    """

    def __init__(self, total: int, first_percent: int = 10) -> None:
        self._total = total
        self._next_percent = first_percent

    def percent(self, done: int) -> int:
        return 100 * done // max(1, self._total)

    def is_due(self, done: int) -> bool:
        """Whether a line is due at `done`; the next one is due at the next multiple of 10 %."""
        percent = self.percent(done)
        if self._next_percent > min(percent, 100):
            return False
        self._next_percent = percent // 10 * 10 + 10
        return True


class _ProgressLines:
    """Prints `render 3,000/30,000 words (10 %)` whenever a multiple of 10 % is passed."""

    def __init__(self, description: str, total: int, unit: str, stream: TextIO) -> None:
        self._description, self._total, self._unit, self._stream = description, total, unit, stream
        self._done = 0
        self._printed: int | None = None  # units done at the last line
        self._intervals = LineIntervals(total, first_percent=10 if total >= MIN_TOTAL_FOR_LINES else 100)
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._intervals.is_due(self._done):
                self._print()

    def finish(self) -> None:
        """Prints the last line, also if fewer units were done than expected."""
        if self._printed != self._done:
            self._print()

    def _print(self) -> None:
        self._printed = self._done
        if self._unit == BYTES:
            amount = f"{self._done / 1e6:,.1f}/{self._total / 1e6:,.1f} MB"
        else:
            amount = f"{self._done:,}/{self._total:,} {self._unit}{'' if self._total == 1 else 's'}"
        print(f"{self._description} {amount} ({self._intervals.percent(self._done)} %)", file=self._stream, flush=True)
