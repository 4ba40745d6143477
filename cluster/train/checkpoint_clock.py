"""When the next checkpoint is due by the clock. Rank 0 asks; all ranks save, because all of them report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cluster.config import WorkerConfig

FIRST_AUTO_MINUTES = 10.0  # until the time of a checkpoint is known


def optimal_interval_s(checkpoint_s: float, mean_s_between_failures: float) -> float:
    """The interval in seconds that loses least time (Young, 1974; the first-order solution of Daly, 2006).

    A longer one repeats more steps after a failure, a shorter one spends more time on checkpoints.

    Args:
      checkpoint_s: time for which a checkpoint holds up training.
      mean_s_between_failures: of the whole run, not of one node.
    """
    return math.sqrt(2.0 * checkpoint_s * mean_s_between_failures)


class CheckpointClock:
    """Measures the time since the last checkpoint.

    Args:
      config: `checkpoint_every_minutes` and `mean_hours_between_failures`.
      clock: seconds, monotonic.
    """

    def __init__(self, config: WorkerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._last_s = clock()
        self._checkpoint_s: float | None = None

    @property
    def interval_s(self) -> float:
        """Longest time between checkpoints; infinite if only steps count."""
        minutes = self._config.checkpoint_every_minutes
        if minutes != "auto":
            return minutes * 60.0 or math.inf
        if self._checkpoint_s is None:
            return FIRST_AUTO_MINUTES * 60.0
        return optimal_interval_s(self._checkpoint_s, self._config.mean_hours_between_failures * 3600.0)

    def is_due(self) -> bool:
        return self._clock() - self._last_s >= self.interval_s

    def saved(self, begin_s: float) -> None:
        """Restarts the interval after a checkpoint that held up training since `begin_s`."""
        self._last_s = self._clock()
        self._checkpoint_s = self._last_s - begin_s

    def now_s(self) -> float:
        return self._clock()
